//! The other end of a control socket.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::protocol::{Answer, MAX_ANSWER, Request};

/// How long an answer may take. The device loop answers between two works on devices, and a busy machine may have it
/// stand still for seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one may take for which all memory is written to a disk.
const LONG: Duration = Duration::from_secs(3600);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no such file.
    #[error("{0} does not exist: is the guest still running, and was it started with --control?")]
    NoSocket(PathBuf),
    /// The guest is gone, and its socket is left.
    #[error("nobody listens at {0}: the guest has ended, or this is no control socket")]
    Gone(PathBuf),
    /// It cannot be connected to.
    #[error("cannot connect to {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("{path} did not answer: {source}")]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What came back is no answer.
    #[error("{0} is not the control socket of a guest: what it says is no answer")]
    NoControlSocket(PathBuf),
    /// It was not done.
    #[error("{0}")]
    Refused(String),
}

/// A connection to the control socket of a guest.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the socket at this path.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let path = path.as_ref().to_owned();
        let stream = UnixStream::connect(&path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        match stream {
            Ok(stream) => Ok(Self {
                path,
                stream: BufReader::new(stream),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ClientError::NoSocket(path)),
            // A file that is no socket refuses too.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(ClientError::Gone(path)),
            Err(source) => Err(ClientError::Connect { path, source }),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; [`ClientError::Refused`] if the guest's host would not do it.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, ClientError> {
        self.ask_line(&request.line())
    }

    fn ask_line(&mut self, line: &[u8]) -> Result<Answer, ClientError> {
        let line = self.exchange(line).map_err(|source| {
            let path = self.path.clone();
            match source.kind() {
                // It went before it had accepted the connection.
                io::ErrorKind::ConnectionReset => ClientError::Gone(path),
                _ => ClientError::NoAnswer { path, source },
            }
        })?;
        match serde_json::from_slice(&line) {
            Ok(Answer::Error(why)) => Err(ClientError::Refused(why)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(ClientError::NoControlSocket(self.path.clone())),
        }
    }

    /// Asks for something that is done to a file, which goes along, and takes its time.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; [`ClientError::Refused`] if the guest's host would not do it.
    pub fn ask_with(&mut self, request: &Request, file: BorrowedFd<'_>) -> Result<Answer, ClientError> {
        let line = request.line();
        let no_answer = |source: io::Error| ClientError::NoAnswer {
            path: self.path.clone(),
            source,
        };
        let (first, rest) = line.split_at(1);
        let files = [file];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&files));
        let sent = sendmsg(
            self.stream.get_ref(),
            &[IoSlice::new(first)],
            &mut control,
            SendFlags::NOSIGNAL,
        );
        sent.map_err(|errno| no_answer(errno.into()))?;
        self.stream.get_ref().set_read_timeout(Some(LONG)).map_err(no_answer)?;
        self.ask_line(rest)
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.stream.get_mut().write_all(request)?;
        let mut line = Vec::new();
        let most = (MAX_ANSWER + 1) as u64;
        (&mut self.stream).take(most).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the guest has ended"));
        }
        Ok(line)
    }
}
