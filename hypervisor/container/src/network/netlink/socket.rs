//! The socket.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with, sockopt,
};

use super::message::{HEADER, Message};

/// Flags of a request (`NLM_F_REQUEST`, `NLM_F_ACK`).
const REQUEST: u16 = 1;
const ACK: u16 = 4;
/// Types of an answer (`NLMSG_ERROR`, `NLMSG_DONE`).
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The longest that the kernel sends at a time is 32 KiB.
const BUFFER: usize = 64 << 10;
/// How long to wait for an answer: the kernel has it ready when the request has been sent.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Whom one talks to.
#[derive(Clone, Copy, Debug)]
pub(in crate::network) enum Family {
    /// Devices, addresses, routes.
    Route,
    /// nf_tables.
    Netfilter,
}

/// A socket to the kernel, in the network namespace in which it was opened.
#[derive(Debug)]
pub(in crate::network) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub(in crate::network) fn open(family: Family) -> io::Result<Self> {
        let protocol = match family {
            // NETLINK_ROUTE is 0, which is what there is without a protocol.
            Family::Route => None,
            Family::Netfilter => Some(NETFILTER),
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        connect(&fd, &SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Asks for one thing; an error is the kernel's.
    pub(in crate::network) fn request(&mut self, message: Message) -> io::Result<()> {
        self.ask(vec![message], &mut |_, _| {})
    }

    /// Asks for things that are done all or not at all. The first and the last mark the batch and are not
    /// answered.
    pub(in crate::network) fn batch(&mut self, begin: Message, messages: Vec<Message>, end: Message) -> io::Result<()> {
        let wanted = messages.len();
        let mut bytes = begin.finish(self.next(), REQUEST);
        // The mark is answered only if it is refused.
        let first = self.sequence;
        for message in messages {
            bytes.extend(message.finish(self.next(), REQUEST | ACK));
        }
        bytes.extend(end.finish(self.next(), REQUEST));
        send_all(&self.fd, &bytes)?;
        self.collect(first, wanted, &mut |_, _| {})
    }

    /// Asks, and gives each answer, type and body, to `answer`.
    pub(in crate::network) fn dump(&mut self, message: Message, answer: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        self.ask(vec![message], answer)
    }

    fn next(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    fn ask(&mut self, messages: Vec<Message>, answer: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        let (first, wanted) = (self.sequence + 1, messages.len());
        for message in messages {
            let bytes = message.finish(self.next(), REQUEST | ACK);
            send_all(&self.fd, &bytes)?;
        }
        self.collect(first, wanted, answer)
    }

    /// Reads until so many requests, counted from this one on, are answered. The first error counts.
    fn collect(&mut self, first: u32, wanted: usize, answer: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        let mut answered = 0;
        while answered < wanted {
            let len = match recv(&self.fd, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((len, _)) => len,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for (kind, sequence, body) in parts(&buffer[..len.min(BUFFER)]) {
                if sequence < first {
                    continue;
                }
                match kind {
                    ERROR | DONE => {
                        answered += 1;
                        let code = body
                            .get(..4)
                            .and_then(|code| code.try_into().ok())
                            .map_or(0, i32::from_ne_bytes);
                        if code != 0 {
                            // What follows an error in a batch is not answered.
                            return Err(io::Error::from_raw_os_error(-code));
                        }
                    }
                    _ => answer(kind, body),
                }
            }
        }
        Ok(())
    }
}

fn send_all(fd: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    loop {
        match send(fd, bytes, SendFlags::empty()) {
            Ok(len) if len == bytes.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The messages of a datagram: type, sequence number and body.
fn parts(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let message = bytes.get(..len).filter(|message| message.len() >= HEADER)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        let sequence = u32::from_ne_bytes(message[8..12].try_into().ok()?);
        Some((kind, sequence, &message[HEADER..]))
    })
}
