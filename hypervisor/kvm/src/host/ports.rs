//! Console ports beyond the first: Unix sockets, terminals, pipes and files of the host.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chiton_core::devices::console::{Input, MAX_NAME, NamedPort, Output, Port};
use chiton_shared::memory::Window;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use super::socket_file::{SocketFile, SocketFileError};
use super::{Transfer, transfer};
use crate::Error;

/// Why there cannot be a port.
#[derive(Debug, thiserror::Error)]
pub enum PortOpenError {
    /// The name is not one.
    #[error("`{0}` is not a name of a port: use 1 to {MAX_NAME} letters, digits, dots, dashes and underscores")]
    Name(String),
    /// Its socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketFileError),
    /// What is there cannot be opened.
    #[error("cannot open {path} for the port {name}: {source}")]
    Open {
        /// The port.
        name: String,
        /// What is there.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder, or something else that bytes do not come from.
    #[error("{path} is no end for the port {name}: it is neither a socket, a terminal, a pipe nor a file")]
    Kind {
        /// The port.
        name: String,
        /// What is there.
        path: PathBuf,
    },
}

/// A console port beyond the first, which the guest knows by its name.
#[derive(Debug)]
pub struct ConsolePort {
    name: String,
    end: End,
    file: Option<SocketFile>,
}

/// What a port ends at on the host.
#[derive(Debug)]
enum End {
    /// One client at a time; others wait.
    Socket {
        listener: UnixListener,
        client: Option<Client>,
    },
    /// Bytes in and out.
    Terminal(OwnedFd),
    /// Bytes out.
    Output(OwnedFd),
}

/// Who has connected to a port.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    /// It has nothing more to say, and may still listen.
    input_ended: bool,
}

impl Client {
    /// Whether it neither says nor hears anything any more.
    fn has_left(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // An error is an interruption.
        poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }
}

impl ConsolePort {
    /// A port that ends at `path`: a socket that is made there, unless a terminal, a pipe or a file is
    /// there already; a pipe and a file take output alone. A socket that nobody listens at is replaced.
    ///
    /// # Errors
    ///
    /// [`PortOpenError`].
    pub fn open(name: &str, path: impl AsRef<Path>) -> Result<Self, PortOpenError> {
        let path = path.as_ref();
        let fits = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(fits) {
            return Err(PortOpenError::Name(name.to_owned()));
        }
        let name = name.to_owned();
        let kind = match fs::metadata(path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::listen(name, path),
            Err(source) => {
                let path = path.to_owned();
                return Err(PortOpenError::Open { name, path, source });
            }
        };
        if kind.is_socket() {
            return Self::listen(name, path);
        }
        let mut options = OpenOptions::new();
        // A pipe that is open for reading too neither waits for a reader nor ends with one.
        options.write(true).read(kind.is_fifo() || kind.is_char_device());
        options
            .append(kind.is_file())
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        if !(kind.is_file() || kind.is_fifo() || kind.is_char_device()) {
            let path = path.to_owned();
            return Err(PortOpenError::Kind { name, path });
        }
        match options.open(path) {
            Ok(fd) => Ok(Self {
                name,
                end: if kind.is_char_device() {
                    End::Terminal(fd.into())
                } else {
                    End::Output(fd.into())
                },
                file: None,
            }),
            Err(source) => {
                let path = path.to_owned();
                Err(PortOpenError::Open { name, path, source })
            }
        }
    }

    fn listen(name: String, path: &Path) -> Result<Self, PortOpenError> {
        let (listener, file) = SocketFile::listen(path, 0)?;
        Ok(Self {
            name,
            end: End::Socket { listener, client: None },
            file: Some(file),
        })
    }

