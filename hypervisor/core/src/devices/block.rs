//! Block device (virtio 1.3 section 5.2): a disk of 512-byte sectors.
//!
//! A request is read as a stream of bytes, however the driver cut it into descriptors (section
//! 2.7.4): the first 16 readable bytes are the header, the last writable byte is the status, and
//! the data are what is between.
//!
//! ```text
//!  pop ─▶ Request::parse ─▶ step, step, … ──────────▶ status byte, push
//!              │ refused     │ one bounded piece a call      ▲
//!              ├─────────────┼───────────────────────────────┤
//!              │             ▼ the last piece                │
//!              │         Disk::begin ─▶ Flight ─▶ Disk::complete
//! ```
//!
//! What the disk has begun ends in any order, which virtio allows (section 5.2.6.2), so requests
//! are given back in another order than they came. A flush begins when it is taken: it covers all
//! writes that the driver knew to be complete then.
//!
//! When the driver stops a queue or resets the device, that write of a register waits until the
//! disk has nothing under way: from then on the disk touches none of the guest's buffers.

mod backend;
mod disk;
mod flights;
mod request;
mod segments;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod late_tests;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use chiton_shared::virtio::block::{
    Config, F_BLK_SIZE, F_DISCARD, F_FLUSH, F_MQ, F_RO, F_SEG_MAX, F_WRITE_ZEROES, SECTOR, SEGMENT_SECTORS, SEGMENTS,
    status,
};
use chiton_shared::virtio::id;
use chiton_shared::virtio::ring::{Buffer, Chain};

use super::buffers::{Windows, window};
use super::{Device, DeviceError, Interest, Limiter, Limits, NotSaved, Progress, Rate, Ring};
use crate::state::{Reader, StateError, Writer};
use backend::{Backend, Limited, Step};
pub use disk::{Begun, Disk, DiskError, Operation};
pub use flights::IN_FLIGHT;
use flights::{Flight, Flights};
use request::{Refused, Request, status_buffer};
use segments::Segments;

/// Size of each queue: 128 requests of one indirect descriptor each in flight.
const QUEUE_SIZE: u16 = 128;

/// The most queues that a disk can have.
pub const MAX_QUEUES: usize = 32;

/// How many bytes one call moves at most, unless said, so that large requests leave others their turn.
const BYTES_PER_CALL: usize = 4 << 20;

/// What a flush counts as: it may take as long as writing so many bytes.
const FLUSH_COST: usize = 1 << 20;

/// The block device.
pub struct Block<D> {
    backend: Backend<D>,
    /// One for each queue.
    lanes: Vec<Lane>,
    flights: Flights,
    failures: u64,
    /// How many bytes one call moves at most.
    budget: usize,
}

/// What there is of each queue.
#[derive(Default)]
struct Lane {
    chain: Box<Chain>,
    /// The request in `chain`, if one is not finished.
    current: Option<Request>,
    /// What a discard or a fill with zeros has left to do.
    segments: Segments,
    /// When to go on, if the limit has been reached.
    again: Option<u64>,
    /// How many of its requests are in flight.
    in_flight: u16,
    /// Those of them that the disk has finished, with their status; the driver does not know yet.
    landed: VecDeque<(u16, u8)>,
}

impl<D: Disk> Block<D> {
    /// A block device of one queue on this disk.
    #[must_use]
    pub fn new(disk: D) -> Self {
        Self {
            backend: Backend {
                disk,
                writethrough: false,
                limited: None,
                clock: None,
            },
            lanes: vec![Lane::default()],
            flights: Flights::default(),
            failures: 0,
            budget: BYTES_PER_CALL,
        }
    }

    /// With so many queues: 1 to [`MAX_QUEUES`], else the nearest of them.
    #[must_use]
    pub fn queues(mut self, count: usize) -> Self {
        self.lanes.resize_with(count.clamp(1, MAX_QUEUES), Lane::default);
        self
    }

    /// A call moves so many bytes at the most, a sector at least. What a call has done the driver sees when it is over.
    #[must_use]
    pub fn moving(mut self, bytes: usize) -> Self {
        self.budget = bytes.max(SECTOR as usize);
        self
    }

