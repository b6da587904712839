//! What is done to the disk for a request: a piece at a time, or begun and left to itself.

use chiton_shared::memory::GuestMemory;
use chiton_shared::virtio::block::{RequestType, SECTOR};
use chiton_shared::virtio::ring::Chain;

use super::super::buffers::Windows;
use super::super::{Limiter, Limits};
use super::disk::{Begun, Disk, Operation};
use super::request::{Refused, Request};
use super::segments::Segments;
use super::{BYTES_PER_CALL, FLUSH_COST};

/// The disk, and what requests of all queues have to keep to.
pub(super) struct Backend<D> {
    pub(super) disk: D,
    /// Whether each write is made durable before it completes, for a driver that cannot flush
    /// (section 5.2.6.2, condition 1).
    pub(super) writethrough: bool,
    pub(super) limited: Option<Limited>,
    /// What limits go by, given with the first ones.
    pub(super) clock: Option<fn() -> u64>,
}

/// A rate limit, and the clock it goes by.
pub(super) struct Limited {
    pub(super) limits: Limits,
    pub(super) limiter: Limiter,
    pub(super) now: fn() -> u64,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is done.
    Done,
    /// The disk has begun all that is left of it, which fills so many bytes of its buffers.
    Begun { fills: u32 },
    /// It is not finished, so that others get their turn.
    Unfinished,
    /// It goes on at this time, because of a limit.
    Limited(u64),
}

impl<D: Disk> Backend<D> {
    /// Whether another request may be taken now, or when.
    pub(super) fn may_begin(&mut self) -> Result<(), u64> {
        let wait = |limited: &mut Limited| limited.limiter.wait(1, 0, (limited.now)());
        self.limited.as_mut().and_then(wait).map_or(Ok(()), Err)
    }

    /// A request was taken, as it [may](Self::may_begin) be.
    pub(super) fn count(&mut self) {
        // It was allowed just now, and time does not run backwards.
        let _ = self.take(1, 0);
    }

    /// Takes so many tokens now, or tells when they are there.
    fn take(&mut self, ops: u64, bytes: usize) -> Result<(), u64> {
        match &mut self.limited {
            Some(limited) => limited.limiter.take(ops, bytes as u64, (limited.now)()),
            None => Ok(()),
        }
    }

    /// How many of these bytes can be moved at once, in whole sectors unless that is all of them.
    fn at_once(&self, bytes: usize) -> usize {
        let most = self
            .limited
            .as_ref()
            .map_or(u64::MAX, |limited| limited.limiter.most_bytes() / SECTOR * SECTOR);
        bytes.min(usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// Goes on with a request until it is done, begun, or the budget is spent.
    pub(super) fn step<'m>(
        &mut self,
        request: &mut Request,
        (chain, segments): (&Chain, &mut Segments),
        tag: u16,
        memory: &'m (dyn GuestMemory + 'm),
        windows: &mut Windows<'m>,
        budget: &mut usize,
    ) -> Result<Step, Refused> {
        loop {
            let step = match request.kind {
                RequestType::Discard | RequestType::WriteZeroes => self.erase(request, segments, budget)?,
                RequestType::Read | RequestType::Write => {
                    self.transfer(request, chain, tag, memory, windows, budget)?
                }
                RequestType::GetId => {
                    request
                        .cursor
                        .gather(chain.writable(), memory, request.left as usize, windows)?;
                    windows.write(self.disk.name().get(request.filled as usize..).unwrap_or_default());
                    request.moved(chain, windows.bytes());
                    None
                }
                RequestType::Flush => return self.flush(tag, budget),
            };
            match step {
                Some(step) => return Ok(step),
                None if request.left == 0 => break,
                None if *budget == 0 => return Ok(Step::Unfinished),
                None => {}
            }
        }
        if self.writethrough && matches!(request.kind, RequestType::Write | RequestType::WriteZeroes) {
            *budget = budget.saturating_sub(FLUSH_COST);
            self.disk.flush()?;
        }
        Ok(Step::Done)
    }

    fn flush(&mut self, tag: u16, budget: &mut usize) -> Result<Step, Refused> {
        *budget = budget.saturating_sub(FLUSH_COST);
        match self.disk.begin(tag, Operation::Flush, &[]) {
            Begun::Done(result) => Ok(result.map(|()| Step::Done)?),
            Begun::UnderWay => Ok(Step::Begun { fills: 0 }),
        }
    }

    /// Moves the next piece, or begins to if it is the last one; `None` if it is moved.
    fn transfer<'m>(
        &mut self,
        request: &mut Request,
        chain: &Chain,
        tag: u16,
        memory: &'m (dyn GuestMemory + 'm),
        windows: &mut Windows<'m>,
        budget: &mut usize,
    ) -> Result<Option<Step>, Refused> {
        if request.left == 0 {
            return Ok(None);
        }
        let left = request.left as usize;
        let write = request.kind == RequestType::Write;
        let buffers = if write { chain.readable() } else { chain.writable() };
        let len = self.at_once(left.min(BYTES_PER_CALL));
        request.cursor.gather(buffers, memory, len, windows)?;
        let len = windows.bytes();
        if let Err(at) = self.take(0, len) {
            return Ok(Some(Step::Limited(at)));
        }
        // A request that fits a call is begun whole, so a call ends at most so much beyond its
        // budget.
        *budget = budget.saturating_sub(len);
        let offset = request.offset;
        // What is made durable at once is not left to itself.
        let last = len == left && !(write && self.writethrough);
        if !last {
            if write {
                self.disk.write_at(offset, windows.as_slice())?;
            } else {
                self.disk.read_at(offset, windows.as_slice())?;
            }
        } else {
            let operation = if write {
                Operation::Write(offset)
            } else {
                Operation::Read(offset)
            };
            match self.disk.begin(tag, operation, windows.as_slice()) {
                Begun::Done(result) => result?,
                Begun::UnderWay => {
                    let fills = if write { 0 } else { len as u32 };
                    return Ok(Some(Step::Begun { fills }));
                }
            }
        }
        request.moved(chain, len);
        Ok(None)
    }

    /// Does the next piece of a discard or of a fill with zeros.
    fn erase(
        &mut self,
        request: &mut Request,
        segments: &mut Segments,
        budget: &mut usize,
    ) -> Result<Option<Step>, Refused> {
        let mut len = segments.len_of_next().min(BYTES_PER_CALL as u64) as usize;
        if request.kind == RequestType::WriteZeroes {
            len = self.at_once(len);
            if let Err(at) = self.take(0, len) {
                return Ok(Some(Step::Limited(at)));
            }
        }
        if let Some(piece) = segments.next(len as u64) {
            if request.kind == RequestType::Discard {
                *budget = budget.saturating_sub(FLUSH_COST);
                self.disk.discard(piece.offset, piece.len)?;
            } else {
                *budget = budget.saturating_sub(piece.len as usize);
                self.disk.write_zeroes(piece.offset, piece.len, piece.unmap)?;
            }
        }
        request.left = segments.left();
        Ok(None)
    }
}