    /// The file of its socket, to be kept by who can remove it when the guest, which runs where it cannot,
    /// has ended.
    pub const fn take_file(&mut self) -> Option<SocketFile> {
        self.file.take()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The ports of one guest, as the device takes them; the descriptor that is readable when something has
/// happened to one; and the socket files, which are there as long as their values.
pub(crate) struct OpenPorts {
    pub(crate) ports: Vec<NamedPort>,
    pub(crate) events: OwnedFd,
    pub(crate) files: Vec<SocketFile>,
}

impl OpenPorts {
    pub(crate) fn new(all: Vec<ConsolePort>) -> Result<Self, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Error::system("epoll_create"))?;
        let events = epoll.try_clone().map_err(Error::system("duplicate a descriptor"))?;
        let epoll = Arc::new(epoll);
        let mut open = Self {
            ports: Vec::with_capacity(all.len()),
            events,
            files: Vec::new(),
        };
        for ConsolePort { name, end, file } in all {
            let watched = match &end {
                End::Socket { listener, .. } => watch(&epoll, listener.as_fd()),
                End::Terminal(fd) | End::Output(fd) => watch(&epoll, fd.as_fd()),
            };
            match watched {
                // A file is always ready.
                Ok(()) | Err(rustix::io::Errno::PERM) => {}
                Err(error) => return Err(Error::system("epoll_ctl")(error)),
            }
            let port = HostEnd {
                end,
                epoll: Arc::clone(&epoll),
            };
            open.ports.push((name, Box::new(port)));
            open.files.extend(file);
        }
        Ok(open)
    }
}

/// Takes note of what has happened, so that the descriptor is readable again only when more has.
pub(crate) fn take_events(events: BorrowedFd<'_>) {
    let mut taken = Vec::with_capacity(32);
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // An error is an interruption; the descriptor stays readable then.
    let _ = epoll::wait(events, rustix::buffer::spare_capacity(&mut taken), Some(&now));
}

fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
    epoll::add(epoll, fd, epoll::EventData::new_u64(0), flags)
}

/// The backend of a port.
struct HostEnd {
    end: End,
    /// Tells of clients, too.
    epoll: Arc<OwnedFd>,
}

impl HostEnd {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.end {
            End::Socket { client, .. } => client.as_ref().map(|client| client.stream.as_fd()),
            End::Terminal(fd) | End::Output(fd) => Some(fd.as_fd()),
        }
    }

    /// Takes note that the client has nothing more to say: whether it still listens.
    fn ended(&mut self) -> bool {
        match &mut self.end {
            End::Socket {
                client: Some(client), ..
            } if !client.has_left() => {
                client.input_ended = true;
                true
            }
            _ => false,
        }
    }

    /// The client is gone.
    fn hang_up(&mut self) {
        if let End::Socket { client, .. } = &mut self.end {
            *client = None;
        }
    }
}

