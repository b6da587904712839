//! The eight namespaces: which are new, which are another jail's, and what is set up in each.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, open, openat, statat};
use rustix::io::Errno;

use super::clone::{checked, last_error};
use super::error::{At, Failure, Step};

/// A kind of namespace (`namespaces(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// User and group ids, and what root may do.
    User,
    /// Mounts.
    Mount,
    /// Host and domain name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Process ids.
    Pid,
    /// Network interfaces, addresses, routes, sockets.
    Network,
    /// What looks like the root of control groups.
    Cgroup,
    /// The monotonic clock and the time since boot.
    Time,
}

impl Kind {
    /// All eight, in the order in which another jail's are entered: rights first.
    pub const ALL: [Self; 8] = [
        Self::User,
        Self::Pid,
        Self::Network,
        Self::Ipc,
        Self::Uts,
        Self::Cgroup,
        Self::Time,
        Self::Mount,
    ];

    /// Its name in `/proc/PID/ns`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Mount => "mnt",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Pid => "pid",
            Self::Network => "net",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    fn flag(self) -> libc::c_int {
        match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Network => libc::CLONE_NEWNET,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Time => libc::CLONE_NEWTIME,
        }
    }
}

/// Where a jail's namespace of one kind comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// It is new.
    #[default]
    New,
    /// It is the caller's: this kind of namespace is turned off.
    Caller,
    /// It is that of this process, as the caller numbers it.
    Process(i32),
    /// It is the one that this file stands for: `/proc/PID/ns/NAME`, or a bind mount of it.
    File(PathBuf),
}

/// The sources of all eight.
#[derive(Clone, Debug, Default)]
pub struct Namespaces([Source; 8]);

impl Namespaces {
    /// Sets the source of one.
    pub fn set(&mut self, kind: Kind, source: Source) {
        self.0[kind as usize] = source;
    }

    /// The source of one.
    #[must_use]
    pub fn source(&self, kind: Kind) -> &Source {
        &self.0[kind as usize]
    }

    /// Whether one is new.
    #[must_use]
    pub fn is_new(&self, kind: Kind) -> bool {
        *self.source(kind) == Source::New
    }

    /// Whether one is another jail's.
    pub(super) fn joins(&self, kind: Kind) -> bool {
        matches!(self.source(kind), Source::Process(_) | Source::File(_))
    }

    /// Flags for `clone3`: of the two kinds that a process has from its birth. With the first it has the right to make the
    /// others, with the second it is process 1.
    pub(super) fn clone_flags(&self) -> u64 {
        self.flags(&[Kind::User, Kind::Pid]) as u64
    }

    /// Makes those that the new process makes for itself as soon as it is there: it takes the kernel longer than all that
    /// the caller has to do meanwhile.
    ///
    /// Two kinds are not among them. The cgroup namespace is rooted in the group of whoever makes it, which must be in its
    /// own by then. And a process that enters a time namespace can no longer set its clocks.
    pub(super) fn unshare_early(&self) -> Result<(), Failure> {
        let flags = self.flags(&[Kind::Mount, Kind::Uts, Kind::Ipc, Kind::Network]);
        if flags == 0 {
            return Ok(());
        }
        // SAFETY: flags of namespaces change only what this process, which has one thread, sees.
        checked(unsafe { libc::unshare(flags) })
            .at(Step::Clone, || "unshare".into())
            .map(drop)
    }

    /// The flags of those of these kinds that are new.
    fn flags(&self, kinds: &[Kind]) -> libc::c_int {
        let new = kinds.iter().filter(|kind| self.is_new(**kind));
        new.fold(0, |flags, kind| flags | kind.flag())
    }

    /// Opens the files of all namespaces that are another jail's.
    pub(super) fn open_joined(&self) -> Result<Vec<Joined>, Failure> {
        let mut joined = Vec::new();
        for kind in Kind::ALL {
            let path = match self.source(kind) {
                Source::Process(pid) => PathBuf::from(format!("/proc/{pid}/ns/{}", kind.name())),
                Source::File(path) => path.clone(),
                Source::New | Source::Caller => continue,
            };
            let file = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .at(Step::Join, || format!("{} of {}", kind.name(), path.display()))?;
            joined.push(Joined { kind, path, file });
        }
        Ok(joined)
    }
}

/// Another jail's namespace, open.
#[derive(Debug)]
pub(super) struct Joined {
    kind: Kind,
    path: PathBuf,
    file: OwnedFd,
}

impl Joined {
    /// Moves this process, or for process ids its children, into the namespace.
    pub(super) fn enter(&self) -> Result<(), Failure> {
        // SAFETY: setns takes a descriptor, which is open, and a flag.
        let answer = unsafe { libc::setns(self.file.as_raw_fd(), self.kind.flag()) };
        checked(answer)
            .at(Step::Join, || {
                format!("{} of {}", self.kind.name(), self.path.display())
            })
            .map(drop)
    }
}

/// The inode numbers of this process's namespaces, in the order of [`Kind::ALL`]. Two processes with the
/// same number share the namespace.
///
/// The process asks itself, because others may not once it is closed to them.
pub(super) fn own() -> Result<[u64; 8], Failure> {
    let mut inodes = [0; 8];
    number(&mut inodes, |_| true)?;
    Ok(inodes)
}

