//! Disks.
//!
//! Simple: [`read`](Driver::read), [`write`](Driver::write) and [`flush`](Driver::flush) sleep until they are done, which
//! takes one exit each.
//!
//! Quick: hand over many requests with their buffers, have them start with one
//! [`kick`](Driver::kick), and take them back as they complete. Nobody need kick before
//! [`wait`](Driver::wait), which starts everything itself: 32 requests then take one exit.
//!
//! ```no_run
//! use chiton_guest::block::{Disk, DiskError};
//! use chiton_guest::println;
//!
//! # fn main() -> Result<(), DiskError> {
//! let mut disk = Disk::open(0)?;
//! for i in 0..32 {
//!     disk.submit_read(i * 8, vec![0; 4096])?;
//! }
//! while disk.in_flight() > 0 {
//!     let done = disk.wait()?;
//!     done.result?;
//!     println!("{} bytes from sector {}", done.buffer.len(), done.sector);
//! }
//! # Ok(())
//! # }
//! ```

mod driver;
mod slots;

#[cfg(test)]
mod tests;

use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU64, Ordering};

use chiton_shared::boot::DeviceEntry;
use chiton_shared::map;
use chiton_shared::virtio::block::REQUEST;
use chiton_shared::virtio::id;

use crate::boot;
use crate::host::Doorbells;
use crate::negotiate::negotiate;
use crate::queue::{Queue, QueueError};
pub use driver::{Completion, Driver, Rejected, Ticket};
pub use slots::Slots;

pub use chiton_shared::virtio::block::SECTOR;

/// Why a disk does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// There are not so many disks.
    #[error("there is no disk {0}; start the guest with --disk PATH")]
    Missing(usize),
    /// The disk is open, or was: its queue cannot start over.
    #[error("disk {0} has been opened before; open it once and pass it on")]
    Opened(usize),
    /// The device failed.
    #[error("disk: {0}")]
    Device(#[from] QueueError),
    /// The disk's configuration is cut short.
    #[error("disk: the device's configuration is cut short")]
    Configuration,
    /// A length that is not a whole number of sectors, or more than a request can have.
    #[error("disk: {0} bytes are not between 1 and {max} whole sectors of {SECTOR} bytes", max = driver::MAX_SECTORS)]
    Length(usize),
    /// Beyond the disk's end.
    #[error("disk: {count} sectors from sector {sector} on reach beyond the disk's {sectors}")]
    Range {
        /// The first sector.
        sector: u64,
        /// How many.
        count: u64,
        /// How many the disk has.
        sectors: u64,
    },
    /// The disk cannot be written.
    #[error("disk: it is read-only; start the guest without `:ro`")]
    ReadOnly,
    /// As many requests are in flight as can be: take completions first.
    #[error("disk: {0} requests are in flight, and no more can be")]
    Full(usize),
    /// Nothing is in flight to wait for.
    #[error("disk: nothing is in flight to wait for")]
    Idle,
    /// The host could not read or write.
    #[error("disk: the request failed on the host")]
    Failed,
    /// A reset of the queue took the request back before its end.
    #[error("disk: the request was taken back by a reset of its queue, and may be done or not")]
    TakenBack,
    /// The device does not know this request.
    #[error("disk: the device does not support this request")]
    Unsupported,
    /// The device gave an answer that means nothing.
    #[error("disk: the device answered with status {0}, which means nothing")]
    Status(u8),
}

/// A disk of this machine: a [`Driver`] that rings the host's doorbells.
#[derive(Debug)]
pub struct Disk(Driver<'static, Doorbells>);

/// Which queues of each disk have been opened, as bits.
static OPENED: [AtomicU64; map::DEVICE_MAX] = [const { AtomicU64::new(0) }; map::DEVICE_MAX];

impl Disk {
    /// Opens disk number `index`, in the order of the `--disk` options. Each is opened once.
    ///
    /// # Errors
    ///
    /// [`DiskError::Missing`], [`DiskError::Opened`]; [`DiskError::Device`] or
    /// [`DiskError::Configuration`] if the host describes a device that cannot be used.
    pub fn open(index: usize) -> Result<Self, DiskError> {
        Self::open_queue(index, REQUEST)
    }

    /// Opens a disk by one of its [`queues`](Self::queues), each of which is opened once. So each
    /// processor can have its own, and none waits for another's lock.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`DiskError::Device`] if there is no such queue.
    pub fn open_queue(index: usize, queue: usize) -> Result<Self, DiskError> {
        let entry = boot::devices(id::BLOCK).nth(index).ok_or(DiskError::Missing(index))?;
        if queue >= usize::from(entry.queue_count) {
            return Err(QueueError::Missing(queue).into());
        }
        let bit = 1 << queue;
        let opened = OPENED.get(index).ok_or(DiskError::Missing(index))?;
        if opened.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return Err(DiskError::Opened(index));
        }
        // SAFETY: the boot page describes queues as the contract has it, and this one is opened
        // once.
        unsafe { Self::of_entry(entry, queue) }
    }

    /// Opens a disk as [`open`](Self::open) does, but brings it up [by itself](crate::negotiate) first, with features
    /// beside those that the host has negotiated, as far as the disk offers them. Its other queues cannot be opened.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(index: usize, more: u64) -> Result<Self, DiskError> {
        let entry = boot::devices(id::BLOCK).nth(index).ok_or(DiskError::Missing(index))?;
        let opened = OPENED.get(index).ok_or(DiskError::Missing(index))?;
        if opened
            .compare_exchange(0, u64::MAX, Ordering::Relaxed, Ordering::Relaxed)
            .is_err()
        {
            return Err(DiskError::Opened(index));
        }
        // SAFETY: an entry of the boot page; no queue of it is open, and none will be but by this.
        let entry = unsafe { negotiate(entry, entry.features | more) }?;
        // SAFETY: as in `open_queue`, and the queue has just been set up anew.
        unsafe { Self::of_entry(&entry, REQUEST) }
    }

    /// # Safety
    ///
    /// As for [`Queue::open`].
    unsafe fn of_entry(entry: &DeviceEntry, queue: usize) -> Result<Self, DiskError> {
        // SAFETY: the caller's promise.
        let queue = unsafe { Queue::open(entry, queue, Doorbells) }?;
        let slots = Slots::leak(usize::from(queue.size()));
        Ok(Self(Driver::new(queue, &entry.config, entry.features, slots)?))
    }

    /// How many queues a disk has: the `queues=` of its `--disk` option. None if there is no such
    /// disk.
    #[must_use]
    pub fn queues(index: usize) -> usize {
        let entry = boot::devices(id::BLOCK).nth(index);
        entry.map_or(0, |entry| entry.queue_count.into())
    }

    /// How many disks there are.
    #[must_use]
    pub fn count() -> usize {
        boot::devices(id::BLOCK).count()
    }
}

impl Deref for Disk {
    type Target = Driver<'static, Doorbells>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Disk {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
