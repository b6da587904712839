//! A disk: a raw file or block device.

mod direct;
mod erase;
mod format;
mod options;
mod uring;

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chiton_core::devices::block::{Disk as Backend, DiskError};
use chiton_core::devices::{Begun, Limits, Operation};
use chiton_shared::memory::Window;
use chiton_shared::virtio::block::{ID_BYTES, SECTOR};
use rustix::fs::{FlockOperation, SeekFrom, flock, seek};

use super::complaint::Complaint;
use super::{Transfer, transfer};
use crate::snapshot::format::DiskFacts;
use crate::snapshot::take::DiskProbe;
use direct::Direct;
pub use options::{DiskOptions, SerialError};
use uring::{Ended, Ring};

/// How many operations are done one by one before the kernel is asked for a ring, so that a guest
/// that reads a little pays for none.
const OPERATIONS_BEFORE_RING: u32 = 64;

/// Why a file cannot be a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskOpenError {
    /// It is not there.
    #[error("the disk {0} does not exist: make it with `truncate -s 1M {path}`", path = .0.display())]
    Missing(PathBuf),
    /// It cannot be opened.
    #[error("cannot open the disk {path}: {source}{hint}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// What might help.
        hint: &'static str,
    },
    /// It is neither a file nor a block device.
    #[error("the disk {0} is not a regular file or block device")]
    Kind(PathBuf),
    /// Its size is not a number of sectors.
    #[error(
        "the disk {path} is {size} bytes long, not a multiple of 512: make it so with `truncate -s {rounded} {path}`",
        rounded = .size.next_multiple_of(SECTOR),
        path = .path.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// It has no sectors.
    #[error("the disk {0} is empty: give it a size with `truncate -s 1M {path}`", path = .0.display())]
    Empty(PathBuf),
    /// Another instance uses it.
    #[error(
        "the disk {0} is in use by another instance: end that one, or let both open it read-only ({path}:ro)",
        path = .0.display()
    )]
    Locked(PathBuf),
    /// It is an image in a format that only others read.
    #[error(
        "the disk {path} is a {format} image and not a raw one: convert it with \
         `qemu-img convert -O raw {path} {raw}` (or add ,raw if it is raw and only begins like one)",
        path = .path.display(),
        raw = .path.with_extension("raw").display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format, as `qemu-img` calls it.
        format: &'static str,
    },
    /// Its file system has no direct I/O.
    #[error(
        "the disk {path} is on a file system without direct I/O: leave `direct` out, or move it to another one",
        path = .0.display()
    )]
    NoDirect(PathBuf),
}

/// A disk that is open, and locked against other instances: shared if read-only, else alone.
#[derive(Debug)]
pub struct Disk {
    /// The first field, so that it is dropped before the files are closed.
    engine: Engine,
    file: File,
    sectors: u64,
    read_only: bool,
    name: [u8; ID_BYTES],
    direct: Option<Direct>,
    path: PathBuf,
    pub(crate) queues: usize,
    pub(crate) limits: Limits,
    pub(crate) complaint: Complaint,
    /// The ring's descriptor, for the device loop to watch, as soon as there is a ring.
    pub(crate) ring: Arc<OnceLock<OwnedFd>>,
}

/// How operations are done.
enum Engine {
    /// One by one: `preadv`, `pwritev`, `fdatasync`.
    Plain,
    /// One by one, for so many times.
    Ringless(u32),
    /// By the kernel, while others go on.
    Ring(Box<Ring>),
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain | Self::Ringless(_) => "plain",
            Self::Ring(_) => "io_uring",
        })
    }
}

/// Whether io_uring can be used here; if not, disks work without.
///
/// # Errors
///
/// Why not.
pub fn try_io_uring() -> io::Result<()> {
    Ring::new().map(drop)
}

impl Disk {
    /// From now on the disk may leave operations to the kernel.
    ///
    /// # Safety
    ///
    /// The memory of all windows that [`begin`](Backend::begin) gets has to stay mapped until the
    /// disk is dropped.
    pub(crate) unsafe fn work_asynchronously(&mut self) {
        self.engine = Engine::Ringless(OPERATIONS_BEFORE_RING);
    }

    /// The same disk, to be looked at.
    pub(crate) fn probe(&self) -> io::Result<DiskProbe> {
        Ok(DiskProbe {
            file: self.file.try_clone()?,
            path: self.path.clone(),
            sectors: self.sectors,
            read_only: self.read_only,
            queues: self.queues as u32,
        })
    }

