//! The other end of the line, which answers.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ptr::NonNull;

use chiton_core::devices::net::{Link, Received, Sent, Status};
use chiton_core::devices::vsock::{Event, Refused, Socket, Sockets};
use chiton_core::devices::{Input, Output};
use chiton_shared::memory::Window;
use chiton_shared::virtio::net::Header;

use super::call::{Answer, Call, News, Outside};
use super::frame::{self, Reader};
use super::{MAX_BYTES, MAX_ETHERNET, MAX_MTU, VERSION};

/// The most bytes of environment: a greeting with them is one frame.
const MAX_ENVIRONMENT: usize = 1024;

/// What answers. It is told each byte that comes, and tells those to be sent.
pub struct Far {
    sockets: Option<(u64, Box<dyn Sockets>)>,
    link: Option<Box<dyn Link>>,
    environment: String,
    reader: Reader,
    /// The number of the last question, and the frame that answers it.
    last: Option<u8>,
    answer: Vec<u8>,
    /// An event, and a frame, that are there to be asked for.
    event: Option<Event>,
    frame: Option<Vec<u8>>,
    /// The sockets that the machine knows.
    known: BTreeSet<Socket>,
    buffer: Box<[u8]>,
}

impl Far {
    /// With these lines for the guest's environment, `KEY=VALUE` each; as many as fit into a greeting.
    #[must_use]
    pub fn new(environment: &[String]) -> Self {
        let mut text = String::new();
        for line in environment {
            if text.len() + line.len() < MAX_ENVIRONMENT {
                text.push_str(line);
                text.push('\n');
            }
        }
        Self {
            sockets: None,
            link: None,
            environment: text,
            reader: Reader::default(),
            last: None,
            answer: Vec::new(),
            event: None,
            frame: None,
            known: BTreeSet::new(),
            buffer: vec![0; MAX_ETHERNET].into(),
        }
    }

    /// With these sockets, for a guest with this context ID.
    #[must_use]
    pub fn sockets(mut self, cid: u64, sockets: impl Sockets + 'static) -> Self {
        self.sockets = Some((cid, Box::new(sockets)));
        self
    }

    /// With this network.
    #[must_use]
    pub fn link(mut self, mut link: impl Link + 'static) -> Self {
        link.set_offloads(0);
        self.link = Some(Box::new(link));
        self
    }

    /// Takes a byte that came; what is to be sent now, if that completes a question.
    pub fn take(&mut self, byte: u8) -> Option<&[u8]> {
        let (sequence, body) = self.reader.take(byte)?;
        let call = Call::parse(body).ok()?;
        // A greeting is of a machine that has just been switched on, whatever its number.
        if self.last != Some(sequence) || call == Call::Hello {
            // What is asked is in the reader, which the answer has no use for.
            let body = body.to_vec();
            let mut written = Vec::new();
            if let Ok(call) = Call::parse(&body) {
                self.answer(&call, &mut written);
            }
            frame::write(sequence, &written, &mut self.answer);
            self.last = Some(sequence);
        }
        Some(&self.answer)
    }

    /// Does what is asked, and writes the answer.
    fn answer(&mut self, call: &Call<'_>, to: &mut Vec<u8>) {
        match *call {
            Call::Hello => {
                self.greeted();
                let outside = Outside {
                    version: VERSION,
                    sockets: self.sockets.as_ref().map(|(cid, _)| *cid),
                    link: self.link.as_ref().map(|link| (link.mac(), link.mtu().min(MAX_MTU))),
                    environment: self.environment.trim_end().as_bytes(),
                };
                Answer::Outside(outside).write(News::NONE, to);
            }
            Call::News => Answer::Done.write(self.news(), to),
            Call::Read(socket, most) => {
                let len = usize::from(most).min(MAX_BYTES);
                let input = match &mut self.sockets {
                    Some((_, sockets)) => into_window(&mut self.buffer[..len], |to| sockets.read(socket, &[to])),
                    None => Input::End,
                };
                let news = self.news();
                match input {
                    Input::Bytes(bytes) => Answer::Bytes(&self.buffer[..bytes.min(len)]),
                    Input::Empty => Answer::Nothing,
                    Input::End => Answer::Never,
                }
                .write(news, to);
            }
            Call::Receive => {
                let frame = self.frame.take();
                let news = self.news();
                match &frame {
                    Some(frame) => Answer::Bytes(frame),
                    None => Answer::Nothing,
                }
                .write(news, to);
            }
            Call::NextEvent | Call::Connect(_) | Call::Write(..) => {
                let answer = self.of_sockets(call);
                answer.write(self.news(), to);
            }
            Call::Accepted(socket, port) => self.done(to, |sockets, _| sockets.accepted(socket, port)),
            Call::Finish(socket) => self.done(to, |sockets, _| sockets.finish(socket)),
            Call::Close(socket) => self.done(to, |sockets, known| {
                known.remove(&socket);
                sockets.close(socket);
            }),
            Call::Send(frame) => {
                let mut bytes = frame.to_vec();
                let sent = match &mut self.link {
                    Some(link) => into_window(&mut bytes, |frame| link.send(0, &[0; Header::SIZE], &[frame])),
                    None => Sent::Gone,
                };
                let answer = match sent {
                    Sent::Done => Answer::Done,
                    Sent::Dropped => Answer::Nothing,
                    Sent::Gone => Answer::Never,
                };
                answer.write(self.news(), to);
            }
        }
    }

