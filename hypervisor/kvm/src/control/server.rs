//! The control socket: clients of other processes, served by the device loop.
//!
//! Nothing here waits. A client has one line of input and one answer under way at most: who does
//! not read its answer is not listened to, and holds nobody up.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::answer;
use super::lines::Lines;
use super::protocol::{Answer, MAX_REQUEST, Request};
use crate::Error;
use crate::host::socket_file::{SocketFile, SocketFileError, nameless};
use crate::hub::Hub;

/// How many clients there can be; more wait to be accepted.
const MAX_CLIENTS: usize = 16;

/// How many lines of a client are answered before others get their turn.
const LINES_PER_TURN: usize = 8;

/// What epoll says of the listener; every client has a greater number.
const LISTENER: u64 = 0;

/// Why there cannot be a control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlSocketError {
    /// The socket file cannot be made.
    #[error(transparent)]
    File(#[from] SocketFileError),
    /// There is no socket to be had.
    #[error("cannot make a control socket")]
    Socket(#[source] io::Error),
}

/// A socket through which other processes control a guest: there from now on, until the guest has
/// ended or this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    file: Option<SocketFile>,
}

/// A control socket that has no file yet, for a guest that is begun before.
#[derive(Debug)]
pub struct NamelessControl(OwnedFd);

impl NamelessControl {
    /// Makes the socket.
    ///
    /// # Errors
    ///
    /// [`ControlSocketError::Socket`].
    pub fn new() -> Result<Self, ControlSocketError> {
        nameless().map(Self).map_err(ControlSocketError::Socket)
    }

    /// The same socket, for the guest, which must not run before this has [got its file](Self::listen).
    ///
    /// # Errors
    ///
    /// [`ControlSocketError::Socket`].
    pub fn for_guest(&self) -> Result<ControlSocket, ControlSocketError> {
        let listener = self.0.try_clone().map_err(ControlSocketError::Socket)?;
        Ok(ControlSocket {
            listener: listener.into(),
            file: None,
        })
    }

    /// Makes the file, as [`ControlSocket::listen`] does.
    ///
    /// # Errors
    ///
    /// [`ControlSocketError`].
    pub fn listen(self, path: impl AsRef<Path>) -> Result<SocketFile, ControlSocketError> {
        Ok(SocketFile::name(&self.0, path.as_ref(), 0)?)
    }
}

impl ControlSocket {
    /// Makes the socket file, for this user alone. One that nobody listens at is replaced.
    ///
    /// # Errors
    ///
    /// [`ControlSocketError`].
    pub fn listen(path: impl AsRef<Path>) -> Result<Self, ControlSocketError> {
        let (listener, file) = SocketFile::listen(path.as_ref(), 0)?;
        Ok(Self {
            listener,
            file: Some(file),
        })
    }

    /// The file, to be kept by who can remove it when the guest, which runs where it cannot, has ended.
    pub const fn take_file(&mut self) -> Option<SocketFile> {
        self.file.take()
    }

    /// The server, and the file, which is there as long as its value.
    pub(crate) fn open(self) -> Result<(Server, Option<SocketFile>), Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Error::system("epoll_create"))?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &self.listener, epoll::EventData::new_u64(LISTENER), edge)
            .map_err(Error::system("epoll_ctl"))?;
        let server = Server {
            listener: self.listener,
            epoll,
            clients: BTreeMap::new(),
            last: LISTENER,
        };
        Ok((server, self.file))
    }
}

/// Who serves the clients of one guest.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    epoll: OwnedFd,
    clients: BTreeMap<u64, Client>,
    last: u64,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    /// What it has said and nobody has answered.
    input: Lines,
    /// What it has not taken of the answer.
    output: Vec<u8>,
    /// The descriptor that came last, for the next request.
    file: Option<OwnedFd>,
    /// Nothing more is heard; it is gone when it has its answer.
    leaving: bool,
    watched: epoll::EventFlags,
}

