//! A network namespace that is furnished from outside before anybody lives in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::NetworkError;

/// A network namespace. It lives as long as this value, or a process in it.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
    users: Option<OwnedFd>,
}

impl Namespace {
    /// A new one, with nothing in it but a loopback device that is down.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Kernel`] if this process may not make one.
    pub fn new() -> Result<Self, NetworkError> {
        // A thread goes there, since a namespace is left only by going to another one.
        let make = || -> io::Result<OwnedFd> {
            // SAFETY: of the namespaces of a thread, only that of the network changes, and the thread
            // ends before anything else runs on it.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        };
        let fd = apart(make).map_err(NetworkError::kernel("make a network namespace"))?;
        Ok(Self { fd, users: None })
    }

    /// One of an ordinary user's, who has rights over it only as root of this user namespace.
    pub(super) fn of_user([users, fd]: [OwnedFd; 2]) -> Self {
        Self { fd, users: Some(users) }
    }

    /// The user namespace whose root has rights over it, unless that is the host's. A jail that enters this one
    /// has to be in it.
    #[must_use]
    pub fn users(&self) -> Option<BorrowedFd<'_>> {
        self.users.as_ref().map(AsFd::as_fd)
    }

    /// That of a running process.
    ///
    /// # Errors
    ///
    /// [`NetworkError::File`] if there is no such process, or it may not be looked into.
    pub fn of_process(pid: u32) -> Result<Self, NetworkError> {
        let path = std::path::PathBuf::from(format!("/proc/{pid}/ns/net"));
        let file = File::open(&path).map_err(NetworkError::file("open", &path))?;
        Ok(Self {
            fd: file.into(),
            users: None,
        })
    }

    /// Does something in it.
    ///
    /// # Errors
    ///
    /// What `act` returns, and if the namespace cannot be entered.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        apart(|| {
            move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))?;
            act()
        })
    }

    /// Its number, which `ls -l /proc/PID/ns/net` shows.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Kernel`].
    pub fn number(&self) -> Result<u64, NetworkError> {
        let stat = rustix::fs::fstat(&self.fd).map_err(NetworkError::kernel("look at a network namespace"))?;
        Ok(stat.st_ino)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Where the kernel has the first port that any process may have (ip-sysctl.rst).
pub(crate) const LOW_PORTS: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// Lets any process of this thread's network namespace have any port. A server in a jail has port 80 if it has
/// an address of its own; the capability for it nobody has in a jail.
pub(crate) fn open_low_ports() -> io::Result<()> {
    std::fs::write(LOW_PORTS, "0")
}

/// Does something on a thread of its own.
fn apart<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(act);
        let died = |_| Err(io::Error::other("a thread died"));
        thread.join().unwrap_or_else(died)
    })
}
