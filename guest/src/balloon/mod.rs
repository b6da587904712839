//! Memory that is not needed goes back to the host: the balloon (virtio 1.3 section 5.5).
//!
//! ```no_run
//! use chiton_guest::balloon::{Balloon, BalloonError};
//!
//! # fn main() -> Result<(), BalloonError> {
//! let mut balloon = Balloon::open()?;
//! balloon.inflate(8 << 20)?; // 8 MiB of the heap take no memory of the host now
//! balloon.deflate()?; // and can be used again
//! balloon.follow()?; // as much as the host would like to have
//! # Ok(())
//! # }
//! ```
//!
//! An allocation that finds the heap full takes back what is in the balloon, piece by piece, before it
//! fails.

mod driver;
mod free;
#[cfg(test)]
mod tests;

use core::sync::atomic::{AtomicU64, Ordering};

use chiton_shared::virtio::balloon::{DEFLATE, INFLATE, REPORTING, STATS, Statistics};
use chiton_shared::virtio::id;
use spin::Mutex;

pub use driver::Driver;

use crate::boot;
use crate::host::Doorbells;
use crate::queue::{Queue, QueueError};

/// Why memory cannot be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BalloonError {
    /// The machine has no balloon.
    #[error("there is no balloon; start the guest with --balloon")]
    Missing,
    /// It was opened before.
    #[error("the balloon has been opened before; open it once and pass it on")]
    Opened,
    /// The heap has no piece of this length.
    #[error("balloon: the heap has no {0} bytes in one piece to give")]
    NoMemory(usize),
    /// The device failed.
    #[error("balloon: {0}")]
    Device(#[from] QueueError),
}

/// The balloon. It stays as it is when this is dropped.
#[derive(Debug)]
pub struct Balloon(());

static DRIVER: Mutex<Option<Driver<'static, Doorbells>>> = Mutex::new(None);

/// How often an allocation took memory back.
static RESCUES: AtomicU64 = AtomicU64::new(0);

impl Balloon {
    /// Opens the balloon, once.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Missing`], [`BalloonError::Opened`]; [`BalloonError::Device`] if the host
    /// describes a device that cannot be used.
    pub fn open() -> Result<Self, BalloonError> {
        let entry = boot::devices(id::BALLOON).next().ok_or(BalloonError::Missing)?;
        let mut driver = DRIVER.lock();
        if driver.is_some() {
            return Err(BalloonError::Opened);
        }
        // SAFETY: the boot page describes queues as the contract has it, and each is opened once.
        let queue = |index| unsafe { Queue::open(entry, index, Doorbells) };
        let queues = [queue(INFLATE)?, queue(DEFLATE)?, queue(STATS)?, queue(REPORTING)?];
        *driver = Some(Driver::new(queues, Doorbells, entry.registers));
        drop(driver);
        let mut balloon = Self(());
        // The host waits for the first ones without having asked.
        balloon.serve_statistics()?;
        Ok(balloon)
    }

    fn with<R>(&self, action: impl FnOnce(&mut Driver<'static, Doorbells>) -> R) -> Option<R> {
        DRIVER.lock().as_mut().map(action)
    }

    /// How many bytes the host would like to have, now; it takes an exit to look. When that changes,
    /// [`wait`](crate::time::wait) ends.
    #[must_use]
    pub fn target(&self) -> u64 {
        self.with(|driver| driver.target()).unwrap_or_default()
    }

    /// How many bytes it has.
    #[must_use]
    pub fn held(&self) -> usize {
        self.with(|driver| driver.held()).unwrap_or_default()
    }

    /// How often an allocation that found the heap full took memory back so far.
    #[must_use]
    pub fn rescues(&self) -> u64 {
        RESCUES.load(Ordering::Relaxed)
    }

    /// Gives so many bytes of the heap to the host, rounded up to whole pages, and sleeps until it
    /// has them.
    ///
    /// # Errors
    ///
    /// [`BalloonError::NoMemory`]; [`BalloonError::Device`].
    pub fn inflate(&mut self, bytes: usize) -> Result<(), BalloonError> {
        self.with(|driver| driver.inflate(bytes)).unwrap_or(Ok(()))
    }

    /// Takes back what was given last, and returns how much that is, 0 if there is nothing. The
    /// host is told.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Device`]; the memory is back in the heap all the same.
    pub fn deflate(&mut self) -> Result<usize, BalloonError> {
        self.with(Driver::deflate).unwrap_or(Ok(0))
    }

    /// Gives or takes as much as the host would like, as far as the heap has it.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Device`].
    pub fn follow(&mut self) -> Result<(), BalloonError> {
        self.with(Driver::follow).unwrap_or(Ok(()))
    }

    /// Tells the host that nobody needs what these bytes hold, and sleeps until it knows. Whole
    /// pages among them read as anything afterwards, and take no memory of the host until they
    /// are written.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Device`].
    pub fn report(&mut self, free: &mut [u8]) -> Result<(), BalloonError> {
        self.with(|driver| driver.report(free)).unwrap_or(Ok(()))
    }

    /// As [`report`](Self::report), of the heap's free memory but for an eighth, which stays for who allocates
    /// meanwhile. It takes an exit for each piece, of which there are few. Returns how many bytes were reported.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Device`].
    pub fn report_free(&mut self) -> Result<usize, BalloonError> {
        let held = free::Held::take();
        for block in held.blocks() {
            self.with(|driver| driver.report_block(block)).unwrap_or(Ok(()))?;
        }
        Ok(held.bytes())
    }

    /// Tells the host how much memory is free if it has asked since this was last called, which ends a
    /// [`wait`](crate::time::wait). Never sleeps.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Device`].
    pub fn serve_statistics(&mut self) -> Result<(), BalloonError> {
        let heap = crate::heap::usage();
        let statistics = Statistics {
            total: heap.map(|usage| usage.size as u64),
            free: heap.map(|usage| usage.free() as u64),
            available: heap.map(|usage| (usage.free() + self.held()) as u64),
            ..Statistics::default()
        };
        self.with(|driver| driver.serve_statistics(&statistics))
            .unwrap_or(Ok(()))
    }
}

/// Takes a piece back from the host for an allocation that would fail otherwise; false if there is none
/// to take. (`VIRTIO_BALLOON_F_DEFLATE_ON_OOM` is offered always.)
pub(crate) fn rescue() -> bool {
    // Who holds the lock is the balloon itself: it has to do without.
    let Some(mut driver) = DRIVER.try_lock() else {
        return false;
    };
    let taken = driver.as_mut().is_some_and(|driver| {
        driver.held() > 0 && {
            // If the device failed, the memory is back all the same.
            let _ = driver.deflate();
            true
        }
    });
    RESCUES.fetch_add(u64::from(taken), Ordering::Relaxed);
    taken
}
