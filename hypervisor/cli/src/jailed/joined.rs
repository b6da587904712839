//! Namespaces of other instances that one is to be in.
//!
//! Root opens those of any process. An ordinary user has rights over a namespace only as root of the user namespace that
//! it belongs to, so whoever is to be in one is to be in that, too. And a jailed process is closed to all but root. So
//! the supervisor of an ordinary user's instance has its namespaces open, and the user's other programs open them there:
//!
//! ```text
//!   /proc/SUPERVISOR/fd/N ─▶ net:[4026532185]
//!   report.json: "namespaces": { "net": 4026532185, … }
//! ```

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use chiton_container::instance::Instance;
use chiton_container::jail::{Jail, Kind, Source};
use chiton_container::network::Beside;

/// Why an ordinary user's instance cannot be in the namespaces of others.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error(
        "the namespaces of {0} can be entered by root and by who runs it only: run as one of them, or leave them out"
    )]
    NotYours(String),
    #[error("the supervisor of {0} does not have its {1} namespace open: start {0} anew, with this program")]
    NotOpen(String, &'static str),
    #[error(
        "{0} and {1} are in user namespaces of their own, and an ordinary user's instance can be in one: join {0} or {1}, \
         or run as root"
    )]
    Two(String, String),
    #[error(
        "the namespaces of {0} belong to its user namespace, and an ordinary user's instance that is in them is in that: \
         leave out --namespace user=host and --network user, or --namespace of {0}, or run as root"
    )]
    Otherwise(String),
    #[error("{0} has no network of its own with a bridge for guests: start it with --network user")]
    NoNetwork(String),
    #[error("cannot look for the namespaces of {0}: {1}")]
    Look(String, io::Error),
}

/// Namespaces of others, open as long as this is there.
#[derive(Debug, Default)]
pub(super) struct Joined {
    files: Vec<File>,
    /// An ordinary user's: whose they are, and the number and place of the user namespace that they belong to.
    users: Option<(String, u64, Source)>,
}

impl Joined {
    /// A namespace of an instance that runs.
    pub(super) fn join(&mut self, target: &str, kind: Kind) -> Result<Source, Box<dyn Error>> {
        let pid = super::process_of(target)?;
        if rustix::process::geteuid().is_root() {
            return Ok(Source::Process(pid));
        }
        let instance = crate::instance::open()?.find(target)?;
        let (number, users) = self.open(&instance, target, Kind::User)?;
        match &self.users {
            None => self.users = Some((target.to_owned(), number, users)),
            Some((_, other, _)) if *other == number => {}
            Some((other, ..)) => return Err(JoinError::Two(other.clone(), target.to_owned()).into()),
        }
        Ok(self.open(&instance, target, kind)?.1)
    }

    /// Has the jail be in the user namespace of what it joins.
    pub(super) fn enter_users(&self, jail: &mut Jail) -> Result<(), Box<dyn Error>> {
        let Some((target, _, users)) = &self.users else {
            return Ok(());
        };
        // One of the same kind that was joined by name is the same namespace.
        let joined = |source: &Source| self.files.iter().any(|file| *source == open_namespace(file.as_fd()));
        match jail.namespaces.source(Kind::User) {
            Source::New => {}
            source if joined(source) => {}
            _ => return Err(JoinError::Otherwise(target.clone()).into()),
        }
        jail.namespaces.set(Kind::User, users.clone());
        Ok(())
    }

    /// Opens one; its number, and where it is.
    fn open(&mut self, instance: &Instance, target: &str, kind: Kind) -> Result<(u64, Source), Box<dyn Error>> {
        let (number, file) = open(instance, target, kind)?;
        let source = open_namespace(file.as_fd());
        self.files.push(file);
        Ok((number, source))
    }
}

/// The network of another guest of this user's.
pub(super) fn beside(other: &Instance) -> Result<Beside<'_>, Box<dyn Error>> {
    let name = other.name().as_str();
    super::process_of(name)?;
    let network = &other.report()?["network"];
    let no_network = || JoinError::NoNetwork(name.to_owned());
    let word = |what: &str| network[what].as_str().ok_or_else(no_network);
    Ok(Beside {
        namespaces: [
            open(other, name, Kind::User)?.1.into(),
            open(other, name, Kind::Network)?.1.into(),
        ],
        name,
        folder: other.dir(),
        address: word("address")?.parse()?,
        subnet: word("subnet")?.parse()?,
    })
}

/// Opens a namespace of an instance by its supervisor; its number comes with it.
fn open(instance: &Instance, target: &str, kind: Kind) -> Result<(u64, File), Box<dyn Error>> {
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => JoinError::NotYours(target.to_owned()),
        _ => JoinError::Look(target.to_owned(), error),
    };
    let not_open = || JoinError::NotOpen(target.to_owned(), kind.name());
    let number = instance.report()?["namespaces"][kind.name()]
        .as_u64()
        .ok_or_else(not_open)?;
    let supervisor = instance.state()?.supervisor.ok_or_else(not_open)?;
    let link = PathBuf::from(format!("{}:[{number}]", kind.name()));
    for entry in fs::read_dir(format!("/proc/{supervisor}/fd")).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if !fs::read_link(&path).is_ok_and(|found| found == link) {
            continue;
        }
        let file = File::open(path).map_err(fail)?;
        // By now the descriptor may be another.
        if file.metadata().map_err(fail)?.ino() != number {
            break;
        }
        return Ok((number, file));
    }
    Err(not_open().into())
}

/// A namespace that is open here.
pub(super) fn open_namespace(fd: BorrowedFd<'_>) -> Source {
    Source::File(PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())))
}
