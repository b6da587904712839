//! A disk: a raw file or block device.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use chiton_core::devices::block::{Disk as Backend, DiskError};
use chiton_shared::memory::Window;
use chiton_shared::virtio::block::{ID_BYTES, SECTOR};
use rustix::fs::{FlockOperation, SeekFrom, flock, seek};

use super::{Transfer, transfer};

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
}

/// A disk that is open, and locked against other instances: shared if read-only, else alone.
#[derive(Debug)]
pub struct Disk {
    file: File,
    sectors: u64,
    read_only: bool,
    name: [u8; ID_BYTES],
}

impl Disk {
    /// Opens and locks a raw disk image or block device.
    ///
    /// # Errors
    ///
    /// [`DiskOpenError`].
    pub fn open(path: impl AsRef<Path>, read_only: bool) -> Result<Self, DiskOpenError> {
        let path = path.as_ref();
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
        match flock(&file, lock) {
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
        Ok(Self {
            file,
            sectors: size / SECTOR,
            read_only,
            name: name_of(path),
        })
    }

    fn all(&self, windows: &[Window<'_>], offset: u64, what: fn(u64) -> Transfer) -> Result<(), DiskError> {
        let (mut at, mut rest) = (offset, windows);
        while let Some(first) = rest.first() {
            let mut done = transfer(self.file.as_fd(), rest, what(at)).map_err(|_| DiskError)?;
            if done == 0 && !first.is_empty() {
                return Err(DiskError);
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
    fn rest_of(&self, window: Window<'_>, done: usize, at: u64, what: fn(u64) -> Transfer) -> Result<u64, DiskError> {
        let (mut done, mut at) = (done, at);
        while done < window.len() {
            let part = window.part(done, window.len() - done).ok_or(DiskError)?;
            match transfer(self.file.as_fd(), &[part], what(at)) {
                Ok(0) | Err(_) => return Err(DiskError),
                Ok(more) => {
                    done += more;
                    at += more as u64;
                }
            }
        }
        Ok(at)
    }
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
    }

    fn write_at(&mut self, offset: u64, from: &[Window<'_>]) -> Result<(), DiskError> {
        self.all(from, offset, Transfer::WriteAt)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(|_| DiskError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::Ram;
    use chiton_shared::memory::GuestMemory;

    /// A file that is gone with the test.
    struct Image(PathBuf);

    impl Image {
        fn new(name: &str, bytes: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("chiton-disk-{}-{name}", std::process::id()));
            std::fs::write(&path, bytes).unwrap();
            Self(path)
        }
    }

    impl Drop for Image {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn what_is_written_is_read_back_across_windows() {
        let image = Image::new("roundtrip", &[0; 4096]);
        let mut disk = Disk::open(&image.0, false).unwrap();
        let ram = Ram::new(1 << 20).unwrap();
        ram.window(0, 6).unwrap().write(0, b"abcdef");
        let from = [
            ram.window(0, 2).unwrap(),
            ram.window(2, 0).unwrap(),
            ram.window(2, 4).unwrap(),
        ];
        disk.write_at(510, &from).unwrap();
        disk.flush().unwrap();
        assert_eq!(std::fs::read(&image.0).unwrap()[508..518], *b"\0\0abcdef\0\0");
        disk.read_at(511, &[ram.window(100, 3).unwrap(), ram.window(200, 1).unwrap()])
            .unwrap();
        let mut bytes = [0; 3];
        ram.window(100, 3).unwrap().read(0, &mut bytes);
        assert_eq!(&bytes, b"bcd");
    }

    #[test]
    fn a_disk_that_shrank_fails_the_read_and_does_not_hang() {
        let image = Image::new("shrunk", &[1; 4096]);
        let mut disk = Disk::open(&image.0, true).unwrap();
        std::fs::OpenOptions::new()
            .write(true)
            .open(&image.0)
            .unwrap()
            .set_len(1000)
            .unwrap();
        let ram = Ram::new(1 << 20).unwrap();
        assert!(disk.read_at(512, &[ram.window(0, 1024).unwrap()]).is_err());
        assert!(disk.read_at(0, &[ram.window(0, 512).unwrap()]).is_ok());
    }

    #[test]
    fn writing_a_read_only_disk_fails() {
        let image = Image::new("ro", &[1; 512]);
        let mut disk = Disk::open(&image.0, true).unwrap();
        assert!(disk.is_read_only() && disk.sectors() == 1);
        let ram = Ram::new(1 << 20).unwrap();
        assert!(disk.write_at(0, &[ram.window(0, 512).unwrap()]).is_err());
        assert_eq!(std::fs::read(&image.0).unwrap(), [1; 512]);
    }

    #[test]
    fn a_writer_excludes_everybody_and_readers_exclude_writers() {
        let image = Image::new("lock", &[0; 512]);
        let writer = Disk::open(&image.0, false).unwrap();
        assert!(matches!(Disk::open(&image.0, true), Err(DiskOpenError::Locked(_))));
        drop(writer);
        let _one = Disk::open(&image.0, true).unwrap();
        let _two = Disk::open(&image.0, true).unwrap();
        assert!(matches!(Disk::open(&image.0, false), Err(DiskOpenError::Locked(_))));
    }

    #[test]
    fn the_name_is_the_files_as_far_as_it_fits() {
        assert_eq!(&name_of(Path::new("/a/data.img"))[..9], b"data.img\0");
        assert_eq!(
            &name_of(Path::new("a-name-of-more-than-twenty-bytes")),
            b"a-name-of-more-than-"
        );
    }
}
