//! The machine's end of the line, which asks.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use chiton_core::devices::net::{Link, Received, Sent, Status};
use chiton_core::devices::vsock::{Event, Refused, Socket, Sockets};
use chiton_core::devices::{Input, Output};
use chiton_shared::memory::Window;
use chiton_shared::virtio::net::Header;
use spin::{Mutex, MutexGuard};

use super::call::{Answer, Call, News};
use super::frame::{self, Reader};
use super::{MAX_BYTES, MAX_ETHERNET, MAX_MTU, VERSION};

/// How often a question is asked before nobody is taken to be there.
const TRIES: usize = 20;
/// The most bytes that come before a question is asked again: somebody who babbles has not answered.
const BABBLE: usize = 16 << 10;
/// How long nothing is asked, in nanoseconds, of an end that had no news for who would ask.
const PAUSE_NS: u64 = 1_000_000;
/// The least MTU that there is (section 5.1.4.1 of virtio 1.3).
const MIN_MTU: u16 = 68;

/// A serial line.
pub trait Wire: Send {
    /// Sends bytes, and waits until they are out.
    fn send(&mut self, bytes: &[u8]);

    /// The next byte. `None` if none comes for a while: longer than the other end takes to answer,
    /// 100 ms at the least.
    fn receive(&mut self) -> Option<u8>;

    /// Nanoseconds since whenever, which never run backwards.
    fn now_ns(&self) -> u64;
}

/// Why the line is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Nobody answers.
    #[error(
        "nobody answers on the line {0}: start `cargo xtask relay` at its other end, or leave line={0} out of `command`"
    )]
    Silent(&'static str),
    /// Who answers speaks another version.
    #[error(
        "the other end of the line speaks version {0} of what is spoken there, and this image version {VERSION}: build \
         both of the same sources"
    )]
    Version(u8),
    /// Who answers says what makes no sense.
    #[error("the other end of the line says what makes no sense: see that it is `cargo xtask relay`")]
    Nonsense,
}

/// The other end is gone, or says what makes no sense, which comes to the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gone;

/// The machine's end.
pub struct Line<W> {
    wire: W,
    reader: Reader,
    sequence: u8,
    /// The call, and the frame that it is in.
    body: Vec<u8>,
    out: Vec<u8>,
    /// The last answer.
    answer: Vec<u8>,
    news: News,
    asked_at: u64,
    gone: bool,
}

/// What is there for a guest, as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Sockets, for a guest with this context ID.
    pub sockets: Option<u64>,
    /// A network: the guest's address, and the greatest MTU.
    pub link: Option<([u8; 6], u16)>,
    /// Lines of the guest's environment.
    pub environment: Vec<String>,
}

impl<W: Wire> Line<W> {
    /// Greets the other end of this wire, which `name` is for people: what is there for a guest?
    ///
    /// # Errors
    ///
    /// [`LineError`].
    pub fn open(wire: W, name: &'static str) -> Result<(Arc<Mutex<Self>>, Told), LineError> {
        let mut line = Self {
            wire,
            reader: Reader::default(),
            sequence: 0,
            body: Vec::new(),
            out: Vec::new(),
            answer: Vec::new(),
            news: News::NONE,
            asked_at: 0,
            gone: false,
        };
        line.ask(&Call::Hello).map_err(|Gone| LineError::Silent(name))?;
        let told = match Answer::parse(&line.answer) {
            Ok((Answer::Outside(outside), _)) if outside.version == VERSION => outside,
            Ok((Answer::Outside(outside), _)) => return Err(LineError::Version(outside.version)),
            _ => return Err(LineError::Nonsense),
        };
        let environment = core::str::from_utf8(told.environment).map_err(|_| LineError::Nonsense)?;
        let told = Told {
            sockets: told.sockets,
            link: told.link.map(|(mac, mtu)| (mac, mtu.clamp(MIN_MTU, MAX_MTU))),
            environment: environment.lines().map(String::from).collect(),
        };
        Ok((Arc::new(Mutex::new(line)), told))
    }

    #[cfg(test)]
    pub(super) const fn wire_mut(&mut self) -> &mut W {
        &mut self.wire
    }

