//! Memory that is not needed goes back to the host: the balloon (virtio 1.3 section 5.5).
//!
//! ```no_run
//! use chiton_guest::balloon::{Balloon, BalloonError};
//!
//! # fn main() -> Result<(), BalloonError> {
//! let mut balloon = Balloon::open()?;
//! balloon.inflate(8 << 20)?; // 8 MiB of the heap take no memory of the host now
//! balloon.deflate()?; // and can be used again
//! # Ok(())
//! # }
//! ```

use alloc::alloc::{alloc, dealloc};
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use chiton_shared::virtio::balloon::{Config, DEFLATE, INFLATE, PAGE, REPORTING};
use chiton_shared::virtio::id;
use chiton_shared::virtio::ring::Buffer;

use crate::boot;
use crate::host::{Doorbells, Host};
use crate::queue::{Queue, QueueError};

/// Page numbers in one message.
const BATCH: usize = 1024;

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

/// Pages of the heap that nobody uses.
#[derive(Debug)]
struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

/// The balloon.
#[derive(Debug)]
pub struct Balloon<'m, H: Host = Doorbells> {
    inflate: Queue<'m, H>,
    deflate: Queue<'m, H>,
    reporting: Queue<'m, H>,
    target: u64,
    blocks: Vec<Block>,
}

static OPENED: AtomicBool = AtomicBool::new(false);

impl Balloon<'static> {
    /// Opens the balloon, once.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Missing`], [`BalloonError::Opened`]; [`BalloonError::Device`] if the host
    /// describes a device that cannot be used.
    pub fn open() -> Result<Self, BalloonError> {
        let entry = boot::devices(id::BALLOON).next().ok_or(BalloonError::Missing)?;
        if OPENED.swap(true, Ordering::Relaxed) {
            return Err(BalloonError::Opened);
        }
        // SAFETY: the boot page describes queues as the contract has it, and each is opened once.
        let queue = |index| unsafe { Queue::open(entry, index, Doorbells) };
        let target = Config::from_bytes(&entry.config).unwrap_or_default().num_pages;
        Ok(Self::new(
            [queue(INFLATE)?, queue(DEFLATE)?, queue(REPORTING)?],
            u64::from(target) * PAGE,
        ))
    }
}

impl<'m, H: Host> Balloon<'m, H> {
    /// A balloon with the queues to inflate, to deflate and to report, and what the host would like
    /// to have, in bytes.
    pub fn new([inflate, deflate, reporting]: [Queue<'m, H>; 3], target: u64) -> Self {
        Self {
            inflate,
            deflate,
            reporting,
            target,
            blocks: Vec::new(),
        }
    }

    /// How many bytes the host would like to have.
    #[must_use]
    pub const fn target(&self) -> u64 {
        self.target
    }

    /// How many bytes it has.
    #[must_use]
    pub fn held(&self) -> usize {
        self.blocks.iter().map(|block| block.layout.size()).sum()
    }

    /// Gives so many bytes of the heap to the host, rounded up to whole pages, and sleeps until it
    /// has them.
    ///
    /// # Errors
    ///
    /// [`BalloonError::NoMemory`]; [`BalloonError::Device`].
    pub fn inflate(&mut self, bytes: usize) -> Result<(), BalloonError> {
        let none = BalloonError::NoMemory(bytes);
        let size = bytes.max(1).checked_next_multiple_of(PAGE as usize).ok_or(none)?;
        let layout = Layout::from_size_align(size, PAGE as usize).map_err(|_| none)?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) }).ok_or(none)?;
        // Kept whatever happens: the host may have some of it.
        self.blocks.push(Block { start, layout });
        tell(&mut self.inflate, start, size)
    }

    /// Takes back what was given last, and returns how much that is, 0 if there is nothing. The
    /// host is told, and need not answer (`VIRTIO_BALLOON_F_MUST_TELL_HOST` is not offered).
    ///
    /// # Errors
    ///
    /// [`BalloonError::Device`]; the memory is back in the heap all the same.
    pub fn deflate(&mut self) -> Result<usize, BalloonError> {
        let Some(Block { start, layout }) = self.blocks.pop() else {
            return Ok(0);
        };
        let told = tell(&mut self.deflate, start, layout.size());
        // SAFETY: allocated with this layout in `inflate`, and nobody's since.
        unsafe { dealloc(start.as_ptr(), layout) };
        told.map(|()| layout.size())
    }

    /// Tells the host that nobody needs what these bytes hold, and sleeps until it knows. Whole
    /// pages among them read as anything afterwards, and take no memory of the host until they
    /// are written.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Device`].
    pub fn report(&mut self, free: &mut [u8]) -> Result<(), BalloonError> {
        for piece in free.chunks_mut(1 << 30) {
            let buffer = Buffer::writable(piece.as_mut_ptr().expose_provenance() as u64, piece.len() as u32);
            // SAFETY: the piece is borrowed until the chain has come back, or the queue is given up.
            unsafe { self.reporting.add(&[buffer]) }?;
            self.reporting.wait()?;
        }
        Ok(())
    }
}

/// Sends the numbers of the pages from `start` on.
fn tell<H: Host>(queue: &mut Queue<'_, H>, start: NonNull<u8>, bytes: usize) -> Result<(), BalloonError> {
    let first = start.as_ptr().expose_provenance() as u64 / PAGE;
    let pages: Vec<u32> = (first..).take(bytes / PAGE as usize).map(|page| page as u32).collect();
    for batch in pages.chunks(BATCH) {
        // Little-endian, as this processor is.
        let buffer = Buffer::readable(batch.as_ptr().expose_provenance() as u64, size_of_val(batch) as u32);
        // SAFETY: the numbers live until the chain has come back, or the queue is given up.
        unsafe { queue.add(&[buffer]) }?;
        queue.wait()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::testing::{Machine, bytes};

    #[test]
    fn pages_are_named_one_by_one_and_come_back_to_the_heap() {
        let told = Rc::new(RefCell::new(Vec::new()));
        let machines = [0, 1, 2].map(|_| {
            let told = Rc::clone(&told);
            Machine::new(8, move |chain, _| {
                let numbers: Vec<u32> = chain
                    .readable()
                    .iter()
                    .flat_map(bytes)
                    .collect::<Vec<u8>>()
                    .chunks(4)
                    .map(|n| u32::from_le_bytes(n.try_into().unwrap()))
                    .collect();
                told.borrow_mut().push(numbers);
                Some(0)
            })
        });
        let mut balloon = Balloon::new(machines.each_ref().map(Machine::queue), 0);
        balloon.inflate(PAGE as usize * 2000 + 1).unwrap();
        assert_eq!(balloon.held(), PAGE as usize * 2001);
        {
            let told = told.borrow();
            assert_eq!((told[0].len(), told[1].len()), (1024, 977));
            let all = told.concat();
            assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1));
        }
        assert_eq!(balloon.deflate(), Ok(PAGE as usize * 2001));
        assert_eq!((balloon.deflate(), balloon.held()), (Ok(0), 0));
        balloon.report(&mut [0; 64]).unwrap();
        assert_eq!(machines[2].waits(), 1);
        assert_eq!(balloon.inflate(usize::MAX), Err(BalloonError::NoMemory(usize::MAX)));
    }
}
