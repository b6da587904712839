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
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

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
            tell(&inner, stand(&inner, furnish))
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

    /// Has a copy of this process do something in a network namespace, as root of the user namespace that it belongs to,
    /// which is the first; what it opened there.
    ///
    /// # Errors
    ///
    /// [`Error::Step`] with what `furnish` said, and if the namespaces cannot be entered.
    pub fn furnish_in(
        namespaces: [&OwnedFd; 2],
        furnish: impl FnOnce() -> io::Result<Vec<OwnedFd>>,
    ) -> Result<Vec<OwnedFd>, Error> {
        one_thread()?;
        let (outside, inner) = Channel::pair().map_err(|errno| Error::System("make a channel", errno.into()))?;
        let keep = || {
            outside.close();
            tell(
                &inner,
                enter(&inner, namespaces).and_then(|()| send_furnished(&inner, furnish)),
            )
        };
        let (pid, pidfd) = start(0, None, keep)?;
        drop(inner);
        let keeper = Self {
            pid,
            pidfd,
            channel: Some(outside),
        };
        keeper.finish()
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

/// The process's status, when it has told what failed.
fn tell(channel: &Channel, done: Result<(), Failure>) -> i32 {
    let Err(failure) = done else { return 0 };
    // Where nobody listens any more there is nobody to tell.
    let _ = channel.send_descriptors(FAILED, &[]);
    channel.failed(&failure);
    NO_JAIL
}

/// The process, in namespaces of its own.
fn stand(channel: &Channel, furnish: impl FnOnce() -> io::Result<Vec<OwnedFd>>) -> Result<(), Failure> {
    wait_for_go(channel)?;
    idmap::become_root()?;
    let mut namespaces = Vec::new();
    for kind in [Kind::User, Kind::Network] {
        let path = Path::new("/proc/self/ns").join(kind.name());
        let file = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        namespaces.push(file.at(Step::Network, || path.display().to_string())?);
    }
    send(channel, &namespaces)?;
    wait_for_go(channel)?;
    send_furnished(channel, furnish)
}

/// The process, in the namespaces of others.
fn enter(channel: &Channel, namespaces: [&OwnedFd; 2]) -> Result<(), Failure> {
    wait_for_go(channel)?;
    for (kind, file) in [LinkNameSpaceType::User, LinkNameSpaceType::Network]
        .into_iter()
        .zip(namespaces)
    {
        let entered = move_into_link_name_space(file.as_fd(), Some(kind));
        entered.at(Step::Join, || format!("{kind:?}"))?;
    }
    idmap::become_root()
}

fn send_furnished(channel: &Channel, furnish: impl FnOnce() -> io::Result<Vec<OwnedFd>>) -> Result<(), Failure> {
    let opened = furnish().map_err(|error| Failure {
        step: Step::Network,
        errno: error.raw_os_error().unwrap_or(0),
        on: match error.raw_os_error() {
            Some(_) => "devices and addresses".into(),
            None => error.to_string(),
        },
    })?;
    send(channel, &opened)
}

fn wait_for_go(channel: &Channel) -> Result<(), Failure> {
    match channel
        .receive_descriptors()
        .at(Step::Network, || "wait for go".into())?
    {
        Some(_) => Ok(()),
        // Nobody wants it any more.
        None => clone::exit(0),
    }
}

fn send(channel: &Channel, descriptors: &[OwnedFd]) -> Result<(), Failure> {
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let sent = channel.send_descriptors(SENT, &descriptors);
    sent.at(Step::Network, || "send descriptors".into())
}
