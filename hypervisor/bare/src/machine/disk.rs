//! A disk in memory: a file of the ramdisk, of which the guest changes a copy.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use chiton_core::devices::{Disk, DiskError};
use chiton_shared::memory::Window;
use chiton_shared::virtio::block::{ID_BYTES, SECTOR};

/// A disk in memory. What is written is lost with the machine.
pub(super) struct MemoryDisk {
    bytes: Vec<u8>,
    read_only: bool,
    /// Whether anything was written, for others to look at too.
    written: Arc<AtomicBool>,
}

impl MemoryDisk {
    /// A disk with this content, which is whole sectors; `None` if there is no memory for it.
    pub(super) fn new(content: &[u8], read_only: bool) -> Option<Self> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(content.len()).ok()?;
        bytes.extend_from_slice(content);
        Some(Self {
            bytes,
            read_only,
            written: Arc::default(),
        })
    }

    /// Whether anything was written, for others to look at too.
    pub(super) fn written(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.written)
    }

    fn part(&mut self, offset: u64, len: u64) -> Result<&mut [u8], DiskError> {
        let start = usize::try_from(offset).map_err(|_| DiskError)?;
        let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len));
        self.bytes.get_mut(start..end.ok_or(DiskError)?).ok_or(DiskError)
    }
}

impl Disk for MemoryDisk {
    fn sectors(&self) -> u64 {
        self.bytes.len() as u64 / SECTOR
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn name(&self) -> [u8; ID_BYTES] {
        *b"chiton memory disk\0\0"
    }

    fn read_at(&mut self, mut offset: u64, to: &[Window<'_>]) -> Result<(), DiskError> {
        for window in to {
            window.write(0, self.part(offset, window.len() as u64)?);
            offset += window.len() as u64;
        }
        Ok(())
    }

    fn write_at(&mut self, mut offset: u64, from: &[Window<'_>]) -> Result<(), DiskError> {
        self.written.store(true, Ordering::Relaxed);
        for window in from {
            window.read(0, self.part(offset, window.len() as u64)?);
            offset += window.len() as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    fn discard(&mut self, _offset: u64, _len: u64) -> Result<(), DiskError> {
        Ok(())
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, _unmap: bool) -> Result<(), DiskError> {
        self.written.store(true, Ordering::Relaxed);
        self.part(offset, len)?.fill(0);
        Ok(())
    }
}