impl Port for HostEnd {
    fn read(&mut self, to: &[Window<'_>]) -> Input {
        let Some(fd) = self.fd().filter(|_| !matches!(self.end, End::Output(_))) else {
            return Input::Empty;
        };
        match transfer(fd, to, Transfer::Read) {
            Ok(bytes) if bytes > 0 => return Input::Bytes(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Input::Empty,
            Ok(_) if self.ended() => return Input::End,
            // The end, and a terminal whose other side is closed, which somebody may open again.
            _ => self.hang_up(),
        }
        Input::Empty
    }

    fn write(&mut self, from: &[Window<'_>]) -> Output {
        let total = from.iter().map(Window::len).sum();
        let Some(fd) = self.fd() else {
            return Output::Bytes(total);
        };
        match transfer(fd, from, Transfer::Write) {
            Ok(bytes) if bytes > 0 => return Output::Bytes(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Output::Full,
            _ => self.hang_up(),
        }
        // Nobody takes it: a client that is gone, a full disk.
        Output::Bytes(total)
    }

    fn emergency(&mut self, _byte: u8) {}

    fn size(&self) -> (u16, u16) {
        match &self.end {
            End::Terminal(fd) => rustix::termios::tcgetwinsize(fd).map_or((0, 0), |size| (size.ws_col, size.ws_row)),
            End::Socket { .. } | End::Output(_) => (0, 0),
        }
    }

    fn is_open(&self) -> bool {
        match &self.end {
            // One that may still speak is read until its end; of another nothing tells but this.
            End::Socket { client, .. } => client
                .as_ref()
                .is_some_and(|client| !(client.input_ended && client.has_left())),
            End::Terminal(_) | End::Output(_) => true,
        }
    }

    fn let_in(&mut self) {
        if !self.is_open()
            && let End::Socket { listener, client } = &mut self.end
            && let Ok((stream, _)) = listener.accept()
            && stream.set_nonblocking(true).is_ok()
            && watch(&self.epoll, stream.as_fd()).is_ok()
        {
            *client = Some(Client {
                stream,
                input_ended: false,
            });
        }
    }

    fn guest_opened(&mut self, open: bool) {
        if !open {
            self.hang_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::Ram;
    use chiton_shared::memory::GuestMemory;
    use std::io::{Read, Write};

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("chiton-port-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    #[test]
    fn a_socket_serves_one_client_after_the_other() {
        let path = place("socket");
        let mut open = OpenPorts::new(vec![ConsolePort::open("a", &path).unwrap()]).unwrap();
        let (name, port) = &mut open.ports[0];
        assert_eq!((name.as_str(), port.is_open()), ("a", false));
        let ram = Ram::new(1 << 20).unwrap();
        ram.window(0, 5).unwrap().write(0, b"hello");
        let window = [ram.window(0, 5).unwrap()];
        assert_eq!(port.write(&window), Output::Bytes(5), "to nobody");
        for _ in 0..2 {
            let mut client = UnixStream::connect(&path).unwrap();
            assert!(!port.is_open());
            port.let_in();
            assert!(port.is_open());
            assert_eq!(port.read(&window), Input::Empty);
            assert_eq!(port.write(&window), Output::Bytes(5));
            let mut bytes = [0; 5];
            client.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"hello");
            client.write_all(b"xyz").unwrap();
            drop(client);
            assert_eq!(port.read(&window), Input::Bytes(3));
            assert_eq!((port.read(&window), port.is_open()), (Input::Empty, false));
            ram.window(0, 5).unwrap().write(0, b"hello");
        }
        drop(open);
        assert!(!path.exists());
    }

    #[test]
    fn a_client_that_has_nothing_more_to_say_still_hears() {
        let path = place("half");
        let mut open = OpenPorts::new(vec![ConsolePort::open("a", &path).unwrap()]).unwrap();
        let port = &mut open.ports[0].1;
        let ram = Ram::new(1 << 20).unwrap();
        let window = [ram.window(0, 5).unwrap()];
        for _ in 0..2 {
            let mut client = UnixStream::connect(&path).unwrap();
            port.let_in();
            client.write_all(b"hello").unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(port.read(&window), Input::Bytes(5));
            assert_eq!((port.read(&window), port.is_open()), (Input::End, true));
            assert_eq!(port.write(&window), Output::Bytes(5));
            let mut bytes = [0; 5];
            client.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"hello");
            drop(client);
            assert!(!port.is_open());
        }
    }

    #[test]
    fn a_client_that_does_not_read_makes_the_port_full() {
        let path = place("full");
        let mut open = OpenPorts::new(vec![ConsolePort::open("a", &path).unwrap()]).unwrap();
        let port = &mut open.ports[0].1;
        let client = UnixStream::connect(&path).unwrap();
        port.let_in();
        assert!(port.is_open());
        let ram = Ram::new(1 << 20).unwrap();
        let window = [ram.window(0, 1 << 19).unwrap()];
        while let Output::Bytes(_) = port.write(&window) {}
        assert_eq!(port.write(&window), Output::Full);
        port.guest_opened(false);
        drop(client);
        port.let_in();
        assert!(!port.is_open());
    }

    #[test]
    fn a_file_takes_output_and_names_and_folders_are_refused() {
        let path = place("file");
        fs::write(&path, "before ").unwrap();
        let mut open = OpenPorts::new(vec![ConsolePort::open("log", &path).unwrap()]).unwrap();
        let ram = Ram::new(1 << 20).unwrap();
        ram.window(0, 5).unwrap().write(0, b"hello");
        let port = &mut open.ports[0].1;
        assert_eq!(port.write(&[ram.window(0, 5).unwrap()]), Output::Bytes(5));
        assert_eq!(port.read(&[ram.window(0, 5).unwrap()]), Input::Empty);
        assert_eq!(fs::read(&path).unwrap(), b"before hello");
        fs::remove_file(&path).unwrap();
        assert!(matches!(
            ConsolePort::open("a", std::env::temp_dir()),
            Err(PortOpenError::Kind { .. })
        ));
        for name in ["", "a b", "a/b", "\u{e4}", &"x".repeat(65)] {
            assert!(
                matches!(ConsolePort::open(name, &path), Err(PortOpenError::Name(_))),
                "{name}"
            );
        }
    }
}
