//! Sockets of a guest on the host: Unix sockets.
//!
//! - A program on the host connects to the socket file PATH, writes `CONNECT <port>\n`, and reads
//!   `OK <port on the host>\n` when the guest has accepted; then bytes flow.
//! - What the guest connects to, port P of the host, is the Unix socket `PATH_P`.
//!
//! This is how Firecracker and others do it, so their clients work here.
//!
//! - [`socket_file`](super::socket_file): the socket file, made and removed;
//! - `handshake`: the first line of a client;
//! - `connector`: who connects for a guest in a jail;
//! - here: many sockets behind one epoll descriptor.

mod connector;
mod handshake;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use chiton_core::devices::vsock::{Event, MAX_CONNECTIONS, Refused, Socket, Sockets};
use chiton_core::devices::{Input, Output};
use chiton_shared::memory::Window;
use chiton_shared::virtio::vsock::{MAX_GUEST_CID, MIN_GUEST_CID};
use rustix::event::epoll;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::socket_file::{SocketFile, SocketFileError};
use super::{BATCH, receive};
use crate::Error;
use connector::Asker;
use handshake::Handshake;

pub use connector::Connector;

/// The context ID a guest has if nobody says otherwise.
pub const DEFAULT_CID: u64 = MIN_GUEST_CID;

/// Why there cannot be a socket device.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The context ID is not one for a guest.
    #[error("the context ID {0} is not one for a guest: choose one from {MIN_GUEST_CID} to {MAX_GUEST_CID} (cid=3)")]
    Cid(u64),
    /// The socket file cannot be made.
    #[error(transparent)]
    File(#[from] SocketFileError),
}

/// What stands behind the path of a socket that the guest connects to, at its longest.
const LONGEST_SUFFIX: usize = "_4294967295".len();

/// A guest's socket device: the socket file is there from now on, until the guest has ended or
/// this is dropped.
#[derive(Debug)]
pub struct Vsock {
    cid: u64,
    host: Host,
    listener: UnixListener,
    file: Option<SocketFile>,
}

impl Vsock {
    /// Listens at this path for clients of the guest with this context ID.
    ///
    /// # Errors
    ///
    /// [`VsockError`].
    pub fn listen(path: impl AsRef<Path>, cid: u64) -> Result<Self, VsockError> {
        if !(MIN_GUEST_CID..=MAX_GUEST_CID).contains(&cid) {
            return Err(VsockError::Cid(cid));
        }
        let (listener, file) = SocketFile::listen(path.as_ref(), LONGEST_SUFFIX)?;
        Ok(Self {
            cid,
            host: Host::Near(path.as_ref().to_owned()),
            listener,
            file: Some(file),
        })
    }

    /// The guest's context ID.
    #[must_use]
    pub const fn cid(&self) -> u64 {
        self.cid
    }

    /// The file, to be kept by who can remove it when the guest, which runs where it cannot, has ended.
    pub const fn take_file(&mut self) -> Option<SocketFile> {
        self.file.take()
    }

    /// Who makes the guest's connections to the host from now on, for one that is to run where it cannot. Who keeps it
    /// has it answer.
    ///
    /// # Errors
    ///
    /// If there are no more descriptors.
    pub fn take_connector(&mut self) -> io::Result<Option<Connector>> {
        let Host::Near(path) = &mut self.host else {
            return Ok(None);
        };
        let (connector, asker) = Connector::pair(mem::take(path))?;
        self.host = Host::Far(asker);
        Ok(Some(connector))
    }

    /// The sockets, and the file, which is there as long as its value.
    ///
    /// # Errors
    ///
    /// If the kernel has no descriptor that watches them.
    pub fn open(self) -> Result<(UnixSockets, Option<SocketFile>), Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Error::system("epoll_create"))?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &self.listener, epoll::EventData::new_u64(LISTENER), edge)
            .map_err(Error::system("epoll_ctl"))?;
        let sockets = UnixSockets {
            host: self.host,
            listener: self.listener,
            may_accept: true,
            epoll,
            ready: VecDeque::new(),
            emptied: false,
            sockets: HashMap::new(),
            last: LISTENER,
        };
        Ok((sockets, self.file))
    }
}

/// How the guest reaches the host.
#[derive(Debug)]
enum Host {
    /// By the paths of sockets, which begin with this one.
    Near(PathBuf),
    /// By asking.
    Far(Asker),
}

/// What epoll says of the listener; every socket has a greater number.
const LISTENER: u64 = 0;

/// How many sockets there can be: connections, and clients that have not said what they want.
const MAX_SOCKETS: usize = MAX_CONNECTIONS + 64;

/// How many events one system call fetches.
const EVENTS: usize = 64;

/// What a socket that is read and written and nothing else is ready for.
const PLAIN: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::OUT);

/// A socket.
#[derive(Debug)]
struct Stream {
    fd: OwnedFd,
    /// What of its first line a client has sent, until it is complete.
    handshake: Option<Handshake>,
    /// When epoll told of it last there was nothing but bytes, or room for some: no end, no error, nothing
    /// urgent.
    plain: bool,
    /// All bytes have been read that had come when epoll told of it last.
    drained: bool,
}

/// The Unix sockets of one guest.
#[derive(Debug)]
pub struct UnixSockets {
    host: Host,
    listener: UnixListener,
    /// There may be clients to accept.
    may_accept: bool,
    /// Watches every descriptor, and tells once when one becomes ready.
    epoll: OwnedFd,
    /// What it told of and nobody has looked at.
    ready: VecDeque<u64>,
    /// It had no more than that to tell.
    emptied: bool,
    sockets: HashMap<u64, Stream>,
    last: u64,
}

