//! Sockets in an instance's folder, whose path may be longer than that of a socket can be.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

use super::{Instance, InstanceError};

/// The path of a socket in an instance's folder: short enough (`sun_path` holds 108 bytes) as long as this is
/// not dropped, and in this process.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    _folder: OwnedFd,
}

impl SocketPath {
    pub(super) fn new(instance: &Instance, name: &str) -> Result<Self, InstanceError> {
        let folder = instance.dir();
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
        let opened = open(folder, flags, Mode::empty());
        let opened = opened.map_err(|error| InstanceError::file("open", folder)(error.into()))?;
        let number = opened.as_raw_fd().to_string();
        Ok(Self {
            path: Path::new("/proc/self/fd").join(number).join(name),
            _folder: opened,
        })
    }
}

impl AsRef<Path> for SocketPath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}
