//! The driver of the balloon: queues, and the memory that the host has.

use alloc::alloc::{alloc, dealloc};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::NonNull;

use chiton_shared::virtio::balloon::{Config, PAGE, STATISTICS, Statistics};
use chiton_shared::virtio::ring::Buffer;

use super::BalloonError;
use crate::host::Host;
use crate::queue::Queue;

/// Page numbers in one message.
const BATCH: usize = 1024;

/// How much [`Driver::follow`] gives or takes at a time, in bytes.
pub(super) const PIECE: usize = 64 << 10;

/// Pages of the heap that nobody uses.
#[derive(Debug)]
struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: nobody reaches the memory of a block but by this pointer.
unsafe impl Send for Block {}

/// The driver side of a balloon.
#[derive(Debug)]
pub struct Driver<'m, H> {
    inflate: Queue<'m, H>,
    deflate: Queue<'m, H>,
    statistics: Queue<'m, H>,
    reporting: Queue<'m, H>,
    host: H,
    registers: u64,
    blocks: Vec<Block>,
    /// Page numbers on their way.
    numbers: Box<[u32; BATCH]>,
    /// Statistics on their way.
    report: Box<[u8; STATISTICS]>,
    /// Whether the device has them.
    reported: bool,
}

impl<'m, H: Host> Driver<'m, H> {
    /// A balloon with the queues to inflate, to deflate, for statistics and to report.
    pub fn new([inflate, deflate, statistics, reporting]: [Queue<'m, H>; 4], host: H, registers: u64) -> Self {
        Self {
            inflate,
            deflate,
            statistics,
            reporting,
            host,
            registers,
            blocks: Vec::new(),
            numbers: Box::new([0; BATCH]),
            report: Box::new([0; STATISTICS]),
            reported: false,
        }
    }

    /// How many bytes the host would like to have; takes an exit.
    pub fn target(&self) -> u64 {
        u64::from(self.host.read_config(self.registers, 0)) * PAGE
    }

    /// How many bytes it has.
    pub fn held(&self) -> usize {
        self.blocks.iter().map(|block| block.layout.size()).sum()
    }

    /// See [`Balloon::inflate`](super::Balloon::inflate).
    ///
    /// # Errors
    ///
    /// [`BalloonError`].
    pub fn inflate(&mut self, bytes: usize) -> Result<(), BalloonError> {
        let given = self.give(bytes);
        self.say_how_many();
        given
    }

    fn give(&mut self, bytes: usize) -> Result<(), BalloonError> {
        let none = BalloonError::NoMemory(bytes);
        let size = bytes.max(1).checked_next_multiple_of(PAGE as usize).ok_or(none)?;
        let layout = Layout::from_size_align(size, PAGE as usize).map_err(|_| none)?;
        self.blocks.try_reserve(1).map_err(|_| none)?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) }).ok_or(none)?;
        // Kept whatever happens: the host may have some of it.
        self.blocks.push(Block { start, layout });
        tell(&mut self.inflate, &mut self.numbers, start, size)
    }

    /// See [`Balloon::deflate`](super::Balloon::deflate).
    ///
    /// # Errors
    ///
    /// [`BalloonError`].
    pub fn deflate(&mut self) -> Result<usize, BalloonError> {
        let taken = self.take();
        self.say_how_many();
        taken
    }

    fn take(&mut self) -> Result<usize, BalloonError> {
        let Some(Block { start, layout }) = self.blocks.pop() else {
            return Ok(0);
        };
        let told = tell(&mut self.deflate, &mut self.numbers, start, layout.size());
        // SAFETY: allocated with this layout in `give`, and nobody's since.
        unsafe { dealloc(start.as_ptr(), layout) };
        told.map(|()| layout.size())
    }

    /// See [`Balloon::follow`](super::Balloon::follow).
    ///
    /// # Errors
    ///
    /// [`BalloonError::Device`].
    pub fn follow(&mut self) -> Result<(), BalloonError> {
        let target = usize::try_from(self.target()).unwrap_or(usize::MAX);
        let mut held = self.held();
        let before = held;
        let result = loop {
            if held > target {
                match self.take() {
                    Ok(bytes) => held -= bytes,
                    Err(error) => break Err(error),
                }
            } else if held < target {
                let bytes = PIECE.min(target - held);
                match self.give(bytes) {
                    Ok(()) => held += bytes,
                    // The rest is in use.
                    Err(BalloonError::NoMemory(_)) => break Ok(()),
                    Err(error) => break Err(error),
                }
            } else {
                break Ok(());
            }
        };
        if held != before {
            self.say_how_many();
        }
        result
    }

    /// Updates `actual` (section 5.5.6.1); takes an exit.
    fn say_how_many(&self) {
        let pages = u32::try_from(self.held() as u64 / PAGE).unwrap_or(u32::MAX);
        self.host.write_config(self.registers, Config::ACTUAL as u64, pages);
    }

    /// See [`Balloon::report`](super::Balloon::report).
    ///
    /// # Errors
    ///
    /// [`BalloonError::Device`].
    pub fn report(&mut self, free: &mut [u8]) -> Result<(), BalloonError> {
        self.report_block((NonNull::from(&mut *free).cast(), free.len()))
    }

    /// As [`report`](Self::report), of memory that nobody else uses until this returns.
    pub(super) fn report_block(&mut self, (start, len): (NonNull<u8>, usize)) -> Result<(), BalloonError> {
        let start = start.as_ptr().expose_provenance();
        for at in (0..len).step_by(1 << 30) {
            let buffer = Buffer::writable((start + at) as u64, (len - at).min(1 << 30) as u32);
            // SAFETY: the memory is the caller's until the chain has come back, or the queue is given up.
            unsafe { self.reporting.add(&[buffer]) }?;
            self.reporting.wait()?;
        }
        Ok(())
    }

    /// Answers the host if it has asked for statistics, or has never had any. Never sleeps.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Device`].
    pub fn serve_statistics(&mut self, statistics: &Statistics) -> Result<(), BalloonError> {
        if self.reported && self.statistics.take()?.is_none() {
            return Ok(());
        }
        let len = statistics.write(&mut self.report);
        let buffer = Buffer::readable(self.report.as_ptr().expose_provenance() as u64, len as u32);
        // SAFETY: the bytes live as long as the driver, which does not touch them until the chain
        // has come back.
        unsafe { self.statistics.add(&[buffer]) }?;
        self.reported = true;
        self.statistics.arm();
        self.statistics.kick();
        Ok(())
    }
}

/// Sends the numbers of the pages from `start` on, and sleeps until the host has seen them. Needs no
/// memory.
fn tell<H: Host>(
    queue: &mut Queue<'_, H>,
    numbers: &mut [u32; BATCH],
    start: NonNull<u8>,
    bytes: usize,
) -> Result<(), BalloonError> {
    let first = start.as_ptr().expose_provenance() as u64 / PAGE;
    let mut pages = (first..).take(bytes / PAGE as usize).peekable();
    while pages.peek().is_some() {
        let mut count = 0;
        for (number, page) in numbers.iter_mut().zip(&mut pages) {
            // Little-endian, as this processor is.
            *number = page as u32;
            count += 1;
        }
        let batch = &numbers[..count];
        let buffer = Buffer::readable(batch.as_ptr().expose_provenance() as u64, size_of_val(batch) as u32);
        // SAFETY: the numbers live until the chain has come back, or the queue is given up.
        unsafe { queue.add(&[buffer]) }?;
        queue.wait()?;
    }
    Ok(())
}