    /// The disk as it is now.
    pub(crate) fn facts(&self) -> io::Result<DiskFacts> {
        self.probe()?.facts()
    }

    /// Whether it is read and written past the page cache, where that can be.
    pub(crate) const fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// The ring, if it is time for one and the kernel gives one.
    fn ring(&mut self) -> Option<&mut Ring> {
        if let Engine::Ringless(left) = &mut self.engine {
            *left = left.saturating_sub(1);
            if *left == 0 {
                let ring = Ring::new().and_then(|ring| {
                    // There has not been one before.
                    let _ = self.ring.set(ring.watched()?);
                    Ok(Engine::Ring(Box::new(ring)))
                });
                self.engine = ring.unwrap_or(Engine::Plain);
            }
        }
        match &mut self.engine {
            Engine::Ring(ring) => Some(ring),
            Engine::Plain | Engine::Ringless(_) => None,
        }
    }

    /// Opens and locks a raw disk image or block device. [`DiskOptions`] can say more.
    ///
    /// # Errors
    ///
    /// [`DiskOpenError`].
    pub fn open(path: impl AsRef<Path>, read_only: bool) -> Result<Self, DiskOpenError> {
        DiskOptions::new().read_only(read_only).open(path)
    }

    fn open_with(path: &Path, options: &DiskOptions) -> Result<Self, DiskOpenError> {
        let read_only = options.read_only;
        let fail = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => DiskOpenError::Missing(path.to_owned()),
            kind => {
                let hint = match kind {
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if !read_only => {
                        " (add :ro to open it read-only)"
                    }
                    _ => "",
                };
                DiskOpenError::Open {
                    path: path.to_owned(),
                    source,
                    hint,
                }
            }
        };
        // A FIFO or a device other than a disk must not block or act when it is opened.
        let kind = std::fs::metadata(path).map_err(fail)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskOpenError::Kind(path.to_owned()));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(fail)?;
        let lock = if read_only {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        match lock_soon(&file, lock) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(DiskOpenError::Locked(path.to_owned())),
            Err(errno) => return Err(fail(errno.into())),
        }
        let size = seek(&file, SeekFrom::End(0)).map_err(|errno| fail(errno.into()))?;
        if size == 0 {
            return Err(DiskOpenError::Empty(path.to_owned()));
        }
        if !size.is_multiple_of(SECTOR) {
            return Err(DiskOpenError::Size {
                path: path.to_owned(),
                size,
            });
        }
        if let Some(format) = format::of(&file).filter(|_| !options.raw) {
            return Err(DiskOpenError::Format {
                path: path.to_owned(),
                format,
            });
        }
        let direct = options.direct.then(|| Direct::open(&file, !read_only)).transpose();
        let direct = direct.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => DiskOpenError::NoDirect(path.to_owned()),
            _ => fail(error),
        })?;
        Ok(Self {
            file,
            sectors: size / SECTOR,
            read_only,
            name: options.serial.unwrap_or_else(|| name_of(path)),
            direct,
            path: path.to_owned(),
            queues: options.queues,
            limits: options.limits,
            complaint: Complaint::default(),
            engine: Engine::Plain,
            ring: Arc::default(),
        })
    }

    /// Tells the user why the guest gets an error.
    fn failed(&self, doing: &str, offset: u64, len: u64, error: &io::Error) -> DiskError {
        self.complaint.say(|| {
            let path = self.path.display();
            format!("cannot {doing} {len} bytes at byte {offset} of the disk {path}: {error}")
        });
        DiskError
    }

    fn failed_flush(&self, error: &io::Error) -> DiskError {
        self.failed("make durable all", 0, self.sectors * SECTOR, error)
    }

    fn file_for(&self, at: u64, windows: &[Window<'_>]) -> BorrowedFd<'_> {
        let direct = self.direct.as_ref().and_then(|direct| direct.takes(at, windows));
        direct.unwrap_or_else(|| self.file.as_fd())
    }

    fn all(&self, windows: &[Window<'_>], offset: u64, what: fn(u64) -> Transfer) -> io::Result<()> {
        let (mut at, mut rest) = (offset, windows);
        while let Some(first) = rest.first() {
            let mut done = transfer(self.file_for(at, rest), rest, what(at))?;
            if done == 0 && !first.is_empty() {
                return Err(shrunk());
            }
            at += done as u64;
            while let Some(first) = rest.first()
                && done >= first.len()
            {
                done -= first.len();
                rest = &rest[1..];
            }
            if let (1.., [first, behind @ ..]) = (done, rest) {
                at = self.rest_of(*first, done, at, what)?;
                rest = behind;
            }
        }
        Ok(())
    }

    /// Finishes a window of which the kernel did only the first `done` bytes.
    fn rest_of(&self, window: Window<'_>, done: usize, at: u64, what: fn(u64) -> Transfer) -> io::Result<u64> {
        let (mut done, mut at) = (done, at);
        while done < window.len() {
            let part = window.part(done, window.len() - done).ok_or_else(shrunk)?;
            match transfer(self.file_for(at, &[part]), &[part], what(at))? {
                0 => return Err(shrunk()),
                more => {
                    done += more;
                    at += more as u64;
                }
            }
        }
        Ok(at)
    }
}

/// Locks a file, if need be after a while: of an instance that was killed the kernel may still have
/// writes to finish, and until then the lock is theirs, as it has to be.
fn lock_soon(file: &File, lock: FlockOperation) -> Result<(), rustix::io::Errno> {
    for _ in 0..100 {
        match flock(file, lock) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(5)),
            result => return result,
        }
    }
    flock(file, lock)
}

