//! Where the output of an instance goes: its log, the terminal it was started from, and whoever is
//! attached.
//!
//! Nobody who reads slowly holds up the instance: an attached reader that is too far behind is let go.
//! The terminal is the exception, as it is for any program.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::PollFlags;

use super::socket::SocketPath;
use super::{Instance, InstanceError, LogWriter, Stream};

/// How far behind an attached reader may be, in bytes.
const BEHIND: usize = 1 << 20;
/// How many may be attached at a time.
const CLIENTS: usize = 16;
/// How much is read at a time, in bytes.
const PIECE: usize = 16 << 10;
/// The socket that attached ones connect to, in the instance's folder.
const SOCKET: &str = "attach";

/// Where output goes and where input comes from.
#[derive(Debug)]
pub struct Outputs {
    log: LogWriter,
    /// What log line could not be written is said once.
    log_failed: Option<InstanceError>,
    terminal: Option<[OwnedFd; 2]>,
    listener: UnixListener,
    clients: Vec<Client>,
    /// For the instance to read, from those who are attached.
    input: VecDeque<u8>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    behind: VecDeque<u8>,
    /// It has sent its last byte.
    ended: bool,
}

impl Outputs {
    /// To the instance's log, to those who will be attached, and to `terminal`: standard output and
    /// standard error of who started it.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`].
    pub fn open(instance: &Instance, terminal: Option<[OwnedFd; 2]>) -> Result<Self, InstanceError> {
        let path = SocketPath::new(instance, SOCKET)?;
        let path = path.as_ref();
        // Whoever listened there is dead: this process is the supervisor.
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).map_err(InstanceError::file("listen on", path))?;
        listener
            .set_nonblocking(true)
            .map_err(InstanceError::file("listen on", path))?;
        Ok(Self {
            log: instance.log_writer()?,
            log_failed: None,
            terminal,
            listener,
            clients: Vec::new(),
            input: VecDeque::new(),
        })
    }

    /// Connects to what a running instance writes and reads.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`] if nobody listens.
    pub fn attach(instance: &Instance) -> Result<UnixStream, InstanceError> {
        let path = SocketPath::new(instance, SOCKET)?;
        UnixStream::connect(path.as_ref()).map_err(InstanceError::file("attach to", &instance.dir().join(SOCKET)))
    }

    /// Takes what the instance has written to a stream so far; whether there will be more.
    pub(super) fn take(&mut self, from: &OwnedFd, stream: Stream) -> bool {
        let mut piece = [0; PIECE];
        match rustix::io::read(from, &mut piece) {
            Ok(0) => false,
            Ok(len) => {
                self.put(stream, &piece[..len]);
                true
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => true,
            Err(_) => false,
        }
    }

    fn put(&mut self, stream: Stream, bytes: &[u8]) {
        if self.log_failed.is_none() {
            self.log_failed = self.log.write(stream, bytes).err();
        }
        if let Some(terminal) = &self.terminal
            && write_all(&terminal[stream as usize], bytes).is_err()
        {
            self.terminal = None;
        }
        for client in &mut self.clients {
            client.behind.extend(bytes);
        }
        self.clients
            .retain_mut(|client| client.write() && client.behind.len() <= BEHIND);
    }

    /// Who is attached, and who wants to be: what to wait for.
    pub(super) fn watched(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let room = self.input.len() < PIECE;
        let listener = (self.clients.len() < CLIENTS).then(|| (self.listener.as_fd(), PollFlags::IN));
        let clients = self.clients.iter().map(move |client| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, room && !client.ended);
            flags.set(PollFlags::OUT, !client.behind.is_empty());
            (client.stream.as_fd(), flags)
        });
        listener.into_iter().chain(clients)
    }

    /// Goes on with all who are attached.
    pub(super) fn serve(&mut self) {
        if self.clients.len() < CLIENTS
            && let Ok((stream, _)) = self.listener.accept()
            && stream.set_nonblocking(true).is_ok()
        {
            self.clients.push(Client {
                stream,
                behind: VecDeque::new(),
                ended: false,
            });
        }
        let input = &mut self.input;
        self.clients.retain_mut(|client| client.write() && client.read(input));
    }

    /// Gives the instance what was sent to it; whether there is more to give.
    pub(super) fn feed(&mut self, to: &OwnedFd) -> bool {
        while !self.input.is_empty() {
            match rustix::io::write(to, self.input.as_slices().0) {
                Ok(len) => drop(self.input.drain(..len)),
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(rustix::io::Errno::INTR) => {}
                // It reads no more.
                Err(_) => self.input.clear(),
            }
        }
        false
    }

    /// Whether there is input that the instance has not taken.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Writes what has no line end yet; what of the log could not be written.
    pub(super) fn end(&mut self) -> Result<(), InstanceError> {
        let flushed = self.log.flush();
        self.log_failed.take().map_or(flushed, Err)
    }
}

impl Client {
    /// Sends what it has not seen; whether it is still there.
    fn write(&mut self) -> bool {
        while !self.behind.is_empty() {
            match self.stream.write(self.behind.as_slices().0) {
                Ok(0) => return false,
                Ok(len) => drop(self.behind.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Takes what it sent; whether it is still there.
    fn read(&mut self, input: &mut VecDeque<u8>) -> bool {
        let mut piece = [0; PIECE];
        while input.len() < PIECE && !self.ended {
            match self.stream.read(&mut piece) {
                // It may still want to see what comes.
                Ok(0) => self.ended = true,
                Ok(len) => input.extend(&piece[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(rustix::io::Errno::INTR) => {}
            // A terminal that somebody else made non-blocking.
            Err(rustix::io::Errno::AGAIN) => {
                let mut ready = [rustix::event::PollFd::new(to, PollFlags::OUT)];
                rustix::event::poll(&mut ready, None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
