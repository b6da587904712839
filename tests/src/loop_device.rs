//! A block device over a file, made without any tool.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::tap::check;

/// `LOOP_SET_FD`, `LOOP_CLR_FD` and `LOOP_CTL_GET_FREE` of `linux/loop.h`.
const SET: libc::c_int = 0x4C00;
const CLEAR: libc::c_int = 0x4C01;
const GET_FREE: libc::c_int = 0x4C82;

/// A loop device, detached when the test is over.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    file: File,
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

impl LoopDevice {
    /// A free one, over this file.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn new(image: &Path) -> io::Result<Self> {
        let control = open(Path::new("/dev/loop-control"))?;
        let image = open(image)?;
        loop {
            // SAFETY: the call takes nothing.
            let number = check(unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as libc::Ioctl) })?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let file = open(&path)?;
            // SAFETY: the argument is a descriptor.
            match check(unsafe { libc::ioctl(file.as_raw_fd(), SET as libc::Ioctl, image.as_raw_fd()) }) {
                Ok(_) => return Ok(Self { path, file }),
                // Somebody else took it first.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The block device.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // SAFETY: the call takes nothing.
        let _ = unsafe { libc::ioctl(self.file.as_raw_fd(), CLEAR as libc::Ioctl, 0) };
    }
}