    /// Asks until an answer comes, which then is in `answer`.
    fn ask(&mut self, call: &Call<'_>) -> Result<(), Gone> {
        if self.gone {
            return Err(Gone);
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.body.clear();
        call.write(&mut self.body);
        frame::write(self.sequence, &self.body, &mut self.out);
        for _ in 0..TRIES {
            self.wire.send(&self.out);
            for _ in 0..BABBLE {
                let Some(byte) = self.wire.receive() else { break };
                // An answer of another number is one that came late.
                if let Some((_, body)) = self.reader.take(byte).filter(|frame| frame.0 == self.sequence) {
                    self.answer.clear();
                    self.answer.extend_from_slice(body);
                    self.asked_at = self.wire.now_ns();
                    return Ok(());
                }
            }
        }
        self.gone = true;
        Err(Gone)
    }

    /// The answer to a call.
    fn call(&mut self, call: &Call<'_>) -> Result<Answer<'_>, Gone> {
        self.ask(call)?;
        match Answer::parse(&self.answer) {
            Ok((answer, news)) => {
                self.news = news;
                Ok(answer)
            }
            Err(_) => {
                self.gone = true;
                Err(Gone)
            }
        }
    }

    /// Whether more may be new by now than the last answer has told.
    fn is_old(&self) -> bool {
        self.wire.now_ns().saturating_sub(self.asked_at) >= PAUSE_NS
    }

    /// What is new for the network: as the last answer says, or another if that is old and had no frame. An event does not
    /// count: a guest that uses no sockets never takes it.
    fn news_of_link(&mut self) -> Result<News, Gone> {
        if self.gone || !self.news.frame && self.is_old() {
            match self.call(&Call::News)? {
                Answer::Done => {}
                _ => return Err(self.is_nonsense()),
            }
        }
        Ok(self.news)
    }

    /// The next event: asked for if the last answer told of one, or is old. A frame does not count: a guest that uses no
    /// network never takes it.
    fn new_event(&mut self) -> Result<Option<Event>, Gone> {
        if self.gone || self.news.event || self.is_old() {
            self.next_event()
        } else {
            Ok(None)
        }
    }

    fn next_event(&mut self) -> Result<Option<Event>, Gone> {
        match self.call(&Call::NextEvent)? {
            Answer::Asked(socket, port) => Ok(Some(Event::Asked { socket, port })),
            Answer::Socket(socket) => Ok(Some(Event::Ready(socket))),
            Answer::Nothing => Ok(None),
            _ => Err(self.is_nonsense()),
        }
    }

    const fn is_nonsense(&mut self) -> Gone {
        self.gone = true;
        Gone
    }

    /// A call to which there is nothing to be said.
    fn tell(&mut self, call: &Call<'_>) {
        // Whether it is done matters to nobody: it is of a socket that is of no use without the line.
        let _ = self.call(call);
    }
}

/// Sockets at the other end of the line.
pub struct LineSockets<W> {
    line: Arc<Mutex<Line<W>>>,
    open: BTreeSet<Socket>,
}

impl<W: Wire> LineSockets<W> {
    /// Those of this line.
    #[must_use]
    pub const fn new(line: Arc<Mutex<Line<W>>>) -> Self {
        let open = BTreeSet::new();
        Self { line, open }
    }

    fn line(&self) -> MutexGuard<'_, Line<W>> {
        self.line.lock()
    }

    /// A socket that the other end says there is from now on.
    fn add(&mut self, socket: Socket) -> Result<Socket, Gone> {
        if self.open.insert(socket) {
            return Ok(socket);
        }
        // Of two with one name, whose would a byte be?
        Err(self.line().is_nonsense())
    }

    fn next(&mut self) -> Result<Option<Event>, Gone> {
        let event = self.line().new_event()?;
        if let Some(Event::Asked { socket, .. }) = event {
            self.add(socket)?;
        }
        Ok(event)
    }
}

impl<W: Wire> Sockets for LineSockets<W> {
    fn next_event(&mut self) -> Option<Event> {
        match self.next() {
            Ok(event) => event,
            // Each connection is lost, and is told so once.
            Err(Gone) => self.open.pop_first().map(Event::Lost),
        }
    }

    fn connect(&mut self, port: u32) -> Result<Socket, Refused> {
        let socket = {
            let mut line = self.line();
            match line.call(&Call::Connect(port)) {
                Ok(Answer::Socket(socket)) => socket,
                Ok(Answer::Never) | Err(Gone) => return Err(Refused),
                Ok(_) => {
                    line.is_nonsense();
                    return Err(Refused);
                }
            }
        };
        self.add(socket).map_err(|Gone| Refused)
    }

    fn accepted(&mut self, socket: Socket, port: u32) {
        self.line().tell(&Call::Accepted(socket, port));
    }