    /// A guest begins: nothing of the one before is left but who waits for a connection.
    fn greeted(&mut self) {
        if let Some((_, sockets)) = &mut self.sockets {
            for socket in core::mem::take(&mut self.known) {
                sockets.close(socket);
            }
        }
        self.event = self.event.filter(|event| matches!(event, Event::Asked { .. }));
        self.frame = None;
    }

    /// A question about sockets whose answer has no bytes.
    fn of_sockets(&mut self, call: &Call<'_>) -> Answer<'static> {
        let _ = self.news();
        let Some((_, sockets)) = &mut self.sockets else {
            return if *call == Call::NextEvent {
                Answer::Nothing
            } else {
                Answer::Never
            };
        };
        match *call {
            Call::Connect(port) => match sockets.connect(port) {
                Ok(socket) => {
                    self.known.insert(socket);
                    Answer::Socket(socket)
                }
                Err(Refused) => Answer::Never,
            },
            Call::Write(socket, bytes) => match sockets.write(socket, bytes) {
                Output::Bytes(bytes) => Answer::Took(u16::try_from(bytes).unwrap_or(u16::MAX)),
                Output::Full => Answer::Nothing,
                Output::Closed => Answer::Never,
            },
            _ => match self.event.take() {
                Some(Event::Asked { socket, port }) => {
                    self.known.insert(socket);
                    Answer::Asked(socket, port)
                }
                Some(Event::Ready(socket)) => Answer::Socket(socket),
                Some(Event::Lost(_)) | None => Answer::Nothing,
            },
        }
    }

    /// Does something to a socket.
    fn done(&mut self, to: &mut Vec<u8>, action: impl FnOnce(&mut dyn Sockets, &mut BTreeSet<Socket>)) {
        if let Some((_, sockets)) = &mut self.sockets {
            action(&mut **sockets, &mut self.known);
        }
        Answer::Done.write(self.news(), to);
    }

    /// What there is to be asked for. It is fetched for that, and kept.
    fn news(&mut self) -> News {
        if let (None, Some((_, sockets))) = (&self.event, &mut self.sockets) {
            self.event = sockets.next_event();
        }
        let mut status = Status::Down;
        if let Some(link) = &mut self.link {
            status = link.status();
            if self.frame.is_none() {
                let mut header = [0; Header::SIZE];
                let received = into_window(&mut self.buffer, |to| link.receive(0, &mut header, &[to]));
                match received {
                    Received::Frame(len) => self.frame = self.buffer.get(..len).map(Vec::from),
                    Received::Gone => status = Status::Gone,
                    Received::TooLong | Received::Empty => {}
                }
            }
        }
        News {
            event: self.event.is_some(),
            frame: self.frame.is_some(),
            status,
        }
    }
}

/// Has something done with bytes of this program as if they were a guest's.
pub(super) fn into_window<R>(bytes: &mut [u8], action: impl FnOnce(Window<'_>) -> R) -> R {
    let len = bytes.len();
    // SAFETY: the bytes are one allocation, and borrowed by this function alone as long as the window is
    // there: `action` cannot keep it beyond its return, for any lifetime has to do.
    let window = unsafe { Window::new(NonNull::from(bytes).cast(), len) };
    action(window)
}
