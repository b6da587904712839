//! How a disk is opened.

use std::path::Path;

use chiton_core::devices::{Limits, Rate};
use chiton_shared::virtio::block::ID_BYTES;

use super::{Disk, DiskOpenError};

/// How to open a disk.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use chiton_kvm::DiskOptions;
///
/// let disk = DiskOptions::new().direct(true).serial("data-1")?.open("data.img")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DiskOptions {
    pub(super) read_only: bool,
    pub(super) direct: bool,
    pub(super) raw: bool,
    pub(super) serial: Option<[u8; ID_BYTES]>,
    pub(super) limits: Limits,
    pub(super) queues: usize,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            direct: false,
            raw: false,
            serial: None,
            limits: Limits::default(),
            queues: 1,
        }
    }
}

/// A serial that cannot be a disk's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be a disk's serial: use 1 to {ID_BYTES} printable ASCII characters")]
pub struct SerialError(pub String);

impl DiskOptions {
    /// Writable, through the page cache, named as its file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the guest may not write, and other instances may read too.
    #[must_use]
    pub const fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// Whether requests go past the page cache (`O_DIRECT`), as far as the guest aligns them.
    #[must_use]
    pub const fn direct(mut self, yes: bool) -> Self {
        self.direct = yes;
        self
    }

    /// Whether the image is taken as raw even if it begins like one of another format.
    #[must_use]
    pub const fn raw(mut self, yes: bool) -> Self {
        self.raw = yes;
        self
    }

    /// With at most so many requests.
    #[must_use]
    pub const fn limit_ops(mut self, rate: Rate) -> Self {
        self.limits.ops = Some(rate);
        self
    }

    /// With at most so many bytes read and written.
    #[must_use]
    pub const fn limit_bytes(mut self, rate: Rate) -> Self {
        self.limits.bytes = Some(rate);
        self
    }

    /// With these limits, in the place of those it had.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How many queues the guest finds, 1 to [`MAX_QUEUES`](chiton_core::devices::block::MAX_QUEUES):
    /// one for each processor that uses the disk.
    #[must_use]
    pub const fn queues(mut self, count: usize) -> Self {
        self.queues = count;
        self
    }

    /// The name the guest reads, instead of the file's: 1 to 20 printable ASCII characters.
    ///
    /// # Errors
    ///
    /// [`SerialError`].
    pub fn serial(mut self, serial: &str) -> Result<Self, SerialError> {
        let printable = serial.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if serial.is_empty() || serial.len() > ID_BYTES || !printable {
            return Err(SerialError(serial.to_owned()));
        }
        let mut name = [0; ID_BYTES];
        name[..serial.len()].copy_from_slice(serial.as_bytes());
        self.serial = Some(name);
        Ok(self)
    }

    /// Opens and locks a raw disk image or block device.
    ///
    /// # Errors
    ///
    /// [`DiskOpenError`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Disk, DiskOpenError> {
        Disk::open_with(path.as_ref(), self)
    }
}
