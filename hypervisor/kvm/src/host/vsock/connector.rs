//! Connections out of a jail: no path leads from there to the sockets of the host, so who is outside makes them.
//!
//! ```text
//!   the guest's side, jailed                    the connector, outside
//!     ├── port (4 bytes) ───────────────────────────▶│ connects to PATH_PORT, and to nothing else
//!     │◀───────────── port, and the descriptor or none ┤
//! ```

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socket_with, socketpair, sockopt,
};

/// How long an answer is waited for. Who answers may have been stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to where a program of the host serves a port.
pub(super) fn connect(path: &Path, port: u32) -> rustix::io::Result<OwnedFd> {
    let mut path = OsString::from(path);
    path.push(format!("_{port}"));
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // A Unix socket is connected at once or, if nobody listens or too many wait, never.
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// Makes the connections that a guest in a jail asks for, to the sockets `PATH_PORT` of its device and to no others.
#[derive(Debug)]
pub struct Connector {
    path: PathBuf,
    /// None, when the guest's side has gone, or said what makes no sense.
    channel: Option<OwnedFd>,
}

impl Connector {
    /// One for the sockets beside this path, and who asks it.
    pub(super) fn pair(path: PathBuf) -> io::Result<(Self, Asker)> {
        let (outside, inside) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // Set here: in a jail there is no such call.
        sockopt::set_socket_timeout(&inside, sockopt::Timeout::Recv, Some(PATIENCE))?;
        let channel = Some(outside);
        Ok((Self { path, channel }, Asker(inside)))
    }

    /// What is readable when somebody asks.
    #[must_use]
    pub fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// Answers one who asks, without waiting for anything.
    pub fn answer(&mut self) {
        if let Some(channel) = &self.channel
            && answer(channel, &self.path).is_err()
        {
            self.channel = None;
        }
    }
}

fn answer(channel: &OwnedFd, path: &Path) -> rustix::io::Result<()> {
    // One byte more shows a message that is too long. Descriptors that come with it are dropped.
    let mut bytes = [0; 5];
    let read = retry_on_intr(|| recv(channel, &mut bytes[..], RecvFlags::DONTWAIT));
    let port = match read {
        Ok((4, _)) => [bytes[0], bytes[1], bytes[2], bytes[3]],
        Err(Errno::WOULDBLOCK) => return Ok(()),
        Ok(_) => return Err(Errno::PROTO),
        Err(error) => return Err(error),
    };
    let socket = connect(path, u32::from_le_bytes(port)).ok();
    let sockets: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&sockets));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    retry_on_intr(|| sendmsg(channel, &[IoSlice::new(&port)], &mut control, flags)).map(drop)
}

/// The guest's side.
#[derive(Debug)]
pub(super) struct Asker(OwnedFd);

impl Asker {
    /// A connection to where a program of the host serves this port. After an error there are no more.
    pub(super) fn connect(&self, port: u32) -> rustix::io::Result<OwnedFd> {
        let port = port.to_le_bytes();
        retry_on_intr(|| send(&self.0, &port, SendFlags::NOSIGNAL))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 4];
        let read = retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        if read?.bytes != port.len() || bytes != port {
            return Err(Errno::PROTO);
        }
        let sockets = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        sockets.last().ok_or(Errno::CONNREFUSED)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread;

    use super::super::tests::Place;
    use super::*;

    fn answer_next(connector: &mut Connector) {
        use rustix::event::{PollFd, PollFlags, poll};
        let watched = connector.watched().unwrap();
        poll(&mut [PollFd::from_borrowed_fd(watched, PollFlags::IN)], None).unwrap();
        connector.answer();
    }

    #[test]
    fn who_asks_gets_what_listens_and_nothing_where_nobody_does() {
        let place = Place::new("connector");
        let listener = UnixListener::bind(place.socket().with_file_name("s_80")).unwrap();
        let (mut connector, asker) = Connector::pair(place.socket()).unwrap();
        let asks = thread::spawn(move || [80, 81, 80].map(|port| asker.connect(port)));
        for _ in 0..3 {
            answer_next(&mut connector);
        }
        let [first, refused, second] = asks.join().unwrap();
        assert_eq!(refused.unwrap_err(), Errno::CONNREFUSED);
        for socket in [first, second] {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"hello").unwrap();
            drop(stream);
            let mut text = String::new();
            UnixStream::from(socket.unwrap()).read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
    }

    #[test]
    fn who_asks_for_what_is_no_port_is_not_heard_again() {
        for nonsense in [&b"port80"[..], b"", b"s"] {
            let (mut connector, asker) = Connector::pair("/nowhere/s".into()).unwrap();
            send(&asker.0, nonsense, SendFlags::NOSIGNAL).unwrap();
            connector.answer();
            assert!(connector.watched().is_none(), "{nonsense:?}");
            asker.connect(80).unwrap_err();
        }
    }

    #[test]
    fn one_who_asks_and_takes_no_answer_keeps_nobody() {
        let (mut connector, asker) = Connector::pair("/nowhere/s".into()).unwrap();
        for port in 0_u32.. {
            let sent = send(&asker.0, &port.to_le_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            connector.answer();
            if connector.watched().is_none() {
                break;
            }
            sent.unwrap();
        }
    }

    #[test]
    fn an_end_of_the_guest_is_the_end_of_it() {
        let (mut connector, asker) = Connector::pair("/nowhere/s".into()).unwrap();
        connector.answer();
        assert!(connector.watched().is_some());
        drop(asker);
        connector.answer();
        assert!(connector.watched().is_none());
    }
}
