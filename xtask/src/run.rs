//! `cargo xtask run`: a guest on this machine's KVM, or in a nested machine.

mod nested;

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;

use crate::{
    build,
    error::{Error, Result},
    guests, kvm,
    qemu::{self, Disk, Job},
};

/// Where a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Place {
    /// On this machine's /dev/kvm.
    Host,
    /// On the /dev/kvm of a Linux that QEMU runs.
    Qemu,
}

/// Arguments of `cargo xtask run`, up to the `--` before the guest's own.
#[derive(Debug, clap::Args)]
#[command(override_usage = "cargo xtask run [--in PLACE] [APP] [OPTIONS OF chiton run]... [-- ARGUMENTS]...")]
pub(crate) struct Args {
    /// Where to run; without this, here if /dev/kvm works and in QEMU otherwise.
    #[arg(long = "in", value_name = "PLACE")]
    pub(crate) place: Option<Place>,
    /// The guest: an example's name, a directory with a guest's package, or an ELF file.
    #[arg(default_value = "hello")]
    pub(crate) app: String,
    /// Options for `chiton run`, such as `--disk PATH[:ro]` or `--timeout 5s`.
    #[arg(allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

/// Builds `chiton` and the guest, runs it with `arguments`, and returns its exit status.
///
/// # Errors
///
/// If something does not build, or the place does not work.
pub(crate) fn run(args: &Args, arguments: &[String]) -> Result<i32> {
    let usable = kvm::usable();
    let (asked, options) = take_place(args)?;
    let place = asked.unwrap_or(if usable.is_ok() { Place::Host } else { Place::Qemu });
    if let (Place::Host, Err(why)) = (place, &usable) {
        return Err(Error::Missing(format!(
            "{why}; without `--in host` the guest runs in QEMU"
        )));
    }
    let chiton = build::chiton()?;
    let guest = guests::resolve(&args.app)?;
    let why = match (&usable, asked) {
        (_, Some(_)) => "as you asked".to_owned(),
        (Ok(()), None) => "/dev/kvm works".to_owned(),
        (Err(why), None) => why.clone(),
    };
    match place {
        Place::Host => {
            eprintln!("  running {} on this machine's KVM ({}): {why}", args.app, kvm::kind());
            let mut command = Command::new(&chiton);
            command.args(chiton_arguments(
                args.options.clone(),
                &guest.display().to_string(),
                arguments,
            ));
            // Only comes back if it fails.
            let source = command.exec();
            Err(Error::Start {
                program: chiton.display().to_string(),
                source,
            })
        }
        Place::Qemu => {
            let job = job(&options, arguments, chiton, guest)?;
            eprintln!("  running {} in {}: {why}", args.app, qemu::named());
            qemu::run(&job)
        }
    }
}

/// Where to run, and the options for `chiton`. Our own option may stand among those: clap gives all
/// that follows the first unknown option to `options`.
fn take_place(args: &Args) -> Result<(Option<Place>, Vec<String>)> {
    let mut place = args.place;
    let mut options = Vec::new();
    let mut words = args.options.iter();
    while let Some(word) = words.next() {
        let value = if word == "--in" {
            words.next().map(String::as_str)
        } else {
            word.strip_prefix("--in=")
        };
        match value {
            Some(value) => place = Some(Place::from_str(value, false).map_err(|_| unknown_place(value))?),
            None if word == "--in" => return Err(unknown_place("")),
            None => options.push(word.clone()),
        }
    }
    Ok((place, options))
}

fn unknown_place(value: &str) -> Error {
    Error::Usage(format!("`--in {value}` names no place; there are host and qemu"))
}

fn job(options: &[String], arguments: &[String], chiton: PathBuf, guest: PathBuf) -> Result<Job> {
    let name = guest
        .file_name()
        .map_or_else(|| "guest".into(), |name| name.to_string_lossy().into_owned());
    let inside = format!("/guests/{name}");
    nested::refuse_foreign(options)?;
    let (options, disks) = take_disks(options)?;
    let (options, folders) = nested::take_folders(options)?;
    let mut command = vec!["/bin/chiton".to_owned()];
    command.extend(chiton_arguments(options, &inside, arguments));
    let mut files = vec![(chiton, "/bin/chiton".to_owned()), (guest, inside)];
    files.extend(folders.files);
    Ok(Job {
        command,
        directories: folders.directories,
        files,
        disks,
        ..Job::default()
    })
}

/// `-v run --no-jail --exits OPTIONS GUEST ARGUMENTS`: whoever tries a guest wants to see its exits, and needs
/// no rights for a jail. What asks for more words stands before the command.
fn chiton_arguments(options: Vec<String>, guest: &str, arguments: &[String]) -> Vec<String> {
    let more_words = |option: &String| ["-v", "-vv", "-vvv", "--verbose"].contains(&option.as_str());
    let (mut all, options): (Vec<_>, Vec<_>) = options.into_iter().partition(more_words);
    all.extend(["run".to_owned(), "--no-jail".to_owned()]);
    if !options.iter().any(|option| option == "--exits" || option == "-x") {
        all.push("--exits".into());
    }
    all.extend(options);
    all.push(guest.to_owned());
    all.extend(arguments.iter().cloned());
    all
}

/// The options with the paths that disks have in the nested machine, and these disks. A disk that
/// does not exist is left to `chiton` to complain about.
fn take_disks(options: &[String]) -> Result<(Vec<String>, Vec<Disk>)> {
    let mut disks = Vec::new();
    let mut moved = |value: &str| -> Result<String> {
        let (path, suffix) = value.strip_suffix(":ro").map_or((value, ""), |path| (path, ":ro"));
        if !Path::new(path).is_file() {
            return Ok(value.to_owned());
        }
        let disk = Disk::new(disks.len(), Path::new(path), !suffix.is_empty())?;
        let inside = disk.inside() + suffix;
        disks.push(disk);
        Ok(inside)
    };
    let mut rewritten = Vec::new();
    let mut value_follows = false;
    for option in options {
        if value_follows {
            rewritten.push(moved(option)?);
        } else if let Some(value) = option.strip_prefix("--disk=") {
            rewritten.push(format!("--disk={}", moved(value)?));
        } else {
            rewritten.push(option.clone());
        }
        value_follows = !value_follows && option == "--disk";
    }
    Ok((rewritten, disks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Args {
        Cli::try_parse_from(line.split(' ')).unwrap().args
    }

    #[test]
    fn our_own_option_may_stand_among_chitons() {
        let args = parse("run sha256 --disk x:ro -v --in qemu");
        let (place, options) = take_place(&args).unwrap();
        assert_eq!((args.app.as_str(), place), ("sha256", Some(Place::Qemu)));
        assert_eq!(options, ["--disk", "x:ro", "-v"]);
    }

    #[test]
    fn everything_may_be_left_out() {
        let args = parse("run");
        assert_eq!((args.app.as_str(), args.place, args.options.len()), ("hello", None, 0));
    }

    #[test]
    fn our_own_option_may_stand_first() {
        let args = parse("run hello --in qemu -v");
        assert_eq!(take_place(&args).unwrap(), (Some(Place::Qemu), vec!["-v".to_owned()]));
        assert!(take_place(&parse("run hello -v --in mars")).is_err());
        assert!(take_place(&parse("run hello -v --in")).is_err());
    }

    #[test]
    fn exits_are_asked_for_once() {
        let options = vec!["--exits".to_owned(), "-v".to_owned()];
        assert_eq!(
            chiton_arguments(options, "g", &["a".into()]),
            ["-v", "run", "--no-jail", "--exits", "g", "a"]
        );
        assert_eq!(chiton_arguments(vec![], "g", &[]), ["run", "--no-jail", "--exits", "g"]);
    }

    #[test]
    fn disks_move_and_other_options_stay() {
        let file = env!("CARGO_MANIFEST_DIR").to_owned() + "/Cargo.toml";
        let options = [
            "--timeout",
            "5s",
            "--disk",
            &file,
            &format!("--disk={file}:ro"),
            "--disk",
            "/no/such",
            "-v",
        ];
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let (moved, disks) = take_disks(&options).unwrap();
        assert_eq!(
            moved,
            [
                "--timeout",
                "5s",
                "--disk",
                "/disks/0",
                "--disk=/disks/1:ro",
                "--disk",
                "/no/such",
                "-v"
            ]
        );
        assert_eq!(disks.len(), 2);
    }
}
