//! Block device (virtio 1.3 section 5.2): a disk of 512-byte sectors.
//!
//! A request is read as a stream of bytes, however the driver cut it into descriptors (section
//! 2.7.4): the first 16 readable bytes are the header, the last writable byte is the status, and
//! the data are what is between.
//!
//! ```text
//!  pop ─▶ Request::parse ─▶ advance, advance, … ─▶ status byte, push
//!              │ refused        one bounded piece a call    ▲
//!              └────────────────────────────────────────────┘
//! ```

mod request;
mod segments;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;

use chiton_shared::memory::{GuestMemory, Window};
use chiton_shared::virtio::block::{
    Config, F_BLK_SIZE, F_DISCARD, F_FLUSH, F_RO, F_SEG_MAX, F_WRITE_ZEROES, ID_BYTES, RequestType, SECTOR,
    SEGMENT_SECTORS, SEGMENTS, status,
};
use chiton_shared::virtio::id;
use chiton_shared::virtio::ring::Chain;

use super::buffers::Windows;
use super::{Device, DeviceError, Interest, Limiter, Limits, Progress, Rate, Ring};
use request::{Refused, Request, status_byte};
use segments::Segments;

/// Size of the queue: 128 requests of one indirect descriptor each in flight.
const QUEUE_SIZE: u16 = 128;

/// How many bytes one call moves at most, so that large requests leave others their turn.
const BYTES_PER_CALL: usize = 4 << 20;

/// What a flush counts as: it may take as long as writing so many bytes.
const FLUSH_COST: usize = 1 << 20;

/// What the sectors are kept in. Offsets are bytes, and windows of any length and number up to 64
/// follow one another there; what they name lies within the capacity.
pub trait Disk: Send {
    /// Capacity, in sectors of 512 bytes. It does not change.
    fn sectors(&self) -> u64;

    /// Whether writing is not allowed. It does not change.
    fn is_read_only(&self) -> bool;

    /// A name: up to 20 bytes of ASCII, the rest zero.
    fn name(&self) -> [u8; ID_BYTES];

