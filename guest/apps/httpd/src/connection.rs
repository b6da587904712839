//! One connection: requests in, answers out, in turn.

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use chiton_guest::net::{NetError, TcpStream};
use chiton_guest::time::Instant;

use crate::folder::Served;
use crate::request::{self, MAX, NoRequest};

/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `/bytes/N` repeats.
static PATTERN: [u8; 4096] = [b'x'; 4096];

/// What an answer consists of.
pub(crate) enum Body {
    Static(&'static [u8]),
    Owned(Vec<u8>),
    /// So many bytes.
    Pattern(u64),
    File(Served),
}

impl Body {
    fn len(&self) -> u64 {
        match self {
            Self::Static(bytes) => bytes.len() as u64,
            Self::Owned(bytes) => bytes.len() as u64,
            Self::Pattern(count) => *count,
            Self::File(file) => file.len,
        }
    }

    /// Some of the bytes from `at` on; none if there are none any more.
    fn from(&mut self, at: u64) -> &[u8] {
        match self {
            Self::Static(bytes) => &bytes[at as usize..],
            Self::Owned(bytes) => &bytes[at as usize..],
            Self::Pattern(count) => &PATTERN[..(*count - at).min(PATTERN.len() as u64) as usize],
            Self::File(file) => file.from(at),
        }
    }
}

/// An answer on its way.
struct Answer {
    head: Vec<u8>,
    body: Body,
    written: u64,
}

impl Answer {
    fn new(status: &str, kind: &str, body: Body, head_only: bool, keep_alive: bool) -> Self {
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            body.len()
        );
        let body = if head_only { Body::Static(b"") } else { body };
        Self {
            head: head.into_bytes(),
            body,
            written: 0,
        }
    }

    /// Writes what there is room for; whether that was all.
    fn write(&mut self, stream: &TcpStream) -> Result<bool, NetError> {
        loop {
            let head = self.head.len() as u64;
            let rest = match self.written.checked_sub(head) {
                None => &self.head[self.written as usize..],
                Some(at) if at == self.body.len() => return Ok(true),
                Some(at) => self.body.from(at),
            };
            if rest.is_empty() {
                // The client was promised more: it learns by the connection's end.
                return Err(NetError::Reset);
            }
            match stream.try_write(rest)? {
                0 => return Ok(false),
                written => self.written += written as u64,
            }
        }
    }
}

/// A client.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    answer: Option<Answer>,
    keep_alive: bool,
    heard: Instant,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            answer: None,
            keep_alive: true,
            heard: Instant::now(),
        }
    }

    /// When the client has been silent for too long.
    pub(crate) fn deadline(&self) -> Instant {
        self.heard + PATIENCE
    }

    /// Goes on as far as possible without waiting; false when the connection is over.
    pub(crate) fn go_on<'f>(&mut self, mut find: impl FnMut(&str) -> (&'f str, &'f str, Body)) -> bool {
        self.step(&mut find).unwrap_or(false) && Instant::now() < self.deadline()
    }

    fn step<'f>(&mut self, find: &mut impl FnMut(&str) -> (&'f str, &'f str, Body)) -> Result<bool, NetError> {
        loop {
            if let Some(answer) = &mut self.answer {
                let before = answer.written;
                let all = answer.write(&self.stream)?;
                if answer.written > before {
                    self.heard = Instant::now();
                }
                if !all {
                    return Ok(true);
                }
                self.answer = None;
                if !self.keep_alive {
                    return Ok(false);
                }
            }
            match request::parse(&self.received) {
                Ok(request) => {
                    self.keep_alive = request.keep_alive;
                    let (status, kind, body) = find(request.path);
                    self.answer = Some(Answer::new(status, kind, body, request.head, request.keep_alive));
                    let len = request.len;
                    self.received.drain(..len);
                }
                Err(NoRequest::Wrong(status)) => {
                    self.keep_alive = false;
                    self.answer = Some(Answer::new(status, "text/plain", Body::Static(b""), true, false));
                }
                Err(NoRequest::Incomplete) => {
                    let mut bytes = [0; 2048];
                    let room = (MAX - self.received.len()).min(bytes.len());
                    match self.stream.try_read(&mut bytes[..room])? {
                        None => return Ok(true),
                        Some(0) => return Ok(false),
                        Some(len) => {
                            self.heard = Instant::now();
                            self.received.extend_from_slice(&bytes[..len]);
                        }
                    }
                }
            }
        }
    }
}