    /// With these limits, by this clock: nanoseconds that never run backwards. Reads, writes and
    /// fills with zeros count as bytes, requests of every kind as operations. The burst of bytes
    /// is a sector at least.
    #[must_use]
    pub fn limited(mut self, limits: Limits, now: fn() -> u64) -> Self {
        self.backend.clock = Some(now);
        self.set_limits(limits);
        self
    }

    /// Takes requests from the queue, and does or begins them.
    fn work(&mut self, queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let memory = ring.memory();
        let mut windows = Windows::new();
        let mut budget = self.budget;
        // No queue takes the places of the others.
        let share = IN_FLIGHT / self.lanes.len() as u16;
        let lane = &mut self.lanes[queue];
        lane.again = None;
        for _ in 0..QUEUE_SIZE {
            let Some(tag) = self.flights.next().filter(|_| lane.in_flight < share) else {
                return Ok(Progress::Waiting);
            };
            let begun = lane.current.take();
            if begun.is_none() {
                if let Err(at) = self.backend.may_begin() {
                    lane.again = Some(at);
                    return Ok(Progress::Waiting);
                }
                if !ring.pop(&mut lane.chain)? {
                    return Ok(Progress::Drained);
                }
                self.backend.count();
            }
            let status = status_buffer(&lane.chain, memory)?;
            let (head, room) = (lane.chain.head(), lane.chain.writable_bytes());
            let request = match begun {
                Some(request) => Ok(request),
                None => Request::parse(
                    &lane.chain,
                    &self.backend.disk,
                    memory,
                    &mut windows,
                    &mut lane.segments,
                ),
            };
            let (step, filled) = match request {
                Ok(mut request) => {
                    let work = (&*lane.chain, &mut lane.segments);
                    let step = self
                        .backend
                        .step(&mut request, work, tag, memory, &mut windows, &mut budget);
                    if let Ok(Step::Unfinished | Step::Limited(_)) = step {
                        lane.current = Some(request);
                    }
                    (step, request.filled)
                }
                Err(refused) => (Err(refused), 0),
            };
            match step {
                Ok(Step::Done) => answer(ring, &status, head, room, status::OK, filled)?,
                Err(Refused(code)) => {
                    self.failures += 1;
                    answer(ring, &status, head, room, code, filled)?;
                }
                Ok(Step::Begun { fills }) => {
                    lane.in_flight += 1;
                    self.flights.add(Flight {
                        queue,
                        head,
                        status,
                        room,
                        filled,
                        fills,
                    });
                }
                Ok(Step::Unfinished) => return Ok(Progress::More),
                Ok(Step::Limited(at)) => {
                    lane.again = Some(at);
                    return Ok(Progress::Waiting);
                }
            }
            if budget == 0 {
                break;
            }
        }
        // The last request may have used up what a call moves: nobody need come back for nothing.
        Ok(if ring.has_available() {
            Progress::More
        } else {
            Progress::Drained
        })
    }

    /// Notes which requests the disk has finished.
    fn reap(&mut self) {
        while let Some((tag, result)) = self.backend.disk.complete() {
            let status = result.map_or(status::IOERR, |()| status::OK);
            if let Some(queue) = self.flights.land(tag) {
                self.lanes[queue].landed.push_back((tag, status));
            }
        }
    }

    /// Gives back what the disk has finished of this queue.
    fn give_back(&mut self, queue: usize, ring: &mut Ring<'_, '_>) -> Result<(), DeviceError> {
        let lane = &mut self.lanes[queue];
        while let Some((tag, code)) = lane.landed.pop_front() {
            lane.in_flight -= 1;
            let Some(flight) = self.flights.remove(tag) else {
                continue;
            };
            let fills = if code == status::OK { flight.fills } else { 0 };
            self.failures += u64::from(code != status::OK);
            answer(
                ring,
                &flight.status,
                flight.head,
                flight.room,
                code,
                flight.filled + fills,
            )?;
        }
        Ok(())
    }

    /// The driver has taken this queue away: waits until the disk touches none of its buffers.
    fn forget(&mut self, queue: usize) {
        let lane = &mut self.lanes[queue];
        (lane.current, lane.again) = (None, None);
        if lane.in_flight == 0 {
            return;
        }
        while self.flights.under_way() > 0 {
            self.backend.disk.wait();
            self.reap();
        }
        let lane = &mut self.lanes[queue];
        for (tag, _) in lane.landed.drain(..) {
            self.flights.remove(tag);
        }
        lane.in_flight = 0;
    }
}

