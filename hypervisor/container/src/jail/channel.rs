//! The line between the two sides of a jail that is being made.
//!
//! ```text
//!  outside                                    inside
//!     ├── go: ids are mapped; layers ──────────▶│
//!     │◀──────── its namespaces, if wanted ─────┤
//!     │◀────────────── ready, or what failed ───┤
//!     │◀──────────── end of file: it is running ┤
//! ```

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::error::{Failure, Step};
use super::landlock::Enforced;

/// How many descriptors travel at once; the kernel allows 253.
const DESCRIPTORS: usize = 64;
/// Bytes of a message; a longer description is cut.
const MESSAGE: usize = 1024;

/// One end.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// What comes from inside.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The jail stands.
    Ready(Standing),
    /// It does not.
    Failed(Failure),
    /// Its namespaces, open, come with it.
    Namespaces,
    /// The other side has closed its end: it runs, or it died.
    End,
}

/// What is to be said of a jail that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) landlock: Enforced,
    /// Inode numbers of the namespaces, in the order of [`Kind::ALL`].
    pub(super) namespaces: [u64; 8],
}

impl Channel {
    /// Both ends: outside, inside.
    pub(super) fn pair() -> Result<(Self, Self), Errno> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(a), Self(b)))
    }

    pub(super) fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Closes this process's copy, in a process that ends without destructors.
    pub(super) fn close(&self) {
        // SAFETY: the owner is in memory that a fork copied, and neither drops it nor uses it again.
        unsafe { libc::close(self.number()) };
    }

    /// Sends a number and descriptors. The last message has fewer than the most that go, maybe none.
    pub(super) fn send_descriptors(&self, number: u32, all: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let mut sent = 0;
        loop {
            let some = &all[sent..all.len().min(sent + DESCRIPTORS)];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !some.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(some));
            }
            sendmsg(
                &self.0,
                &[IoSlice::new(&number.to_le_bytes())],
                &mut control,
                SendFlags::NOSIGNAL,
            )?;
            sent += some.len();
            if some.len() < DESCRIPTORS {
                return Ok(());
            }
        }
    }

    /// Waits for descriptors; `None` if the other side is gone.
    pub(super) fn receive_descriptors(&self) -> Result<Option<(u32, Vec<OwnedFd>)>, Errno> {
        let mut all = Vec::new();
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [0; 4];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let message = rustix::io::retry_on_intr(|| {
                recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
            })?;
            if message.bytes == 0 {
                return Ok(None);
            }
            let before = all.len();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    all.extend(fds);
                }
            }
            if all.len() - before < DESCRIPTORS {
                return Ok(Some((u32::from_le_bytes(bytes), all)));
            }
        }
    }

    /// Says from inside that the jail stands.
    pub(super) fn ready(&self, standing: &Standing) -> Result<(), Errno> {
        let mut message = vec![0, standing.landlock as u8];
        message.extend(standing.namespaces.iter().flat_map(|inode| inode.to_le_bytes()));
        rustix::io::write(&self.0, &message).map(drop)
    }

    /// Says from inside what failed.
    pub(super) fn failed(&self, failure: &Failure) {
        let mut message = vec![1, failure.step as u8];
        message.extend(failure.errno.to_le_bytes());
        message.extend(failure.on.bytes().take(MESSAGE - message.len()));
        // Where nobody listens any more there is nobody to tell.
        let _ = rustix::io::write(&self.0, &message);
    }

    /// Sends the namespaces out, in the order of [`Kind::ALL`].
    pub(super) fn show_namespaces(&self, files: &[OwnedFd]) -> Result<(), Errno> {
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&files));
        sendmsg(&self.0, &[IoSlice::new(&[2])], &mut control, SendFlags::NOSIGNAL).map(drop)
    }

    /// Waits outside for the next word from inside.
    pub(super) fn word(&self) -> Result<Word, Errno> {
        self.word_with(&mut Vec::new())
    }

    /// The same; what comes with it is put there.
    pub(super) fn word_with(&self, files: &mut Vec<OwnedFd>) -> Result<Word, Errno> {
        let mut bytes = [0; MESSAGE];
        let mut read = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = rustix::io::retry_on_intr(|| {
                let mut parts = [IoSliceMut::new(&mut bytes)];
                recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
            })?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    files.extend(fds);
                }
            }
            Ok(received.bytes)
        };
        let length = match read() {
            // The jail's process has ended with a message of ours unread. That is told once, ahead of
            // what it had said before.
            Err(Errno::CONNRESET) => read()?,
            other => other?,
        };
        Ok(match &bytes[..length] {
            [] => Word::End,
            [0, landlock, inodes @ ..] if inodes.len() == 64 => {
                let mut namespaces = [0; 8];
                for (inode, bytes) in namespaces.iter_mut().zip(inodes.as_chunks().0) {
                    *inode = u64::from_le_bytes(*bytes);
                }
                let landlock = Enforced::from_byte(*landlock).ok_or(Errno::PROTO)?;
                Word::Ready(Standing { landlock, namespaces })
            }
            [1, step, a, b, c, d, on @ ..] => Word::Failed(Failure {
                step: Step::from_byte(*step).ok_or(Errno::PROTO)?,
                errno: i32::from_le_bytes([*a, *b, *c, *d]),
                on: String::from_utf8_lossy(on).into_owned(),
            }),
            [2] => Word::Namespaces,
            _ => return Err(Errno::PROTO),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_standing_jail_arrives() {
        let (outside, inside) = Channel::pair().unwrap();
        let standing = Standing {
            landlock: Enforced::Partly,
            namespaces: [1, 2, 3, 4, 5, 6, 7, u64::MAX],
        };
        inside.ready(&standing).unwrap();
        assert_eq!(outside.word().unwrap(), Word::Ready(standing));
    }

    #[test]
    fn namespaces_arrive_open_and_before_what_is_said_later() {
        let (outside, inside) = Channel::pair().unwrap();
        let own = std::fs::File::open("/proc/self/ns/uts").unwrap();
        let inode = rustix::fs::fstat(&own).unwrap().st_ino;
        inside.show_namespaces(&[own.into()]).unwrap();
        inside.failed(&Failure::new(Step::Mount, "/proc", Errno::PERM));
        let mut files = Vec::new();
        assert_eq!(outside.word_with(&mut files).unwrap(), Word::Namespaces);
        assert_eq!(
            files
                .iter()
                .map(|file| rustix::fs::fstat(file).unwrap().st_ino)
                .collect::<Vec<_>>(),
            [inode]
        );
        assert!(matches!(outside.word_with(&mut files).unwrap(), Word::Failed(_)));
    }

    #[test]
    fn a_failure_arrives_as_it_was_sent() {
        let (outside, inside) = Channel::pair().unwrap();
        let failure = Failure::new(Step::Mount, "/proc", Errno::PERM);
        inside.failed(&failure);
        assert_eq!(outside.word().unwrap(), Word::Failed(failure));
        drop(inside);
        assert_eq!(outside.word().unwrap(), Word::End);
    }

    #[test]
    fn what_was_said_before_an_end_that_left_ours_unread_arrives() {
        let (outside, inside) = Channel::pair().unwrap();
        let failure = Failure::new(Step::Cgroup, "enter a cgroup", Errno::NOSPC);
        outside.send_descriptors(0, &[]).unwrap();
        inside.failed(&failure);
        drop(inside);
        assert_eq!(outside.word().unwrap(), Word::Failed(failure));
        assert_eq!(outside.word().unwrap(), Word::End);
    }

    #[test]
    fn any_number_of_descriptors_arrives() {
        let (outside, inside) = Channel::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        for count in [0, 1, 63, 64, 65, 130] {
            outside.send_descriptors(7, &vec![null.as_fd(); count]).unwrap();
            let (number, fds) = inside.receive_descriptors().unwrap().unwrap();
            assert_eq!((number, fds.len()), (7, count));
        }
        drop(outside);
        assert!(inside.receive_descriptors().unwrap().is_none());
    }

    #[test]
    fn a_long_description_is_cut() {
        let (outside, inside) = Channel::pair().unwrap();
        inside.failed(&Failure::refused(Step::Exec, "x".repeat(5000)));
        let Word::Failed(failure) = outside.word().unwrap() else {
            panic!("not a failure")
        };
        assert_eq!(failure.on.len(), MESSAGE - 6);
    }
}