/// Asks for the numbers of some.
fn number(inodes: &mut [u64; 8], which: impl Fn(Kind) -> bool) -> Result<(), Failure> {
    let path = "/proc/self/ns";
    // Once: the way there is longer than the rest.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(path, flags, Mode::empty()).at(Step::Join, || path.into())?;
    for (inode, kind) in inodes.iter_mut().zip(Kind::ALL).filter(|(_, kind)| which(*kind)) {
        let found = statat(&folder, kind.name(), AtFlags::empty());
        *inode = found.at(Step::Join, || format!("{path}/{}", kind.name()))?.st_ino;
    }
    Ok(())
}

/// Makes the cgroup namespace, whose root is the group in which this process is, and sets its number among the others'.
pub(super) fn unshare_cgroup(inodes: &mut [u64; 8]) -> Result<(), Failure> {
    unshare(Kind::Cgroup, Step::Cgroup)?;
    number(inodes, |kind| kind == Kind::Cgroup)
}

/// This process's namespaces, open, in the order of [`Kind::ALL`].
pub(super) fn open_own() -> Result<Vec<OwnedFd>, Failure> {
    let open = |kind: Kind| {
        let path = format!("/proc/self/ns/{}", kind.name());
        open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::Join, || path.clone())
    };
    Kind::ALL.into_iter().map(open).collect()
}

/// Makes namespaces of this process that cannot be had at its birth.
pub(super) fn unshare(kind: Kind, step: Step) -> Result<(), Failure> {
    // SAFETY: a flag of a namespace changes only what this process, which has one thread, sees.
    checked(unsafe { libc::unshare(kind.flag()) })
        .at(step, || format!("a new {} namespace", kind.name()))
        .map(drop)
}

/// How far a jail's clocks are from the host's, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Added to `CLOCK_MONOTONIC`.
    pub monotonic: i64,
    /// Added to `CLOCK_BOOTTIME`, which is what `uptime` shows.
    pub boottime: i64,
}

/// Makes a time namespace, sets its clocks while nobody is in it, and enters it.
///
/// A namespace that was made by `unshare` is at first for children only. This process is the only one,
/// and entering its "children's" namespace saves a fork.
pub(super) fn new_clocks(clocks: Clocks) -> Result<(), Failure> {
    unshare(Kind::Time, Step::Clocks)?;
    if clocks != Clocks::default() {
        let offsets = format!("monotonic {} 0\nboottime {} 0\n", clocks.monotonic, clocks.boottime);
        std::fs::write("/proc/self/timens_offsets", offsets).at(Step::Clocks, || {
            format!(
                "monotonic {:+} s, boottime {:+} s (neither may become negative)",
                clocks.monotonic, clocks.boottime
            )
        })?;
    }
    let path = Path::new("/proc/self/ns/time_for_children");
    let file =
        open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::Clocks, || path.display().to_string())?;
    let own = Joined {
        kind: Kind::Time,
        path: path.into(),
        file,
    };
    own.enter()
}

/// Allows no user namespace below this one: a process has all capabilities in one that it made, and those
/// reach deep into the kernel.
///
/// In the host's `/proc` the file takes the longer to find the more jails there are: each user namespace has one of
/// this name, and the kernel walks the chain of them. In a `/proc` of this jail's own there is one.
pub(super) fn no_more_users(proc: Option<&OwnedFd>) -> Result<(), Failure> {
    let path = "/proc/sys/user/max_user_namespaces";
    let (below, name) = match proc {
        Some(proc) => (proc.as_fd(), path.trim_start_matches("/proc/")),
        None => (rustix::fs::CWD, path),
    };
    let file = openat(below, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let written = file.and_then(|file| rustix::io::write(&file, b"0"));
    written.at(Step::Privileges, || path.into()).map(drop)
}

/// Sets host and domain name.
pub(super) fn set_names(host: &str, domain: &str) -> Result<(), Failure> {
    rustix::system::sethostname(host.as_bytes()).at(Step::Hostname, || format!("{host:?} (64 bytes at most)"))?;
    rustix::system::setdomainname(domain.as_bytes()).at(Step::Hostname, || format!("{domain:?} (64 bytes at most)"))
}

/// Brings up `lo`, which is down in a new network namespace.
pub(super) fn loopback_up() -> Result<(), Failure> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .at(Step::Loopback, || "a socket".into())?;
    set_up(&socket).at(Step::Loopback, || "lo".into())
}

fn set_up(socket: &impl std::os::fd::AsFd) -> Result<(), Errno> {
    let socket: BorrowedFd<'_> = socket.as_fd();
    // SAFETY: every field of `ifreq` is a number or an array of numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS (netdevice(7)) reads an `ifreq`, which this is.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if answer == -1 { Err(last_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_new_unless_told_otherwise() {
        let mut namespaces = Namespaces::default();
        assert!(Kind::ALL.into_iter().all(|kind| namespaces.is_new(kind)));
        namespaces.set(Kind::Network, Source::Caller);
        namespaces.set(Kind::Pid, Source::Process(1));
        assert_eq!(namespaces.clone_flags(), libc::CLONE_NEWUSER as u64);
        assert_eq!(namespaces.flags(&[Kind::Network, Kind::Mount]), libc::CLONE_NEWNS);
        assert!(namespaces.joins(Kind::Pid));
    }

    #[test]
    fn a_namespace_that_is_not_there_is_named() {
        let mut namespaces = Namespaces::default();
        namespaces.set(Kind::Network, Source::File("/nowhere/net".into()));
        let error = namespaces.open_joined().unwrap_err().to_string();
        assert!(error.contains("net of /nowhere/net"), "{error}");
    }
}
