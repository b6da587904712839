//! Where the output of an instance goes: its log, the terminal it was started from, and whoever is
//! attached.
//!
//! Nobody who reads slowly holds up the instance: an attached reader that is too far behind is let go.
//! The terminal is the exception, as it is for any program: while it does not read, no more is taken from the
//! instance, and what happens when it is gone happens to the instance. The supervisor never waits for it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::socket::SocketPath;
use super::{Instance, InstanceError, LogWriter, Stream};

/// How far behind an attached reader may be, in bytes.
const BEHIND: usize = 1 << 20;
/// How many may be attached at a time.
const CLIENTS: usize = 16;
/// How much is read at a time, in bytes.
pub(super) const PIECE: usize = 16 << 10;
/// How much a pipe takes that is ready for any, in bytes.
const PAGE: usize = 4096;
/// The socket that attached ones connect to, in the instance's folder.
const SOCKET: &str = "attach";

/// Where output goes and where input comes from.
#[derive(Debug)]
pub struct Outputs {
    /// Those of the instance, once it runs.
    files: Option<Files>,
    /// What log line could not be written is said once.
    log_failed: Option<InstanceError>,
    /// What of the terminal could not be written is the instance's end.
    terminal_failed: Option<InstanceError>,
    terminal: Option<[Terminal; 2]>,
    /// When whoever does not read is no longer waited for.
    until: Option<Instant>,
    clients: Vec<Client>,
    /// For the instance to read, from those who are attached.
    input: VecDeque<u8>,
}

/// What there is in the instance's folder.
#[derive(Debug)]
struct Files {
    log: LogWriter,
    listener: UnixListener,
}

impl Files {
    fn open(instance: &Instance) -> Result<Self, InstanceError> {
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
            listener,
        })
    }
}

/// Standard output, or standard error, of who started the instance.
#[derive(Debug)]
struct Terminal {
    fd: OwnedFd,
    behind: VecDeque<u8>,
    gone: bool,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    behind: VecDeque<u8>,
    /// It has sent its last byte.
    ended: bool,
}

/// What came of taking something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// There may be more.
    Some,
    /// There will be no more: nobody has the other end.
    Last,
    /// Nobody will read more.
    Lost,
}

impl Outputs {
    /// To the instance's log and to those who will be attached, which `begin` opens, and to `terminal`:
    /// standard output and standard error of who started it.
    #[must_use]
    pub fn new(terminal: Option<[OwnedFd; 2]>) -> Self {
        Self {
            files: None,
            log_failed: None,
            terminal_failed: None,
            terminal: terminal.map(|fds| {
                fds.map(|fd| Terminal {
                    fd,
                    behind: VecDeque::new(),
                    gone: false,
                })
            }),
            until: None,
            clients: Vec::new(),
            input: VecDeque::new(),
        }
    }

    /// Opens the log, and listens for who wants to be attached, unless that has been done: not before the instance
    /// runs, which is not to wait for it.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`].
    pub(super) fn begin(&mut self, instance: &Instance) -> Result<(), InstanceError> {
        if self.files.is_none() {
            self.files = Some(Files::open(instance)?);
        }
        Ok(())
    }

    /// Waits for so long, from now on, for who does not read at the terminal.
    #[must_use]
    pub fn wait_at_most(mut self, limit: Option<Duration>) -> Self {
        self.until = limit.and_then(|limit| Instant::now().checked_add(limit));
        self
    }