    fn read(&mut self, socket: Socket, to: &[Window<'_>]) -> Input {
        let room = to.iter().map(Window::len).sum::<usize>().min(MAX_BYTES);
        let mut line = self.line();
        match line.call(&Call::Read(socket, room as u16)) {
            Ok(Answer::Bytes(bytes)) if (1..=room).contains(&bytes.len()) => {
                scatter(bytes, to);
                Input::Bytes(bytes.len())
            }
            // That the line is gone is told as an event.
            Ok(Answer::Nothing) | Err(Gone) => Input::Empty,
            Ok(Answer::Never) => Input::End,
            Ok(_) => {
                line.is_nonsense();
                Input::Empty
            }
        }
    }

    fn write(&mut self, socket: Socket, from: &[u8]) -> Output {
        let from = &from[..from.len().min(MAX_BYTES)];
        let mut line = self.line();
        match line.call(&Call::Write(socket, from)) {
            Ok(Answer::Took(bytes)) if (1..=from.len()).contains(&bytes.into()) => Output::Bytes(bytes.into()),
            Ok(Answer::Nothing) | Err(Gone) => Output::Full,
            Ok(Answer::Never) => Output::Closed,
            Ok(_) => {
                line.is_nonsense();
                Output::Full
            }
        }
    }

    fn finish(&mut self, socket: Socket) {
        self.line().tell(&Call::Finish(socket));
    }

    fn close(&mut self, socket: Socket) {
        self.open.remove(&socket);
        self.line().tell(&Call::Close(socket));
    }
}

/// A network at the other end of the line.
pub struct LineLink<W> {
    line: Arc<Mutex<Line<W>>>,
    mac: [u8; 6],
    mtu: u16,
}

impl<W: Wire> LineLink<W> {
    /// That of this line, with the guest's address and the greatest MTU.
    #[must_use]
    pub const fn new(line: Arc<Mutex<Line<W>>>, mac: [u8; 6], mtu: u16) -> Self {
        Self { line, mac, mtu }
    }
}

impl<W: Wire> Link for LineLink<W> {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    /// None: a frame of 64 KiB is nothing for a line.
    fn offloads(&self) -> u64 {
        0
    }

    fn set_offloads(&mut self, _features: u64) {}

    fn status(&mut self) -> Status {
        let mut line = self.line.lock();
        line.news_of_link().map_or(Status::Gone, |news| news.status)
    }

    fn receive(&mut self, _pair: usize, header: &mut [u8; Header::SIZE], to: &[Window<'_>]) -> Received {
        let mut line = self.line.lock();
        match line.news_of_link() {
            Ok(news) if news.frame => {}
            Ok(_) => return Received::Empty,
            Err(Gone) => return Received::Gone,
        }
        let room: usize = to.iter().map(Window::len).sum();
        match line.call(&Call::Receive) {
            Ok(Answer::Bytes(frame)) if frame.len() <= room => {
                *header = [0; Header::SIZE];
                scatter(frame, to);
                Received::Frame(frame.len())
            }
            Ok(Answer::Bytes(_)) => Received::TooLong,
            Ok(Answer::Nothing) => Received::Empty,
            Ok(Answer::Never) | Err(Gone) => Received::Gone,
            Ok(_) => {
                line.is_nonsense();
                Received::Gone
            }
        }
    }

    fn send(&mut self, _pair: usize, _header: &[u8; Header::SIZE], frame: &[Window<'_>]) -> Sent {
        let mut bytes = [0; MAX_ETHERNET];
        let mut len = 0;
        for window in frame {
            let Some(to) = bytes.get_mut(len..len + window.len()) else {
                return Sent::Dropped;
            };
            window.read(0, to);
            len += window.len();
        }
        let mut line = self.line.lock();
        match line.call(&Call::Send(&bytes[..len])) {
            Ok(Answer::Done) => Sent::Done,
            Ok(Answer::Nothing) => Sent::Dropped,
            Ok(Answer::Never) | Err(Gone) => Sent::Gone,
            Ok(_) => {
                line.is_nonsense();
                Sent::Gone
            }
        }
    }
}

/// Fills windows, in order, with bytes for which they have room.
fn scatter(mut bytes: &[u8], to: &[Window<'_>]) {
    for window in to {
        let (now, later) = bytes.split_at(window.len().min(bytes.len()));
        window.write(0, now);
        bytes = later;
    }
}
