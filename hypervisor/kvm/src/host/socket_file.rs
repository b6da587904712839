//! The file of a Unix socket: made for the guest, its owner's alone, and gone with it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How many bytes the path of a Unix socket can have: `sun_path` holds 108 with a zero at the end.
const SUN_PATH: usize = 107;

/// How many clients may wait to be accepted.
const BACKLOG: i32 = 128;

/// Why there cannot be a socket at a path.
#[derive(Debug, thiserror::Error)]
pub enum SocketFileError {
    /// The path is longer than that of a Unix socket can be.
    #[error("the path {path} is too long for a Unix socket: use one of at most {max} bytes")]
    PathLength {
        /// The path.
        path: PathBuf,
        /// The most, with what will stand behind it.
        max: usize,
    },
    /// Another instance, or another program, listens there.
    #[error("the socket {0} is in use: end who listens there, or choose another path")]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{0} exists and is not a socket: choose another path")]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot make the socket {path}: {source}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket file, removed when this is dropped, unless somebody has put another in its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// Makes the file, with mode 0600 from the first moment on, and listens there. A socket that
    /// nobody listens at any more is replaced. The path leaves room for `suffix` more bytes.
    pub(crate) fn listen(path: &Path, suffix: usize) -> Result<(UnixListener, Self), SocketFileError> {
        let socket = nameless().map_err(|source| SocketFileError::Listen {
            path: path.to_owned(),
            source,
        })?;
        let file = Self::name(&socket, path, suffix)?;
        Ok((socket.into(), file))
    }

    /// Gives a [nameless] socket its file, and listens there.
    pub(crate) fn name(socket: &OwnedFd, path: &Path, suffix: usize) -> Result<Self, SocketFileError> {
        let max = SUN_PATH - suffix;
        if path.as_os_str().len() > max {
            return Err(SocketFileError::PathLength {
                path: path.to_owned(),
                max,
            });
        }
        let fail = |source: io::Error| SocketFileError::Listen {
            path: path.to_owned(),
            source,
        };
        match bind(socket, path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_dead(path)?;
                bind(socket, path)
            }
            other => other,
        }
        .map_err(fail)?;
        let metadata = fs::symlink_metadata(path).map_err(fail)?;
        let file = Self {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
        };
        rustix::net::listen(socket, BACKLOG).map_err(|errno| fail(errno.into()))?;
        Ok(file)
    }

    /// Removes what was left at a path by one that was killed: a socket that nobody listens at, and nothing else.
    ///
    /// # Errors
    ///
    /// [`SocketFileError::Listen`], if it is one and cannot be removed.
    pub fn remove_left(path: &Path) -> Result<(), SocketFileError> {
        let is_there = fs::symlink_metadata(path).is_ok();
        match if is_there { remove_dead(path) } else { Ok(()) } {
            Err(SocketFileError::InUse(_) | SocketFileError::NotASocket(_)) => Ok(()),
            removed => removed,
        }
    }
}

/// A socket without a name. Its mode is set before it has one: nobody else can connect in between.
pub(crate) fn nameless() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    Ok(socket)
}

fn bind(socket: &OwnedFd, path: &Path) -> io::Result<()> {
    Ok(rustix::net::bind(socket, &SocketAddrUnix::new(path)?)?)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours {
            // If it cannot be removed, the next start finds a dead socket and replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket that nobody listens at.
fn remove_dead(path: &Path) -> Result<(), SocketFileError> {
    let fail = |source| SocketFileError::Listen {
        path: path.to_owned(),
        source,
    };
    if !fs::symlink_metadata(path).map_err(fail)?.file_type().is_socket() {
        return Err(SocketFileError::NotASocket(path.to_owned()));
    }
    match knock(path) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(fail),
        // Many wait to be accepted, or it is a socket of another type.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(SocketFileError::InUse(path.to_owned())),
        Err(errno) => Err(fail(errno.into())),
    }
}

/// Whether somebody listens at a path, without waiting for its turn.
fn knock(path: &Path) -> rustix::io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}
