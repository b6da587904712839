//! The block driver (virtio 1.3 section 5.2).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use chiton_shared::patience::Patience;
use chiton_shared::virtio::block::{
    Config, F_DISCARD, F_FLUSH, F_RO, F_WRITE_ZEROES, ID_BYTES, RequestHeader, RequestType, SECTOR, SEGMENT_SECTORS,
    Segment, status,
};
use chiton_shared::virtio::feature;
use chiton_shared::virtio::ring::{Buffer, MAX_SIZE};

use super::DiskError;
use super::slots::{BUFFERS, Slots};
use crate::host::Host;
use crate::queue::{Exits, Queue};

/// The most sectors that one request can have.
pub(super) const MAX_SECTORS: u64 = (1 << 30) / SECTOR;

/// Names a request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A request that is done.
#[derive(Debug)]
pub struct Completion {
    /// The request.
    pub ticket: Ticket,
    /// Its first sector.
    pub sector: u64,
    /// Its buffer.
    pub buffer: Vec<u8>,
    /// How it ended; unless well, the buffer of a read holds anything.
    pub result: Result<(), DiskError>,
}

/// A request that was not accepted, with its buffer.
pub struct Rejected {
    /// Why not.
    pub error: DiskError,
    /// The buffer, as it was handed over.
    pub buffer: Vec<u8>,
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl From<Rejected> for DiskError {
    fn from(rejected: Rejected) -> Self {
        rejected.error
    }
}

/// What a slot is in use for.
#[derive(Debug)]
enum Pending {
    /// Someone sleeps until it is done, and lends the memory until then.
    Lent,
    /// A request with a buffer of its own.
    Owned {
        ticket: Ticket,
        sector: u64,
        buffer: Vec<u8>,
    },
}

/// A driver for one disk.
#[derive(Debug)]
pub struct Driver<'m, H: Host> {
    queue: Queue<'m, H>,
    sectors: u64,
    read_only: bool,
    can_flush: bool,
    features: u64,
    indirect: bool,
    slots: Slots<'m>,
    pending: Vec<Option<Pending>>,
    free: Vec<usize>,
    /// How many requests to sleep for at once.
    gather: u16,
    /// The slot of the chain with this head.
    owner: [u16; MAX_SIZE as usize],
    /// What completed while someone slept for something else.
    done: VecDeque<Completion>,
    next_ticket: u64,
    /// How long to look for a completion before sleeping for it.
    patience: Patience,
}

impl<'m, H: Host> Driver<'m, H> {
    /// A driver for the device with this queue, configuration and features, with so many requests
    /// in flight as there are slots, or as the queue holds.
    ///
    /// # Errors
    ///
    /// [`DiskError::Configuration`].
    pub fn new(queue: Queue<'m, H>, config: &[u8], features: u64, slots: Slots<'m>) -> Result<Self, DiskError> {
        let config = Config::from_bytes(config).ok_or(DiskError::Configuration)?;
        let indirect = features & feature::INDIRECT_DESC != 0;
        let descriptors = if indirect { 1 } else { BUFFERS };
        let depth = slots.count().min(usize::from(queue.size()) / descriptors);
        let patience = Patience::new(queue.host().look_ns());
        Ok(Self {
            queue,
            sectors: config.capacity,
            read_only: features & F_RO != 0,
            can_flush: features & F_FLUSH != 0,
            features,
            // A table may not be longer than its queue (virtio 1.3 section 2.7.5.3.1).
            indirect,
            slots,
            pending: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            owner: [0; MAX_SIZE as usize],
            done: VecDeque::new(),
            next_ticket: 0,
            patience,
            gather: 1,
        })
    }

    /// Size of the disk, in sectors of [`SECTOR`] bytes.
    #[must_use]
    pub const fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether it cannot be written.
    #[must_use]
    pub const fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether its queue is packed (virtio 1.3 section 2.8), and not split.
    #[must_use]
    pub const fn is_packed(&self) -> bool {
        self.features & feature::RING_PACKED != 0
    }