    /// Whether that time is up.
    pub(super) fn time_is_up(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
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

    /// Takes what the instance has written to a stream so far.
    pub(super) fn take(&mut self, from: &OwnedFd, stream: Stream) -> Taken {
        let mut piece = [0; PIECE];
        match rustix::io::read(from, &mut piece) {
            Ok(0) => Taken::Last,
            Ok(len) if self.put(stream, &piece[..len]) => Taken::Some,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Taken::Some,
            Ok(_) | Err(_) => Taken::Lost,
        }
    }

    /// Whether the terminal has not read yet what it has of a stream.
    pub(super) fn is_behind(&self, stream: Stream) -> bool {
        let terminal = self.terminal.as_ref().map(|terminal| &terminal[stream as usize]);
        terminal.is_some_and(|terminal| !terminal.behind.is_empty())
    }

    /// Writes what the terminal takes without being waited for; whether the stream leads somewhere. An error
    /// nobody hears is no reason to end.
    fn write_terminal(&mut self, stream: Stream) -> bool {
        let Some(terminal) = &mut self.terminal else {
            return true;
        };
        match terminal[stream as usize].write() {
            Err(rustix::io::Errno::PIPE) if stream == Stream::Stdout => false,
            Err(error) if stream == Stream::Stdout => {
                self.terminal_failed = Some(InstanceError::system("write standard output")(error));
                false
            }
            _ => true,
        }
    }

    fn put(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        if let (None, Some(files)) = (&self.log_failed, &mut self.files) {
            self.log_failed = files.log.write(stream, bytes).err();
        }
        if let Some(terminal) = &mut self.terminal
            && !terminal[stream as usize].gone
        {
            terminal[stream as usize].behind.extend(bytes);
        }
        let leads_somewhere = self.write_terminal(stream);
        for client in &mut self.clients {
            client.behind.extend(bytes);
        }
        self.clients
            .retain_mut(|client| client.write() && client.behind.len() <= BEHIND);
        leads_somewhere
    }

    /// Who is attached, and who wants to be, and who is behind: what to wait for.
    pub(super) fn watched(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let room = self.input.len() < PIECE;
        let files = self.files.as_ref().filter(|_| self.clients.len() < CLIENTS);
        let listener = files.map(|files| (files.listener.as_fd(), PollFlags::IN));
        let clients = self.clients.iter().map(move |client| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, room && !client.ended);
            flags.set(PollFlags::OUT, !client.behind.is_empty());
            (client.stream.as_fd(), flags)
        });
        let terminal = self.terminal.iter().flatten();
        let behind = terminal.filter(|terminal| !terminal.behind.is_empty());
        let behind = behind.map(|terminal| (terminal.fd.as_fd(), PollFlags::OUT));
        listener.into_iter().chain(clients).chain(behind)
    }

    /// Goes on with all who are attached, and with the terminal; which of its streams lead somewhere.
    pub(super) fn serve(&mut self) -> [bool; 2] {
        if self.clients.len() < CLIENTS
            && let Some(files) = &self.files
            && let Ok((stream, _)) = files.listener.accept()
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
        [Stream::Stdout, Stream::Stderr].map(|stream| self.write_terminal(stream))
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

    /// Writes what has no line end yet; what of the terminal or the log could not be written.
    pub(super) fn end(&mut self) -> Result<(), InstanceError> {
        let flushed = self.files.as_mut().map_or(Ok(()), |files| files.log.flush());
        self.terminal_failed
            .take()
            .or(self.log_failed.take())
            .map_or(flushed, Err)
    }
}

impl Terminal {
    /// Writes as much as goes without waiting. Whether it would wait is asked, since it is not ours to make
    /// non-blocking: others use it too.
    fn write(&mut self) -> Result<(), rustix::io::Errno> {
        while !self.behind.is_empty() {
            let mut ready = [PollFd::new(&self.fd, PollFlags::OUT)];
            match poll(&mut ready, Some(&Timespec::default())) {
                Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
                Ok(_) => {}
                Err(error) => return self.lose(error),
            }
            let bytes = self.behind.as_slices().0;
            // A pipe that is ready takes a page, and one that is not ready for more would hold us up.
            match rustix::io::write(&self.fd, &bytes[..bytes.len().min(PAGE)]) {
                Ok(len) => drop(self.behind.drain(..len)),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return self.lose(error),
            }
        }
        Ok(())
    }

    fn lose(&mut self, error: rustix::io::Errno) -> Result<(), rustix::io::Errno> {
        self.gone = true;
        self.behind.clear();
        Err(error)
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