impl UnixSockets {
    /// The descriptor that is readable when something has happened.
    pub(crate) fn watched(&self) -> Result<OwnedFd, Error> {
        self.epoll.try_clone().map_err(Error::system("duplicate a descriptor"))
    }

    fn add(&mut self, fd: OwnedFd, handshake: Option<Handshake>) -> Option<Socket> {
        let number = self.last + 1;
        let flags = PLAIN | epoll::EventFlags::RDHUP | epoll::EventFlags::PRI | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &fd, epoll::EventData::new_u64(number), flags).ok()?;
        self.last = number;
        // It may be ready already.
        self.emptied = false;
        let stream = Stream {
            fd,
            handshake,
            plain: false,
            drained: false,
        };
        self.sockets.insert(number, stream);
        Some(Socket(number))
    }

    /// Accepts who has connected, as many as there is room for.
    fn accept(&mut self) {
        while self.may_accept && self.sockets.len() < MAX_SOCKETS {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if stream.set_nonblocking(true).is_ok() {
                        self.add(stream.into(), Some(Handshake::default()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors: tried again when a socket was closed.
                    self.may_accept = error.kind() != io::ErrorKind::WouldBlock;
                    return;
                }
            }
        }
    }

    /// Fetches what has happened; false if nothing has.
    fn fetch(&mut self) -> bool {
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        // An error is an interruption; the descriptor stays ready then.
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut events[..], Some(&now)) else {
            return false;
        };
        for event in events.iter() {
            let number = event.data.u64();
            if let Some(stream) = self.sockets.get_mut(&number) {
                let flags = event.flags;
                (stream.plain, stream.drained) = (PLAIN.contains(flags), false);
            }
            self.ready.push_back(number);
        }
        self.emptied = (1..EVENTS).contains(&events.len());
        !events.is_empty()
    }

    /// A descriptor is ready: what that means for the device, if anything.
    fn look(&mut self, number: u64) -> Option<Event> {
        if number == LISTENER {
            self.may_accept = true;
            self.accept();
            return None;
        }
        let stream = self.sockets.get_mut(&number)?;
        let Some(handshake) = &mut stream.handshake else {
            return Some(Event::Ready(Socket(number)));
        };
        match handshake.read(&stream.fd) {
            handshake::Progress::Unfinished => None,
            handshake::Progress::Port(port) => {
                stream.handshake = None;
                let socket = Socket(number);
                Some(Event::Asked { socket, port })
            }
            handshake::Progress::Nonsense => {
                self.close(Socket(number));
                None
            }
        }
    }

    fn fd(&self, socket: Socket) -> Option<&OwnedFd> {
        self.sockets.get(&socket.0).map(|stream| &stream.fd)
    }
}

impl Sockets for UnixSockets {
    fn next_event(&mut self) -> Option<Event> {
        loop {
            let Some(number) = self.ready.pop_front() else {
                // What has happened since the last look makes the descriptor ready again.
                if !mem::take(&mut self.emptied) && self.fetch() {
                    continue;
                }
                return None;
            };
            if let Some(event) = self.look(number) {
                return Some(event);
            }
        }
    }

    fn connect(&mut self, port: u32) -> Result<Socket, Refused> {
        if self.sockets.len() >= MAX_SOCKETS {
            return Err(Refused);
        }
        let connected = match &self.host {
            Host::Near(path) => connector::connect(path, port),
            Host::Far(asker) => asker.connect(port),
        };
        let fd = connected.map_err(|_| Refused)?;
        self.add(fd, None).ok_or(Refused)
    }

    fn accepted(&mut self, socket: Socket, port: u32) {
        if let Some(fd) = self.fd(socket) {
            // The first bytes of a socket fit; if the client is gone, reading says so.
            let _ = rustix::net::send(fd, format!("OK {port}\n").as_bytes(), SendFlags::NOSIGNAL);
        }
    }

    fn read(&mut self, socket: Socket, to: &[Window<'_>]) -> Input {
        let Some(stream) = self.sockets.get_mut(&socket.0) else {
            return Input::End;
        };
        // Epoll tells of whatever has come since.
        if mem::take(&mut stream.drained) {
            return Input::Empty;
        }
        match receive(stream.fd.as_fd(), to) {
            Ok((0, _)) => Input::End,
            Ok((bytes, more_than_bytes)) => {
                let room: usize = to.iter().take(BATCH).map(Window::len).sum();
                stream.drained = bytes < room && stream.plain && !more_than_bytes;
                Input::Bytes(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Input::Empty,
            Err(_) => Input::End,
        }
    }

    fn write(&mut self, socket: Socket, from: &[u8]) -> Output {
        let Some(fd) = self.fd(socket) else {
            return Output::Closed;
        };
        loop {
            return match rustix::net::send(fd, from, SendFlags::NOSIGNAL) {
                Ok(bytes) => Output::Bytes(bytes),
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => Output::Full,
                Err(_) => Output::Closed,
            };
        }
    }

    fn finish(&mut self, socket: Socket) {
        if let Some(fd) = self.fd(socket) {
            // Who has gone already need not be told.
            let _ = rustix::net::shutdown(fd, Shutdown::Write);
        }
    }

    fn close(&mut self, socket: Socket) {
        self.sockets.remove(&socket.0);
        self.may_accept = true;
        self.accept();
    }
}

/// Reads one byte, if there is one.
fn read_byte(fd: &OwnedFd) -> rustix::io::Result<Option<u8>> {
    let mut byte = [0];
    let (read, _) = rustix::net::recv(fd, &mut byte, RecvFlags::empty())?;
    Ok((read > 0).then_some(byte[0]))
}