    /// How many requests can be in flight.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.pending.len()
    }

    /// How many requests have been submitted and not taken back.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len() - self.free.len() + self.done.len()
    }

    /// How often the driver rang so far.
    #[must_use]
    pub const fn exits(&self) -> Exits {
        self.queue.exits()
    }

    /// Reads whole sectors from `sector` on, and sleeps until that is done.
    ///
    /// # Errors
    ///
    /// Any [`DiskError`] but those of opening; the buffer then holds anything.
    pub fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), DiskError> {
        self.check(sector, to.len())?;
        let mut sector = sector;
        for piece in to.chunks_mut((MAX_SECTORS * SECTOR) as usize) {
            let data = Buffer::writable(piece.as_mut_ptr().expose_provenance() as u64, piece.len() as u32);
            // SAFETY: the piece is borrowed until the call returns.
            unsafe { self.run(RequestType::Read, sector, Some(data)) }?;
            sector += MAX_SECTORS;
        }
        Ok(())
    }

    /// Writes whole sectors from `sector` on, and sleeps until that is done. It is durable after
    /// the next [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// Any [`DiskError`] but those of opening; the sectors then hold anything.
    pub fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), DiskError> {
        self.check_writable()?;
        self.check(sector, from.len())?;
        let mut sector = sector;
        for piece in from.chunks((MAX_SECTORS * SECTOR) as usize) {
            let data = Buffer::readable(piece.as_ptr().expose_provenance() as u64, piece.len() as u32);
            // SAFETY: the piece is borrowed until the call returns.
            unsafe { self.run(RequestType::Write, sector, Some(data)) }?;
            sector += MAX_SECTORS;
        }
        Ok(())
    }

    /// Makes durable every write that completed before, and sleeps until that is done.
    ///
    /// # Errors
    ///
    /// [`DiskError::Failed`] if what was written may be lost; [`DiskError::Device`].
    pub fn flush(&mut self) -> Result<(), DiskError> {
        // A device without the feature makes each write durable (section 5.2.6.2).
        if self.read_only || !self.can_flush {
            return Ok(());
        }
        // SAFETY: there is no buffer.
        unsafe { self.run(RequestType::Flush, 0, None) }
    }

    /// Tells the host that it need not keep these sectors, and sleeps until it knows. What they
    /// read as from then on is up to the host.
    ///
    /// # Errors
    ///
    /// [`DiskError::Unsupported`] if the device cannot do that, and as [`write`](Self::write).
    pub fn discard(&mut self, sector: u64, count: u64) -> Result<(), DiskError> {
        self.erase(RequestType::Discard, F_DISCARD, sector, count, 0)
    }

    /// Fills sectors with zeros, and sleeps until that is done. With `unmap` the host need not
    /// keep their place. It is durable after the next [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// As [`discard`](Self::discard).
    pub fn write_zeroes(&mut self, sector: u64, count: u64, unmap: bool) -> Result<(), DiskError> {
        let flags = if unmap { Segment::UNMAP } else { 0 };
        self.erase(RequestType::WriteZeroes, F_WRITE_ZEROES, sector, count, flags)
    }

    fn erase(&mut self, kind: RequestType, feature: u64, sector: u64, count: u64, flags: u32) -> Result<(), DiskError> {
        self.check_writable()?;
        if self.features & feature == 0 {
            return Err(DiskError::Unsupported);
        }
        self.check_range(sector, count)?;
        let (mut sector, end) = (sector, sector + count);
        while sector < end {
            let count = (end - sector).min(SEGMENT_SECTORS.into()) as u32;
            let segment = Segment { sector, count, flags }.to_bytes();
            let data = Buffer::readable(segment.as_ptr().expose_provenance() as u64, Segment::SIZE as u32);
            // SAFETY: the segment lives until the call returns.
            unsafe { self.run(kind, 0, Some(data)) }?;
            sector += u64::from(count);
        }
        Ok(())
    }

    /// The disk's name as the host gave it, padded with zeros.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush); [`DiskError::Unsupported`].
    pub fn name(&mut self) -> Result<[u8; ID_BYTES], DiskError> {
        let mut name = [0; ID_BYTES];
        let data = Buffer::writable(name.as_mut_ptr().expose_provenance() as u64, ID_BYTES as u32);
        // SAFETY: the buffer lives until the call returns.
        unsafe { self.run(RequestType::GetId, 0, Some(data)) }?;
        Ok(name)
    }

    /// Submits a read of as many whole sectors as fill the buffer. It starts at the next
    /// [`kick`](Self::kick) or [`wait`](Self::wait).
    ///
    /// # Errors
    ///
    /// [`Rejected`], with the buffer: any [`DiskError`] but those of opening.
    pub fn submit_read(&mut self, sector: u64, mut buffer: Vec<u8>) -> Result<Ticket, Rejected> {
        let data = Buffer::writable(buffer.as_mut_ptr().expose_provenance() as u64, buffer.len() as u32);
        match self.check(sector, buffer.len()) {
            Ok(()) => self.submit(RequestType::Read, sector, data, buffer),
            Err(error) => Err(Rejected { error, buffer }),
        }
    }

    /// Submits a write of the buffer, as [`submit_read`](Self::submit_read) does a read.
    ///
    /// # Errors
    ///
    /// [`Rejected`], with the buffer: any [`DiskError`] but those of opening.
    pub fn submit_write(&mut self, sector: u64, buffer: Vec<u8>) -> Result<Ticket, Rejected> {
        let data = Buffer::readable(buffer.as_ptr().expose_provenance() as u64, buffer.len() as u32);
        match self.check_writable().and_then(|()| self.check(sector, buffer.len())) {
            Ok(()) => self.submit(RequestType::Write, sector, data, buffer),
            Err(error) => Err(Rejected { error, buffer }),
        }
    }

    /// Starts what was submitted, with one kick at the most.
    pub fn kick(&mut self) {
        self.queue.kick();
    }

    /// A request that is done, if there is one.
    ///
    /// # Errors
    ///
    /// [`DiskError::Device`].
    pub fn poll(&mut self) -> Result<Option<Completion>, DiskError> {
        loop {
            if let Some(completion) = self.done.pop_front() {
                return Ok(Some(completion));
            }
            let Some((head, _)) = self.queue.take()? else {
                return Ok(None);
            };
            self.complete(head);
        }
    }

    /// From now on whoever waits kicks and looks for so long whether something is done before sleeping; each look in
    /// vain is followed by some waits without. A look for as long as a sleep costs pays where another thread of the host
    /// serves the disk meanwhile. The processor is busy all the while.
    ///
    /// Without this it is as the host says, which has such a thread with `--io-thread`; else there is no look.
    pub fn look_before_sleeping(&mut self, time: Duration) {
        self.patience = Patience::new(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// From now on [`wait`](Self::wait), if nothing is done yet, sleeps until so many requests are, or
    /// all if fewer are in flight: one exit for as many. The first of them is heard of later.
    pub const fn gather(&mut self, count: u16) {
        self.gather = count;
    }

    /// A request that is done, after starting what was submitted and sleeping until one is.
    ///
    /// # Errors
    ///
    /// [`DiskError::Idle`] if nothing was submitted; [`DiskError::Device`].
    pub fn wait(&mut self) -> Result<Completion, DiskError> {
        loop {
            if let Some(completion) = self.done.pop_front() {
                return Ok(completion);
            }
            if self.in_flight() == 0 {
                return Err(DiskError::Idle);
            }
            let count = self.gather.min(self.in_flight() as u16);
            self.complete_next(count)?;
        }
    }

    /// Completes a request after starting what was submitted, sleeping if need be until `count` are done.
    fn complete_next(&mut self, count: u16) -> Result<(), DiskError> {
        let head = match self.queue.take()? {
            Some((head, _)) => head,
            None => match self.look()? {
                Some(head) => head,
                None => self.queue.wait_for(count)?.0,
            },
        };
        self.complete(head);
        Ok(())
    }

    /// Looks for a request that is done, for as long as that is worth it.
    fn look(&mut self) -> Result<Option<u16>, DiskError> {
        let ns = self.patience.for_how_long();
        if ns == 0 {
            return Ok(None);
        }
        let taken = self.queue.look(ns)?;
        if taken.is_some() {
            self.patience.found();
        } else {
            self.patience.in_vain();
        }
        Ok(taken.map(|(head, _)| head))
    }

    /// Resets the disk's queue (virtio 1.3 section 2.6.1), and nothing else of the disk: everything in flight is
    /// done, and can be taken back. What the disk had not finished ended with [`DiskError::TakenBack`].
    ///
    /// # Errors
    ///
    /// [`DiskError::Device`], with [`QueueError::NoReset`](crate::queue::QueueError::NoReset) if the disk cannot do
    /// that.
    pub fn reset_queue(&mut self) -> Result<(), DiskError> {
        let mut back = Vec::with_capacity(self.pending.len());
        let reset = self.queue.reset(|head, written| back.push((head, written.is_some())));
        for (head, finished) in back {
            self.complete_as(head, finished);
        }
        Ok(reset?)
    }

    /// Has [`time::wait`](crate::time::wait) return when a request is done, and tells whether one
    /// is already.
    pub fn arm(&mut self) -> bool {
        !self.done.is_empty() || self.queue.arm()
    }

    /// From now on the interrupt of the disk's queue comes to the processor that calls, which halts for it in
    /// [`wait`](Self::wait) and wherever else the driver sleeps, if processors
    /// [halt](crate::interrupts::idle) here. Without interrupts nothing changes.
    pub fn bind(&mut self) {
        self.queue.bind();
    }

    fn check_writable(&self) -> Result<(), DiskError> {
        if self.read_only {
            Err(DiskError::ReadOnly)
        } else {
            Ok(())
        }
    }

    fn check(&self, sector: u64, bytes: usize) -> Result<(), DiskError> {
        let len = bytes as u64;
        if len == 0 || !len.is_multiple_of(SECTOR) {
            return Err(DiskError::Length(bytes));
        }
        self.check_range(sector, len / SECTOR)
    }

    fn check_range(&self, sector: u64, count: u64) -> Result<(), DiskError> {
        if sector.checked_add(count).is_none_or(|end| end > self.sectors) {
            return Err(DiskError::Range {
                sector,
                count,
                sectors: self.sectors,
            });
        }
        Ok(())
    }

    fn submit(&mut self, kind: RequestType, sector: u64, data: Buffer, buffer: Vec<u8>) -> Result<Ticket, Rejected> {
        if buffer.len() as u64 > MAX_SECTORS * SECTOR {
            return Err(Rejected {
                error: DiskError::Length(buffer.len()),
                buffer,
            });
        }
        // SAFETY: the buffer's memory stays where it is while it is kept in `pending`, untouched,
        // until the chain comes back or the queue is given up.
        match unsafe { self.start(kind, sector, Some(data)) } {
            Ok(slot) => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                self.pending[slot] = Some(Pending::Owned { ticket, sector, buffer });
                Ok(ticket)
            }
            Err(error) => Err(Rejected { error, buffer }),
        }
    }

    /// Runs a request to its end.
    ///
    /// # Safety
    ///
    /// The data must be memory that nobody accesses before the call returns.
    unsafe fn run(&mut self, kind: RequestType, sector: u64, data: Option<Buffer>) -> Result<(), DiskError> {
        while self.free.is_empty() {
            self.complete_next(1)?;
        }
        // SAFETY: the caller's promise, and this call returns when the request is done or the
        // queue is given up.
        let slot = unsafe { self.start(kind, sector, data) }?;
        while self.pending[slot].is_some() {
            self.complete_next(1)?;
        }
        self.result(slot)
    }

    /// Makes a request available.
    ///
    /// # Safety
    ///
    /// The data must stay memory that nobody accesses until the request is complete or the queue
    /// is given up.
    unsafe fn start(&mut self, kind: RequestType, sector: u64, data: Option<Buffer>) -> Result<usize, DiskError> {
        let slot = *self.free.last().ok_or(DiskError::Full(self.pending.len()))?;
        let header = RequestHeader {
            kind: kind as u32,
            reserved: 0,
            sector,
        };
        let (header, status) = self.slots.begin(slot, header);
        let with_data;
        let buffers: &[Buffer] = match data {
            Some(data) => {
                with_data = [header, data, status];
                &with_data
            }
            None => &[header, status],
        };
        let (table, address) = self.slots.table(slot);
        // SAFETY: the caller's promise for the data; header, status and table are the slot's,
        // which is not free until the chain comes back.
        let head = unsafe {
            if self.indirect {
                self.queue.add_indirect(table, address, buffers)
            } else {
                self.queue.add(buffers)
            }
        }?;
        self.free.pop();
        self.owner[usize::from(head)] = slot as u16;
        self.pending[slot] = Some(Pending::Lent);
        Ok(slot)
    }

    fn complete(&mut self, head: u16) {
        self.complete_as(head, true);
    }

    fn complete_as(&mut self, head: u16, finished: bool) {
        let slot = usize::from(self.owner[usize::from(head)]);
        self.free.push(slot);
        if let Some(Pending::Owned { ticket, sector, buffer }) = self.pending[slot].take() {
            self.done.push_back(Completion {
                ticket,
                sector,
                buffer,
                result: if finished {
                    self.result(slot)
                } else {
                    Err(DiskError::TakenBack)
                },
            });
        }
    }

    /// How the last request in this slot ended.
    fn result(&self, slot: usize) -> Result<(), DiskError> {
        match self.slots.status(slot) {
            status::OK => Ok(()),
            status::IOERR => Err(DiskError::Failed),
            status::UNSUPP => Err(DiskError::Unsupported),
            other => Err(DiskError::Status(other)),
        }
    }
}

impl<H: Host> Drop for Driver<'_, H> {
    /// The device may still be writing into buffers that end here.
    fn drop(&mut self) {
        if self.pending.iter().any(Option::is_some) {
            self.queue.give_up();
        }
    }
}
