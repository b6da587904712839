//! What is in a frame: a call, or the answer to one.
//!
//! A byte says which it is; fixed fields follow, least significant byte first, and then bytes to the end
//! of the frame. An answer begins with a byte of [`News`].

use alloc::vec::Vec;

use chiton_core::devices::net::Status;
use chiton_core::devices::vsock::Socket;

/// A frame is none that anybody would have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame came along the line that makes no sense")]
pub struct Nonsense;

/// What is asked of the other end. Each but [`Hello`](Self::Hello) and [`News`](Self::News) is a function of `Sockets` or
/// `Link`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// A guest begins: what is there for it? All sockets of the one before are closed.
    Hello,
    /// Is anything [new](News)? Nothing is taken.
    News,
    /// [`Sockets::next_event`](chiton_core::devices::vsock::Sockets::next_event).
    NextEvent,
    /// `connect` to this port.
    Connect(u32),
    /// `accepted`: the socket, and its port.
    Accepted(Socket, u32),
    /// `read` so many bytes at most.
    Read(Socket, u16),
    /// `write` these.
    Write(Socket, &'a [u8]),
    /// `finish`.
    Finish(Socket),
    /// `close`.
    Close(Socket),
    /// [`Link::receive`](chiton_core::devices::net::Link::receive).
    Receive,
    /// `send` this frame.
    Send(&'a [u8]),
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// To [`Call::Hello`].
    Outside(Outside<'a>),
    /// It is done, or there is nothing to be said.
    Done,
    /// `Event::Asked`: the socket, and the guest's port.
    Asked(Socket, u32),
    /// `Event::Ready`, and a connection that was made.
    Socket(Socket),
    /// Bytes, or a frame, that came in.
    Bytes(&'a [u8]),
    /// So many bytes were taken.
    Took(u16),
    /// Nothing now: `Input::Empty`, `Output::Full`, `Received::Empty`, `Sent::Dropped`.
    Nothing,
    /// Never again: `Refused`, `Input::End`, `Output::Closed`, `Received::Gone`, `Sent::Gone`.
    Never,
}

/// What is there for a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outside<'a> {
    /// What it speaks: [`VERSION`](super::VERSION).
    pub version: u8,
    /// Sockets, for a guest with this context ID.
    pub sockets: Option<u64>,
    /// A network: the guest's address, and the greatest MTU.
    pub link: Option<([u8; 6], u16)>,
    /// Lines of the guest's environment, `KEY=VALUE` each.
    pub environment: &'a [u8],
}

/// What every answer tells besides: whether it is worth asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// Something has happened to sockets.
    pub event: bool,
    /// A frame has come.
    pub frame: bool,
    /// The state of the link.
    pub status: Status,
}

const HELLO: u8 = 1;
const NEXT_EVENT: u8 = 2;
const CONNECT: u8 = 3;
const ACCEPTED: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const FINISH: u8 = 7;
const CLOSE: u8 = 8;
const RECEIVE: u8 = 9;
const SEND: u8 = 10;
const NEWS: u8 = 11;

const OUTSIDE: u8 = 1;
const DONE: u8 = 2;
const ASKED: u8 = 3;
const SOCKET: u8 = 4;
const BYTES: u8 = 5;
const TOOK: u8 = 6;
const NOTHING: u8 = 7;
const NEVER: u8 = 8;

impl<'a> Call<'a> {
    /// Writes it behind what is in `to`.
    pub fn write(&self, to: &mut Vec<u8>) {
        match *self {
            Self::Hello => to.push(HELLO),
            Self::News => to.push(NEWS),
            Self::NextEvent => to.push(NEXT_EVENT),
            Self::Connect(port) => {
                to.push(CONNECT);
                to.extend(port.to_le_bytes());
            }
            Self::Accepted(socket, port) => {
                with_socket(ACCEPTED, socket, to);
                to.extend(port.to_le_bytes());
            }
            Self::Read(socket, most) => {
                with_socket(READ, socket, to);
                to.extend(most.to_le_bytes());
            }
            Self::Write(socket, bytes) => {
                with_socket(WRITE, socket, to);
                to.extend(bytes);
            }
            Self::Finish(socket) => with_socket(FINISH, socket, to),
            Self::Close(socket) => with_socket(CLOSE, socket, to),
            Self::Receive => to.push(RECEIVE),
            Self::Send(frame) => {
                to.push(SEND);
                to.extend(frame);
            }
        }
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`Nonsense`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Nonsense> {
        let mut rest = bytes;
        let call = match u8::from_le_bytes(take(&mut rest)?) {
            HELLO => Self::Hello,
            NEWS => Self::News,
            NEXT_EVENT => Self::NextEvent,
            CONNECT => Self::Connect(u32::from_le_bytes(take(&mut rest)?)),
            ACCEPTED => Self::Accepted(socket(&mut rest)?, u32::from_le_bytes(take(&mut rest)?)),
            READ => Self::Read(socket(&mut rest)?, u16::from_le_bytes(take(&mut rest)?)),
            WRITE => Self::Write(socket(&mut rest)?, core::mem::take(&mut rest)),
            FINISH => Self::Finish(socket(&mut rest)?),
            CLOSE => Self::Close(socket(&mut rest)?),
            RECEIVE => Self::Receive,
            SEND => Self::Send(core::mem::take(&mut rest)),
            _ => return Err(Nonsense),
        };
        rest.is_empty().then_some(call).ok_or(Nonsense)
    }
}

impl<'a> Answer<'a> {
    /// Writes it behind what is in `to`.
    pub fn write(&self, news: News, to: &mut Vec<u8>) {
        to.push(news.to_byte());
        match *self {
            Self::Outside(outside) => {
                to.extend([OUTSIDE, outside.version]);
                to.push(u8::from(outside.sockets.is_some()) | u8::from(outside.link.is_some()) << 1);
                to.extend(outside.sockets.iter().flat_map(|cid| cid.to_le_bytes()));
                if let Some((mac, mtu)) = outside.link {
                    to.extend(mac);
                    to.extend(mtu.to_le_bytes());
                }
                to.extend(outside.environment);
            }
            Self::Done => to.push(DONE),
            Self::Asked(socket, port) => {
                with_socket(ASKED, socket, to);
                to.extend(port.to_le_bytes());
            }
            Self::Socket(socket) => with_socket(SOCKET, socket, to),
            Self::Bytes(bytes) => {
                to.push(BYTES);
                to.extend(bytes);
            }
            Self::Took(bytes) => {
                to.push(TOOK);
                to.extend(bytes.to_le_bytes());
            }
            Self::Nothing => to.push(NOTHING),
            Self::Never => to.push(NEVER),
        }
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`Nonsense`].
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, News), Nonsense> {
        let mut rest = bytes;
        let news = News::of_byte(u8::from_le_bytes(take(&mut rest)?));
        let answer = match u8::from_le_bytes(take(&mut rest)?) {
            OUTSIDE => {
                let [version, there] = take(&mut rest)?;
                let cid = (there & 1 != 0).then(|| take(&mut rest).map(u64::from_le_bytes));
                let cid = cid.transpose()?;
                let link = (there & 2 != 0).then(|| Ok((take(&mut rest)?, u16::from_le_bytes(take(&mut rest)?))));
                Self::Outside(Outside {
                    version,
                    sockets: cid,
                    link: link.transpose()?,
                    environment: core::mem::take(&mut rest),
                })
            }
            DONE => Self::Done,
            ASKED => Self::Asked(socket(&mut rest)?, u32::from_le_bytes(take(&mut rest)?)),
            SOCKET => Self::Socket(socket(&mut rest)?),
            BYTES => Self::Bytes(core::mem::take(&mut rest)),
            TOOK => Self::Took(u16::from_le_bytes(take(&mut rest)?)),
            NOTHING => Self::Nothing,
            NEVER => Self::Never,
            _ => return Err(Nonsense),
        };
        rest.is_empty().then_some((answer, news)).ok_or(Nonsense)
    }
}

impl News {
    /// Nothing is there, and the link, if there is one, is down.
    pub const NONE: Self = Self {
        event: false,
        frame: false,
        status: Status::Down,
    };

    fn to_byte(self) -> u8 {
        let status = match self.status {
            Status::Down => 0,
            Status::Up => 1,
            Status::Gone => 2,
        };
        u8::from(self.event) | u8::from(self.frame) << 1 | status << 2
    }

    const fn of_byte(byte: u8) -> Self {
        Self {
            event: byte & 1 != 0,
            frame: byte & 2 != 0,
            status: match byte >> 2 & 3 {
                0 => Status::Down,
                1 => Status::Up,
                _ => Status::Gone,
            },
        }
    }
}

fn with_socket(kind: u8, socket: Socket, to: &mut Vec<u8>) {
    to.push(kind);
    to.extend(socket.0.to_le_bytes());
}

fn socket(rest: &mut &[u8]) -> Result<Socket, Nonsense> {
    Ok(Socket(u64::from_le_bytes(take(rest)?)))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Nonsense> {
    let (first, behind) = rest.split_first_chunk().ok_or(Nonsense)?;
    *rest = behind;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes);
        bytes
    }

    #[test]
    fn calls_come_out_as_they_went_in() {
        let socket = Socket(u64::MAX - 1);
        for call in [
            Call::Hello,
            Call::News,
            Call::NextEvent,
            Call::Connect(u32::MAX),
            Call::Accepted(socket, 7),
            Call::Read(socket, 1024),
            Call::Write(socket, b"bytes"),
            Call::Finish(socket),
            Call::Close(socket),
            Call::Receive,
            Call::Send(b"a frame"),
        ] {
            assert_eq!(Call::parse(&written(|to| call.write(to))), Ok(call));
        }
    }

    #[test]
    fn answers_come_out_as_they_went_in() {
        let outside = Outside {
            version: 9,
            sockets: Some(3),
            link: Some(([2, 0, 0, 0, 0, 1], 1500)),
            environment: b"A=b\nC=d",
        };
        let news = News {
            event: true,
            frame: false,
            status: Status::Up,
        };
        for answer in [
            Answer::Outside(outside),
            Answer::Outside(Outside::default()),
            Answer::Done,
            Answer::Asked(Socket(1), 5000),
            Answer::Socket(Socket(2)),
            Answer::Bytes(b"bytes"),
            Answer::Took(17),
            Answer::Nothing,
            Answer::Never,
        ] {
            for news in [news, News::NONE] {
                let bytes = written(|to| answer.write(news, to));
                assert_eq!(Answer::parse(&bytes), Ok((answer, news)));
            }
        }
    }

    #[test]
    fn what_is_cut_short_or_goes_on_makes_no_sense() {
        let call = written(|to| Call::Read(Socket(1), 1024).write(to));
        for len in 0..call.len() {
            assert_eq!(Call::parse(&call[..len]), Err(Nonsense), "{len}");
        }
        assert_eq!(Call::parse(&[&call[..], b"x"].concat()), Err(Nonsense));
        assert_eq!(Answer::parse(&[0, TOOK, 1]), Err(Nonsense));
        assert_eq!(Answer::parse(&[0, DONE, 1]), Err(Nonsense));
        assert_eq!(Answer::parse(&[0, 99]), Err(Nonsense));
    }

    proptest! {
        #[test]
        fn what_is_understood_is_written_so_again(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(call) = Call::parse(&bytes) {
                prop_assert_eq!(&written(|to| call.write(to)), &bytes);
            }
            if let Ok((answer, news)) = Answer::parse(&bytes) {
                let again = written(|to| answer.write(news, to));
                prop_assert_eq!(Answer::parse(&again), Ok((answer, news)));
            }
        }
    }
}