    /// Fills all of the windows from byte `offset` on.
    ///
    /// # Errors
    ///
    /// If not all could be read. What the windows then hold does not matter.
    fn read_at(&mut self, offset: u64, to: &[Window<'_>]) -> Result<(), DiskError>;

    /// Writes all of the windows from byte `offset` on.
    ///
    /// # Errors
    ///
    /// If not all could be written. Which part was does not matter.
    fn write_at(&mut self, offset: u64, from: &[Window<'_>]) -> Result<(), DiskError>;

    /// Makes durable what was written.
    ///
    /// # Errors
    ///
    /// If what was written may be lost.
    fn flush(&mut self) -> Result<(), DiskError>;

    /// The `len` bytes from `offset` on, whole sectors, are not needed any more: what they read as
    /// from now on is up to the disk.
    ///
    /// # Errors
    ///
    /// If the disk failed; not if it has no use for the hint.
    fn discard(&mut self, offset: u64, len: u64) -> Result<(), DiskError>;

    /// Fills the `len` bytes from `offset` on, whole sectors, with zeros; with `unmap` their place
    /// need not be kept.
    ///
    /// # Errors
    ///
    /// If not all read as zero now. Which part does is of no matter.
    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> Result<(), DiskError>;
}

/// A disk could not do as told. The guest learns no more than that; who implements a disk logs
/// the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disk failed")]
pub struct DiskError;

/// The block device.
pub struct Block<D> {
    disk: D,
    chain: Box<Chain>,
    /// The request in `chain`, if one is not finished.
    current: Option<Request>,
    /// What a discard or a fill with zeros has left to do.
    segments: Segments,
    /// Whether each write is made durable before it completes, for a driver that cannot flush
    /// (section 5.2.6.2, condition 1).
    writethrough: bool,
    limited: Option<Limited>,
    /// What limits go by, given with the first ones.
    clock: Option<fn() -> u64>,
    failures: u64,
}

/// A rate limit, and the clock it goes by.
struct Limited {
    limits: Limits,
    limiter: Limiter,
    now: fn() -> u64,
    /// When to go on, if the limit has been reached.
    again: Option<u64>,
}

impl Limited {
    /// Whether so much may be done now; if not, notes when.
    fn allows(&mut self, ops: u64, bytes: u64) -> bool {
        self.again = self.limiter.wait(ops, bytes, (self.now)());
        self.again.is_none()
    }

    fn take(&mut self, ops: u64, bytes: u64) {
        // It was allowed just now, and time does not run backwards.
        let _ = self.limiter.take(ops, bytes, (self.now)());
    }
}

impl<D: Disk> Block<D> {
    /// A block device on this disk.
    #[must_use]
    pub fn new(disk: D) -> Self {
        Self {
            disk,
            chain: Box::default(),
            current: None,
            segments: Segments::default(),
            writethrough: false,
            limited: None,
            clock: None,
            failures: 0,
        }
    }

    /// With these limits, by this clock: nanoseconds that never run backwards. Reads, writes and
    /// fills with zeros count as bytes, requests of every kind as operations. The burst of bytes
    /// is a sector at least.
    #[must_use]
    pub fn limited(mut self, limits: Limits, now: fn() -> u64) -> Self {
        self.clock = Some(now);
        self.set_limits(limits);
        self
    }

    /// How many of these bytes may be moved now, in whole sectors unless that is all of them; 0 if
    /// the limit has been reached.
    fn allowed(&mut self, bytes: usize) -> usize {
        let Some(limited) = &mut self.limited else {
            return bytes;
        };
        let most = usize::try_from(limited.limiter.most_bytes() / SECTOR * SECTOR).unwrap_or(usize::MAX);
        let bytes = bytes.min(most);
        if limited.allows(0, bytes as u64) { bytes } else { 0 }
    }

    fn take(&mut self, ops: u64, bytes: usize) {
        if let Some(limited) = &mut self.limited {
            limited.take(ops, bytes as u64);
        }
    }

    fn waits(&self) -> bool {
        self.limited.as_ref().is_some_and(|limited| limited.again.is_some())
    }

    /// Goes on with a request until it is done or the budget is spent.
    fn advance<'m>(
        &mut self,
        request: &mut Request,
        memory: &'m (dyn GuestMemory + 'm),
        windows: &mut Windows<'m>,
        budget: &mut usize,
    ) -> Result<(), Refused> {
        if matches!(request.kind, RequestType::Discard | RequestType::WriteZeroes) {
            self.erase(request, budget)?;
        }
        while request.left > 0 && *budget > 0 {
            let mut len = (request.left as usize).min(*budget);
            if request.kind != RequestType::GetId {
                len = self.allowed(len);
            }
            if len == 0 {
                return Ok(());
            }
            let buffers = if request.kind == RequestType::Write {
                self.chain.readable()
            } else {
                self.chain.writable()
            };
            request.cursor.gather(buffers, memory, len, windows)?;
            match request.kind {
                RequestType::Read => self.disk.read_at(request.offset, windows.as_slice())?,
                RequestType::Write => self.disk.write_at(request.offset, windows.as_slice())?,
                RequestType::GetId => {
                    windows.write(self.disk.name().get(request.filled as usize..).unwrap_or_default());
                }
                // These move no data; `left` of an unfinished one is met by the caller.
                RequestType::Flush | RequestType::Discard | RequestType::WriteZeroes => return Ok(()),
            }
            if request.kind != RequestType::GetId {
                self.take(0, windows.bytes());
            }
            request.moved(&self.chain, windows.bytes());
            *budget -= windows.bytes();
        }
        let flush = match request.kind {
            RequestType::Flush => true,
            RequestType::Write | RequestType::WriteZeroes => self.writethrough && request.left == 0,
            RequestType::Read | RequestType::GetId | RequestType::Discard => false,
        };
        if flush {
            self.disk.flush()?;
            *budget = budget.saturating_sub(FLUSH_COST);
        }
        Ok(())
    }

    /// Nothing waits any more; the buckets stay as they are.
    fn forget_the_limit(&mut self) {
        if let Some(limited) = &mut self.limited {
            limited.again = None;
        }
    }

    /// Goes on with a discard or a fill with zeros.
    fn erase(&mut self, request: &mut Request, budget: &mut usize) -> Result<(), Refused> {
        while *budget > 0 && self.segments.left() > 0 {
            let mut len = self.segments.len_of_next().min(BYTES_PER_CALL as u64) as usize;
            if request.kind == RequestType::WriteZeroes {
                len = self.allowed(len);
                if len == 0 {
                    break;
                }
                self.take(0, len);
            }
            let Some(piece) = self.segments.next(len as u64) else {
                break;
            };
            if request.kind == RequestType::Discard {
                self.disk.discard(piece.offset, piece.len)?;
                *budget = budget.saturating_sub(FLUSH_COST);
            } else {
                self.disk.write_zeroes(piece.offset, piece.len, piece.unmap)?;
                *budget = budget.saturating_sub(piece.len as usize);
            }
        }
        request.left = self.segments.left();
        Ok(())
    }
}

impl<D: Disk> Device for Block<D> {
    fn id(&self) -> u32 {
        id::BLOCK
    }

    fn features(&self) -> u64 {
        let writes = if self.disk.is_read_only() {
            F_RO
        } else {
            F_DISCARD | F_WRITE_ZEROES
        };
        F_SEG_MAX | F_BLK_SIZE | F_FLUSH | writes
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let config = Config {
            capacity: self.disk.sectors(),
            // A request also has a header and a status.
            seg_max: u32::from(QUEUE_SIZE) - 2,
            blk_size: SECTOR as u32,
            max_discard_sectors: SEGMENT_SECTORS,
            max_discard_seg: SEGMENTS as u32,
            // Less frees nothing, where blocks have 4 KiB.
            discard_sector_alignment: 8,
            max_write_zeroes_sectors: SEGMENT_SECTORS,
            max_write_zeroes_seg: SEGMENTS as u32,
            write_zeroes_may_unmap: 1,
            ..Config::default()
        };
        super::read_bytes(&config.to_bytes(), offset, data);
    }

    fn negotiated(&mut self, features: u64) {
        self.writethrough = features & F_FLUSH == 0;
    }

    fn process(&mut self, _queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let memory = ring.memory();
        let mut windows = Windows::new();
        let mut budget = BYTES_PER_CALL;
        for _ in 0..QUEUE_SIZE {
            let begun = self.current.take();
            if begun.is_none() {
                if self.limited.as_mut().is_some_and(|limited| !limited.allows(1, 0)) {
                    return Ok(Progress::Waiting);
                }
                if !ring.pop(&mut self.chain)? {
                    return Ok(Progress::Drained);
                }
                self.take(1, 0);
            }
            let status_byte = status_byte(&self.chain, memory)?;
            let request = match begun {
                Some(request) => Ok(request),
                None => Request::parse(&self.chain, &self.disk, memory, &mut windows, &mut self.segments),
            };
            let (status, filled) = match request {
                Ok(mut request) => {
                    let result = self.advance(&mut request, memory, &mut windows, &mut budget);
                    if result.is_ok() && request.left > 0 {
                        self.current = Some(request);
                        return Ok(if self.waits() {
                            Progress::Waiting
                        } else {
                            Progress::More
                        });
                    }
                    (
                        result.map_or_else(|Refused(status)| status, |()| status::OK),
                        request.filled,
                    )
                }
                Err(Refused(status)) => (status, 0),
            };
            self.failures += u64::from(status != status::OK);
            status_byte.write(0, &[status]);
            // The used length counts from the first writable byte on (section 2.7.8.2): the
            // status belongs to it only if nothing before it was left out.
            let whole = u64::from(filled) + 1 == self.chain.writable_bytes();
            ring.push(self.chain.head(), filled + u32::from(whole));
            if budget == 0 {
                break;
            }
        }
        Ok(Progress::More)
    }

    fn interest(&self) -> Interest {
        Interest {
            at: self.limited.as_ref().and_then(|limited| limited.again),
            ..Interest::default()
        }
    }

    fn stop(&mut self, _queue: usize) {
        self.current = None;
        self.forget_the_limit();
    }

    fn reset(&mut self) {
        self.current = None;
        self.forget_the_limit();
        self.writethrough = false;
    }

    fn failures(&self) -> u64 {
        self.failures
    }

    fn set_limits(&mut self, limits: Limits) -> bool {
        let Some(now) = self.clock else { return false };
        let limits = Limits {
            bytes: limits.bytes.map(|rate: Rate| rate.at_least(SECTOR)),
            ..limits
        };
        self.limited = (!limits.is_none()).then(|| Limited {
            limits,
            limiter: Limiter::new(limits),
            now,
            again: None,
        });
        true
    }

    fn limits(&self) -> Option<Limits> {
        self.clock
            .map(|_| self.limited.as_ref().map(|limited| limited.limits).unwrap_or_default())
    }
}