/// The file ends where the disk does not.
fn shrunk() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the file has become shorter than the disk",
    )
}

fn bytes_of(windows: &[Window<'_>]) -> u64 {
    windows.iter().map(|window| window.len() as u64).sum()
}

/// The file's name as the device's, as far as it fits.
fn name_of(path: &Path) -> [u8; ID_BYTES] {
    let mut name = [0; ID_BYTES];
    let text = path.file_name().unwrap_or_default().to_string_lossy();
    for (to, from) in name.iter_mut().zip(text.bytes().filter(u8::is_ascii)) {
        *to = from;
    }
    name
}

impl Backend for Disk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn name(&self) -> [u8; ID_BYTES] {
        self.name
    }

    fn read_at(&mut self, offset: u64, to: &[Window<'_>]) -> Result<(), DiskError> {
        self.all(to, offset, Transfer::ReadAt)
            .map_err(|error| self.failed("read", offset, bytes_of(to), &error))
    }

    fn write_at(&mut self, offset: u64, from: &[Window<'_>]) -> Result<(), DiskError> {
        self.all(from, offset, Transfer::WriteAt)
            .map_err(|error| self.failed("write", offset, bytes_of(from), &error))
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(|error| self.failed_flush(&error))
    }

    fn begin(&mut self, tag: u16, operation: Operation, windows: &[Window<'_>]) -> Begun {
        let whole = self.file.as_raw_fd();
        let file = match operation {
            Operation::Read(at) | Operation::Write(at) => self.file_for(at, windows).as_raw_fd(),
            Operation::Flush => whole,
        };
        let Some(ring) = self.ring() else {
            return Begun::Done(match operation {
                Operation::Read(offset) => self.read_at(offset, windows),
                Operation::Write(offset) => self.write_at(offset, windows),
                Operation::Flush => self.flush(),
            });
        };
        // SAFETY: the memory stays mapped, as who had the disk work asynchronously promised, and
        // the files are closed after the ring is.
        unsafe { ring.begin(tag, operation, windows, file, whole) };
        Begun::UnderWay
    }

    fn submit(&mut self) {
        if let Engine::Ring(ring) = &mut self.engine {
            ring.submit();
        }
    }

    fn complete(&mut self) -> Option<(u16, Result<(), DiskError>)> {
        let Engine::Ring(ring) = &mut self.engine else {
            return None;
        };
        let Ended {
            tag,
            operation,
            left,
            result,
        } = ring.complete()?;
        let result = result.map_err(|error| match operation {
            Operation::Read(offset) => self.failed("read", offset, left, &error),
            Operation::Write(offset) => self.failed("write", offset, left, &error),
            Operation::Flush => self.failed_flush(&error),
        });
        Some((tag, result))
    }

    fn wait(&mut self) {
        if let Engine::Ring(ring) = &mut self.engine
            && let Err(error) = ring.wait()
        {
            self.complaint
                .say(|| format!("cannot wait for the disk {}: {error}", self.path.display()));
        }
    }

    fn discard(&mut self, offset: u64, len: u64) -> Result<(), DiskError> {
        erase::discard(&self.file, offset, len).map_err(|error| self.failed("discard", offset, len, &error))
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> Result<(), DiskError> {
        erase::write_zeroes(&self.file, offset, len, unmap)
            .map_err(|error| self.failed("write zeros over", offset, len, &error))
    }
}
