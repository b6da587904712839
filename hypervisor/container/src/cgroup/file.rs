//! Control files: read, written, and taken apart.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use super::error::{Error, Result};

/// More than any control file is; a bound on what is read.
const MAX_BYTES: u64 = 4 << 20;
/// Most are no longer.
const USUAL_BYTES: usize = 512;

pub(super) fn read(path: &Path) -> Result<String> {
    read_of(USUAL_BYTES, path)
}

/// Reads what is of about this length: in one call, for each begins its search anew.
pub(super) fn read_of(bytes: usize, path: &Path) -> Result<String> {
    let mut text = String::with_capacity(bytes);
    fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
        .map(|_| text)
        .map_err(|source| Error::Read {
            path: path.into(),
            source,
        })
}

/// Reads what older kernels and other configurations do not have.
pub(super) fn read_optional(path: &Path) -> Result<Option<String>> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        // EOPNOTSUPP: `*.pressure` while PSI is off.
        Err(Error::Read { source, .. })
            if source.kind() == io::ErrorKind::NotFound || source.raw_os_error() == Some(libc::EOPNOTSUPP) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| Error::Write {
            path: path.into(),
            value: value.into(),
            hint: hint(path, source.raw_os_error()),
            source,
        })
}

/// What the commonest refusals mean.
fn hint(path: &Path, errno: Option<i32>) -> &'static str {
    let name = path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    match (name.as_str(), errno) {
        ("memory.limit_in_bytes" | "memory.memsw.limit_in_bytes", Some(libc::EBUSY)) => {
            "; more than that is in use and cannot be reclaimed"
        }
        ("cpuset.cpus" | "cpuset.mems", Some(libc::EINVAL | libc::EACCES | libc::ENODEV | libc::ERANGE)) => {
            "; the set has to lie within what the parent cgroup has"
        }
        ("cpuset.cpus" | "cpuset.mems", Some(libc::ENOSPC)) => "; a cgroup with processes needs at least one",
        (_, Some(libc::EACCES | libc::EPERM)) => "; this cgroup is not delegated to you",
        _ => "",
    }
}

/// A file of one number, or of `max` for none.
pub(super) fn number_or_max(path: &Path, text: &str) -> Result<Option<u64>> {
    match text.trim() {
        "max" => Ok(None),
        text => number(path, text).map(Some),
    }
}

pub(super) fn number(path: &Path, text: &str) -> Result<u64> {
    text.trim().parse().map_err(|_| Error::Content {
        path: path.into(),
        expected: "a number",
        found: text.trim().chars().take(80).collect(),
    })
}

/// The value of a key in a "flat keyed" file: `KEY VALUE` lines (cgroup-v2.rst, "Format").
pub(super) fn flat(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The value of a key in one line of a "nested keyed" file: `WHICH KEY=VALUE KEY=VALUE`.
pub(super) fn nested(line: &str, key: &str) -> Option<u64> {
    line.split_ascii_whitespace()
        .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

/// The process IDs of `cgroup.procs`; 0 stands for one of another PID namespace.
pub(super) fn processes(directory: &Path) -> Result<Vec<i32>> {
    let path = directory.join("cgroup.procs");
    read(&path)?
        .lines()
        .map(|line| {
            line.parse().map_err(|_| Error::Content {
                path: path.clone(),
                expected: "process IDs",
                found: line.chars().take(80).collect(),
            })
        })
        .collect()
}

/// A made-up cgroup: a directory with some files, removed at the end.
#[cfg(test)]
pub(super) struct Fixture(std::path::PathBuf);

#[cfg(test)]
pub(super) fn fixture(name: &str, files: &[(&str, &str)]) -> Fixture {
    let path = std::env::temp_dir().join(format!("chiton-cgroup-{}-{name}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    for (name, text) in files {
        fs::write(path.join(name), text).unwrap();
    }
    Fixture(path)
}

#[cfg(test)]
impl std::ops::Deref for Fixture {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_found_whole() {
        let text = "oom 1\noom_kill 2\nmax 3\n";
        assert_eq!(flat(text, "oom"), Some(1));
        assert_eq!(flat(text, "oom_kill"), Some(2));
        assert_eq!(flat(text, "oom_"), None);
        assert_eq!(flat(text, "low"), None);
    }

    #[test]
    fn a_nested_key_is_found_whole() {
        let line = "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6";
        assert_eq!(nested(line, "rbytes"), Some(1));
        assert_eq!(nested(line, "wios"), Some(4));
        assert_eq!(nested(line, "bytes"), None);
    }

    #[test]
    fn a_refused_write_names_file_value_and_reason() {
        let error = write(Path::new("/proc/nonexistent"), "7").unwrap_err().to_string();
        assert!(error.contains("`7` to /proc/nonexistent"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_without_a_panic(text in ".{0,200}", key in "[a-z_]{0,8}") {
            let _ = flat(&text, &key);
            let _ = nested(&text, &key);
        }

        #[test]
        fn what_is_written_flat_is_read_flat(values in proptest::collection::btree_map("[a-z_]{1,10}", any::<u64>(), 0..10)) {
            let text: String = values.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
            for (key, value) in &values {
                prop_assert_eq!(flat(&text, key), Some(*value));
            }
        }
    }
}
