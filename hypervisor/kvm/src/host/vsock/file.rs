//! The socket file: made for the guest, and gone with it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::VsockError;

/// The longest path of the socket file, in bytes: `sun_path` holds 108 with a zero at the end, and
/// `_` and a port of ten digits must fit behind it.
pub(super) const MAX_PATH: usize = 108 - 1 - "_4294967295".len();

/// A socket file, removed when this is dropped, unless somebody has put another in its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// Makes the file and listens there. A socket that nobody listens at any more is replaced.
    pub(super) fn listen(path: &Path) -> Result<(UnixListener, Self), VsockError> {
        if path.as_os_str().len() > MAX_PATH {
            return Err(VsockError::PathLength(path.to_owned()));
        }
        let fail = |source| VsockError::Listen {
            path: path.to_owned(),
            source,
        };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_dead(path)?;
                UnixListener::bind(path)
            }
            other => other,
        }
        .map_err(fail)?;
        let metadata = fs::symlink_metadata(path).map_err(fail)?;
        let file = Self {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
        };
        listener.set_nonblocking(true).map_err(fail)?;
        Ok((listener, file))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
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
fn remove_dead(path: &Path) -> Result<(), VsockError> {
    let fail = |source| VsockError::Listen {
        path: path.to_owned(),
        source,
    };
    if !fs::symlink_metadata(path).map_err(fail)?.file_type().is_socket() {
        return Err(VsockError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(fail),
        Ok(_) => Err(VsockError::InUse(path.to_owned())),
        Err(source) => Err(fail(source)),
    }
}