/// A client that is gone.
struct Gone;

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Server {
    /// Serves those clients that have something to say or room for an answer.
    pub(crate) fn serve(&mut self, hub: &Hub) {
        let mut events = Vec::with_capacity(MAX_CLIENTS + 1);
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        // An error is an interruption; the descriptors stay ready then.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now));
        for event in &events {
            match event.data.u64() {
                LISTENER => self.accept(),
                number => self.turn(number, hub),
            }
        }
    }

    /// Accepts who waits, as many as there is room for.
    fn accept(&mut self) {
        while self.clients.len() < MAX_CLIENTS {
            match self.listener.accept() {
                Ok((stream, _)) => self.add(stream),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody is there; or the host is out of descriptors: tried again when somebody
                // comes or leaves.
                Err(_) => break,
            }
        }
    }

    /// A new client; one that cannot be served finds its connection closed.
    fn add(&mut self, stream: UnixStream) {
        let number = self.last + 1;
        let watched = epoll::EventFlags::IN;
        if stream.set_nonblocking(true).is_err()
            || epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(number), watched).is_err()
        {
            return;
        }
        self.last = number;
        let client = Client {
            stream,
            input: Lines::default(),
            output: Vec::new(),
            file: None,
            leaving: false,
            watched,
        };
        self.clients.insert(number, client);
    }

    fn turn(&mut self, number: u64, hub: &Hub) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let watched = client.turn(hub).map(|()| client.wants());
        let kept = watched.is_ok_and(|wanted| {
            let data = epoll::EventData::new_u64(number);
            let same = wanted == client.watched;
            client.watched = wanted;
            same || epoll::modify(&self.epoll, &client.stream, data, wanted).is_ok()
        });
        if !kept {
            self.clients.remove(&number);
            self.accept();
        }
    }
}

impl Client {
    /// Hears it, answers it, and lets it take the answer, as far as each goes.
    fn turn(&mut self, hub: &Hub) -> Result<(), Gone> {
        self.flush()?;
        if !self.output.is_empty() {
            return Ok(());
        }
        self.hear()?;
        for _ in 0..LINES_PER_TURN {
            let Some(request) = self.input.next_request() else {
                break;
            };
            let stop = matches!(request, Ok(Request::Stop { .. }));
            self.output = match &request {
                // Answered first: there may be nobody to answer once the guest has ended.
                Ok(_) if stop => Answer::Done {},
                Ok(request) => answer(hub, request, self.file.take()),
                Err(error) => Answer::Error(error.to_string()),
            }
            .line();
            let flushed = self.flush();
            if let Ok(Request::Snapshot { .. }) = request {
                hub.let_go();
            }
            if let (true, Ok(request)) = (stop, &request) {
                answer(hub, request, None);
            }
            flushed?;
            if !self.output.is_empty() {
                break;
            }
        }
        self.leaving |= self.input.are_over();
        if self.leaving && self.output.is_empty() && !self.input.has_line() {
            return Err(Gone);
        }
        Ok(())
    }

    /// Reads what there is room for.
    fn hear(&mut self) -> Result<(), Gone> {
        let room = self.input.room();
        if room == 0 || self.leaving {
            return Ok(());
        }
        let mut bytes = [0; MAX_REQUEST + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes[..room])];
        let flags = RecvFlags::CMSG_CLOEXEC;
        match recvmsg(&self.stream, &mut parts, &mut control, flags).map(|received| received.bytes) {
            Ok(0) => self.leaving = true,
            Ok(len) => self.input.extend(&bytes[..len]),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(_) => return Err(Gone),
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.file = files.last().or(self.file.take());
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Gone> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(Gone),
                Ok(len) => {
                    self.output.drain(..len);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    /// What to wait for: room if there is an answer, or lines are left to be answered.
    fn wants(&self) -> epoll::EventFlags {
        if !self.output.is_empty() || self.input.has_line() {
            epoll::EventFlags::OUT
        } else {
            epoll::EventFlags::IN
        }
    }
}
