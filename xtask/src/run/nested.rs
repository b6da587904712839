//! Options of `chiton run` that name something of this machine, for a guest in the machine that QEMU
//! runs: folders are copied there, and sockets, pipes and snapshots are refused.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The most that is copied, in bytes: it all has to fit the memory of the machine.
const MOST: u64 = 64 << 20;

/// Folders to bring along.
#[derive(Debug, Default)]
pub(super) struct Folders {
    /// The folders inside.
    pub(super) directories: Vec<String>,
    /// The files: the path here, the path inside.
    pub(super) files: Vec<(PathBuf, String)>,
    bytes: u64,
}

/// Refuses what would be a socket or a pipe inside, where nobody of this machine can reach it, and a snapshot, which was
/// written on another processor.
///
/// # Errors
///
/// [`Error::Usage`].
pub(super) fn refuse_foreign(options: &[String]) -> Result<()> {
    for option in options {
        let long = option.split('=').next().unwrap_or_default();
        let name = match long {
            "--from" => {
                return Err(Error::Usage(
                    "--from names a snapshot, which goes on only on the processor and by the program that have written \
                     it, and the machine that QEMU runs has another processor: use `--in host`, or write the snapshot \
                     and go on from it there with `cargo xtask lab -- COMMAND`"
                        .into(),
                ));
            }
            "--vsock" | "--control" | "--port" => long,
            _ if option.starts_with("-p") => "--port",
            _ => continue,
        };
        return Err(Error::Usage(format!(
            "{name} makes a socket for programs of this machine, and in the machine that QEMU runs they could not \
             reach it: use `--in host`, or run both ends there with `cargo xtask lab -- COMMAND`"
        )));
    }
    Ok(())
}

/// The options with the paths that folders have in the nested machine, and these folders. A folder that
/// does not exist is left to `chiton` to complain about.
///
/// # Errors
///
/// If a folder cannot be read, or is too large.
pub(super) fn take_folders(options: Vec<String>) -> Result<(Vec<String>, Folders)> {
    let mut folders = Folders::default();
    let mut value_follows = false;
    let mut rewritten = Vec::with_capacity(options.len());
    for option in options {
        let prefix = if value_follows {
            ""
        } else if option.starts_with("--folder=") {
            "--folder="
        } else if option.len() > 2 && option.starts_with("-f") {
            "-f"
        } else {
            value_follows = option == "--folder" || option == "-f";
            rewritten.push(option);
            continue;
        };
        value_follows = false;
        let moved = folders.take(&option[prefix.len()..])?;
        rewritten.push(format!("{prefix}{moved}"));
    }
    Ok((rewritten, folders))
}

impl Folders {
    /// Takes the folder of an option's value along; the value inside.
    fn take(&mut self, value: &str) -> Result<String> {
        let (path, mode) = match value.strip_suffix(":rw") {
            Some(path) => (path, ":rw"),
            None => (value.strip_suffix(":ro").unwrap_or(value), ":ro"),
        };
        let path = Path::new(path);
        if !path.is_dir() {
            return Ok(value.to_owned());
        }
        let path = path.canonicalize().map_err(Error::file("read", path))?;
        let name = path.file_name().map_or("root".into(), |name| name.to_string_lossy());
        let inside = format!("/folders/{}/{name}", self.directories.len());
        self.copy(&path, &inside)?;
        let changes = if mode == ":rw" {
            "; what the guest changes is lost with the machine"
        } else {
            ""
        };
        eprintln!("  the folder {} is copied into the machine{changes}", path.display());
        Ok(inside + mode)
    }

    /// Regular files and folders; the rest a guest could not open anyway.
    fn copy(&mut self, from: &Path, inside: &str) -> Result<()> {
        self.directories.push(inside.to_owned());
        for entry in fs::read_dir(from).map_err(Error::file("read", from))? {
            let entry = entry.map_err(Error::file("read", from))?;
            let (path, metadata) = (entry.path(), entry.metadata().map_err(Error::file("read", from))?);
            let inside = format!("{inside}/{}", entry.file_name().to_string_lossy());
            if metadata.is_dir() {
                self.copy(&path, &inside)?;
            } else if metadata.is_file() {
                self.bytes += metadata.len();
                if self.bytes > MOST {
                    let most = MOST >> 20;
                    return Err(Error::Usage(format!(
                        "folders are copied into the machine, which has no room for more than {most} MiB of {}: \
                         name a smaller one, or use `--in host`",
                        from.display()
                    )));
                }
                self.files.push((path, inside));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn what_is_of_this_machine_alone_is_refused_by_name() {
        for (line, name) in [
            ("--timeout 5s --vsock a", "--vsock"),
            ("--control=a", "--control"),
            ("-v --port log=a", "--port"),
            ("-plog=a", "--port"),
            ("-v --from warm.snap", "--from"),
            ("--from=warm.snap", "--from"),
        ] {
            let error = refuse_foreign(&words(line)).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
        assert!(refuse_foreign(&words("--disk --folder -v --balloon=1M")).is_ok());
    }

    #[test]
    fn folders_move_with_what_is_in_them() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/run");
        let options = words(&format!(
            "-v --folder {source} --folder={source}:rw -f /no/such -f{source}"
        ));
        let (moved, folders) = take_folders(options).unwrap();
        assert_eq!(
            moved,
            words("-v --folder /folders/0/run:ro --folder=/folders/1/run:rw -f /no/such -f/folders/2/run:ro")
        );
        assert_eq!(folders.directories.len(), 3);
        assert!(
            folders
                .files
                .iter()
                .any(|(_, inside)| inside == "/folders/0/run/nested.rs")
        );
    }
}
