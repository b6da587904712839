//! A process that makes a user and a network namespace, and furnishes the second before anybody lives in it.
//!
//! Root makes a network namespace and enters it as it likes. An ordinary user has rights over one only as root of
//! the user namespace that it belongs to, and a process can enter that only for good. So a copy of this process
//! goes there, does what is to be done, and sends out what it opened:
//!
//! ```text
//!   caller                                          keeper
//!     ├── clone3: user and network namespace ─────────▶│
//!     │ id maps                                        │
//!     ├── go ─────────────────────────────────────────▶│ root of both
//!     │◀─────────────────────────── both namespaces ───┤
//!     │ a helper that enters them, if there is one     │
//!     ├── go on ──────────────────────────────────────▶│ devices, addresses
//!     │◀───────────────────── descriptors, or failure ─┤ ends
//! ```

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

use super::channel::{Channel, Word};
use super::error::{At, Error, Failure, Status, Step};
use super::{IdMap, Kind, NO_JAIL, clone, idmap, one_thread, start, wait};

/// The process; it ends when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    pid: i32,
    pidfd: OwnedFd,
    /// None, when it has been closed for the process to end.
    channel: Option<Channel>,
}

impl Keeper {
    /// Starts it with these ids. The namespaces, the user's and the network's, are those it is in; `furnish`
    /// runs there later.
    ///
    /// # Errors
    ///
    /// As [`Jail::spawn`](super::Jail::spawn).
    pub fn start(
        ids: &IdMap,
        furnish: impl FnOnce() -> io::Result<Vec<OwnedFd>>,
    ) -> Result<(Self, [OwnedFd; 2]), Error> {
        one_thread()?;
        let (outside, inner) = Channel::pair().map_err(|errno| Error::System("make a channel", errno.into()))?;
        let flags = (libc::CLONE_NEWUSER | libc::CLONE_NEWNET) as u64;
        let keep = || {
            outside.close();
            match stand(&inner, furnish) {
                Ok(()) => 0,
                Err(failure) => {
                    // Where nobody listens any more there is nobody to tell.
                    let _ = inner.send_descriptors(FAILED, &[]);
                    inner.failed(&failure);
                    NO_JAIL
                }
            }
        };
        let (pid, pidfd) = start(flags, None, keep)?;
        drop(inner);
        let keeper = Self {
            pid,
            pidfd,
            channel: Some(outside),
        };
        ids.write_for(pid)?;
        let namespaces = keeper.go()?;
        match <[OwnedFd; 2]>::try_from(namespaces) {
            Ok(namespaces) => Ok((keeper, namespaces)),
            Err(_) => Err(keeper.failure()),
        }
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Has it furnish the network namespace, and end; what `furnish` opened.
    ///
    /// # Errors
    ///
    /// [`Error::Step`] with what `furnish` said.
    pub fn finish(self) -> Result<Vec<OwnedFd>, Error> {
        self.go()
    }

    /// Lets it go on, until it sends descriptors.
    fn go(&self) -> Result<Vec<OwnedFd>, Error> {
        let Some(channel) = &self.channel else {
            return Err(self.failure());
        };
        // One that is gone has left word of why.
        let _ = channel.send_descriptors(0, &[]);
        match channel.receive_descriptors() {
            Ok(Some((SENT, descriptors))) => Ok(descriptors),
            _ => Err(self.failure()),
        }
    }

    /// Why it sent nothing.
    fn failure(&self) -> Error {
        match self.channel.as_ref().map(Channel::word) {
            Some(Ok(Word::Failed(failure))) => failure.into(),
            _ => Error::Died(wait(&self.pidfd).unwrap_or(Status::Exited(NO_JAIL))),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The end of the channel is its own.
        self.channel = None;
        let _ = wait(&self.pidfd);
    }
}

/// Goes with descriptors that were asked for.
const SENT: u32 = 1;
/// Goes before what failed.
const FAILED: u32 = 0;

/// The process.
fn stand(channel: &Channel, furnish: impl FnOnce() -> io::Result<Vec<OwnedFd>>) -> Result<(), Failure> {
    let go = || -> Result<(), Failure> {
        match channel
            .receive_descriptors()
            .at(Step::Network, || "wait for go".into())?
        {
            Some(_) => Ok(()),
            // Nobody wants it any more.
            None => clone::exit(0),
        }
    };
    let send = |descriptors: &[OwnedFd]| {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let sent = channel.send_descriptors(SENT, &descriptors);
        sent.at(Step::Network, || "send descriptors".into())
    };
    go()?;
    idmap::become_root()?;
    let mut namespaces = Vec::new();
    for kind in [Kind::User, Kind::Network] {
        let path = Path::new("/proc/self/ns").join(kind.name());
        let file = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        namespaces.push(file.at(Step::Network, || path.display().to_string())?);
    }
    send(&namespaces)?;
    go()?;
    let opened = furnish().map_err(|error| Failure {
        step: Step::Network,
        errno: error.raw_os_error().unwrap_or(0),
        on: match error.raw_os_error() {
            Some(_) => "devices and addresses".into(),
            None => error.to_string(),
        },
    })?;
    send(&opened)
}