/// Writes a request's status and gives its chain back, of which the device has written `filled`
/// bytes of data.
fn answer(
    ring: &mut Ring<'_, '_>,
    status: &Buffer,
    head: u16,
    room: u64,
    code: u8,
    filled: u32,
) -> Result<(), DeviceError> {
    window(status, 0, 1, ring.memory())?.write(0, &[code]);
    // The used length counts from the first writable byte on (section 2.7.8.2): the status belongs
    // to it only if nothing before it was left out.
    let whole = u64::from(filled) + 1 == room;
    ring.push(head, filled + u32::from(whole));
    Ok(())
}

impl<D: Disk> Device for Block<D> {
    fn id(&self) -> u32 {
        id::BLOCK
    }

    fn features(&self) -> u64 {
        let writes = if self.backend.disk.is_read_only() {
            F_RO
        } else {
            F_DISCARD | F_WRITE_ZEROES
        };
        let queues = if self.lanes.len() > 1 { F_MQ } else { 0 };
        F_SEG_MAX | F_BLK_SIZE | F_FLUSH | writes | queues
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; MAX_QUEUES][..self.lanes.len()]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let config = Config {
            capacity: self.backend.disk.sectors(),
            // A request also has a header and a status.
            seg_max: u32::from(QUEUE_SIZE) - 2,
            blk_size: SECTOR as u32,
            num_queues: self.lanes.len() as u16,
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
        self.backend.writethrough = features & F_FLUSH == 0;
    }

    fn process(&mut self, queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        self.reap();
        self.give_back(queue, ring)?;
        let progress = self.work(queue, ring);
        self.backend.disk.submit();
        // What was in the host's memory is done by now.
        self.reap();
        let full = progress == Ok(Progress::Waiting) && self.lanes[queue].again.is_none();
        let landed = !self.lanes[queue].landed.is_empty();
        self.give_back(queue, ring)?;
        if full && landed {
            return Ok(Progress::More);
        }
        progress
    }

    fn interest(&self) -> Interest {
        let limits = self.lanes.iter().filter_map(|lane| lane.again);
        // What has landed of a queue while another one was worked on is to be given back at once.
        let landed = self.lanes.iter().any(|lane| !lane.landed.is_empty()).then_some(0);
        Interest {
            under_way: self.flights.under_way() > 0,
            at: limits.chain(landed).min(),
            ..Interest::default()
        }
    }

    fn stop(&mut self, queue: usize) {
        self.forget(queue);
    }

    fn reset(&mut self) {
        for queue in 0..self.lanes.len() {
            self.forget(queue);
        }
        self.backend.writethrough = false;
    }

    fn save(&self, state: &mut Writer) -> Result<(), NotSaved> {
        let idle = |lane: &Lane| lane.current.is_none() && lane.in_flight == 0;
        if self.flights.under_way() > 0 || !self.lanes.iter().all(idle) {
            return Err(NotSaved::UnderWay);
        }
        state.u64(self.backend.disk.sectors());
        state.u64(self.failures);
        Ok(())
    }

    /// Limits are the backend's: they begin anew, with full buckets.
    fn load(&mut self, state: &mut Reader<'_>) -> Result<(), StateError> {
        let sectors = state.u64()?;
        if sectors != self.backend.disk.sectors() {
            return Err(StateError::value("the sectors of a disk", sectors));
        }
        self.failures = state.u64()?;
        Ok(())
    }

    fn failures(&self) -> u64 {
        self.failures
    }

    fn set_limits(&mut self, limits: Limits) -> bool {
        let Some(now) = self.backend.clock else { return false };
        let limits = Limits {
            bytes: limits.bytes.map(|rate: Rate| rate.at_least(SECTOR)),
            ..limits
        };
        self.backend.limited = (!limits.is_none()).then(|| Limited {
            limits,
            limiter: Limiter::new(limits),
            now,
        });
        true
    }

    fn limits(&self) -> Option<Limits> {
        let limits = |limited: &Limited| limited.limits;
        let limited = self.backend.limited.as_ref();
        self.backend.clock.map(|_| limited.map(limits).unwrap_or_default())
    }
}
