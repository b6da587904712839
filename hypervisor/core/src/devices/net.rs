//! Network device (virtio 1.3 section 5.1): Ethernet frames in and out, on one pair of queues or
//! several.
//!
//! ```text
//!  transmitqN ─▶ header copied and checked ─▶ Link::send(header, windows of the frame)
//!  receiveqN  ─▶ room ≥ the longest frame?  ─▶ Link::receive ─▶ one or several used buffers
//!  controlq   ─▶ how many pairs are in use
//! ```
//!
//! A frame that nobody can take is dropped, as networks do: nothing is queued here. Input stays in
//! the host until the guest gives room for the longest frame it has agreed to.

mod control;
mod header;
mod room;
mod throttle;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use chiton_shared::memory::Window;
use chiton_shared::virtio::id;
use chiton_shared::virtio::net::{
    Config, ETHERNET, F_CTRL_VQ, F_MAC, F_MQ, F_MRG_RXBUF, F_MTU, F_STATUS, Header, MAX_FRAME, MAX_PAIRS, RECEIVE,
    S_LINK_UP, TRANSMIT, control_queue,
};
use chiton_shared::virtio::ring::Chain;

use super::buffers::{Cursor, Windows};
use super::{Device, DeviceError, Interest, Limits, Progress, Ring};
use control::Command;
use header::{LARGE_RECEIVE, check, consistent};
use room::Room;
use throttle::Throttle;

/// Size of each queue.
const QUEUE_SIZE: u16 = 256;

/// How many frames one call moves at most in either direction, so that a flood leaves others their
/// turn.
const FRAMES_PER_CALL: u16 = 128;

/// How many bytes one call moves at most, besides the frame that goes beyond them.
const BYTES_PER_CALL: usize = 1 << 20;

/// How many commands one call carries out at most.
const COMMANDS_PER_CALL: u16 = 16;

/// Length of a VLAN tag, in bytes.
const TAG: usize = 4;

/// What frames go to and come from. No call waits.
pub trait Link: Send {
    /// The Ethernet address of the guest. It does not change.
    fn mac(&self) -> [u8; 6];

    /// The greatest MTU, in bytes, from 68 on. It does not change.
    fn mtu(&self) -> u16;

    /// Which of the features for checksums and segmentation there can be. It does not change.
    fn offloads(&self) -> u64;

    /// From now on frames have these offloads, a part of [`offloads`](Self::offloads).
    fn set_offloads(&mut self, features: u64);

    /// Whether frames can come and go now; asks anew.
    fn status(&mut self) -> Status;

    /// How many pairs of queues it can serve, from 1 on. It does not change.
    fn pairs(&self) -> u16 {
        1
    }

    /// From now on it serves the first `pairs` of them, from 1 to [`pairs`](Self::pairs); whether it
    /// can do that. At the start it is one.
    fn set_pairs(&mut self, pairs: u16) -> bool {
        pairs == 1
    }

    /// From now on the readiness that the host watches includes input of this pair, or not.
    fn watch(&mut self, _pair: usize, _wanted: bool) {}

    /// Fills the windows, in order, with the next frame for this pair, and tells of its offloads in
    /// `header`, whose `num_buffers` does not matter.
    fn receive(&mut self, pair: usize, header: &mut [u8; Header::SIZE], to: &[Window<'_>]) -> Received;

    /// Takes the frame in the windows, in order, from this pair. The header has been checked.
    fn send(&mut self, pair: usize, header: &[u8; Header::SIZE], frame: &[Window<'_>]) -> Sent;
}

/// What state a link is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Frames come and go.
    Up,
    /// None do, which may change.
    Down,
    /// None ever will again.
    Gone,
}

/// How [`Link::receive`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A frame of so many bytes.
    Frame(usize),
    /// A frame that did not fit, and is lost.
    TooLong,
    /// There is no frame now.
    Empty,
    /// There will be no more frames: the link is down for good.
    Gone,
}

/// How [`Link::send`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The frame is out.
    Done,
    /// The frame could not be sent, and is lost.
    Dropped,
    /// No frame can be sent any more: the link is down for good.
    Gone,
}

/// The network device.
pub struct Net<L> {
    link: L,
    chain: Box<Chain>,
    pairs: Vec<Pair>,
    queue_sizes: Vec<u16>,
    /// How many pairs are in use.
    in_use: u16,
    incoming: Throttle,
    outgoing: Throttle,
    limits: Limits,
    now: fn() -> u64,
    /// What is negotiated, without offloads that lack what they build on.
    features: u64,
    status: Status,
    config_changed: bool,
    failures: u64,
}

/// What belongs to one pair of queues.
#[derive(Default)]
struct Pair {
    room: Room,
    /// Input is awaited: there is room for it.
    waiting: bool,
    /// What the link was told of that.
    watched: bool,
    /// When each queue may go on, if a limit has been reached.
    again: [Option<u64>; 2],
}

impl<L: Link> Net<L> {
    /// A network device on this link.
    #[must_use]
    pub fn new(mut link: L) -> Self {
        let pairs = link.pairs().clamp(1, MAX_PAIRS);
        let control = usize::from(pairs > 1);
        Self {
            status: link.status(),
            link,
            chain: Box::default(),
            pairs: (0..pairs).map(|_| Pair::default()).collect(),
            queue_sizes: vec![QUEUE_SIZE; 2 * usize::from(pairs) + control],
            in_use: 1,
            incoming: Throttle::none(),
            outgoing: Throttle::none(),
            limits: Limits::default(),
            now: || 0,
            features: 0,
            config_changed: false,
            failures: 0,
        }
    }

    /// With these limits for each direction, by this clock: nanoseconds that never run backwards.
    /// Frames count as operations, their bytes without the header of virtio as bytes.
    #[must_use]
    pub fn limited(mut self, limits: Limits, now: fn() -> u64) -> Self {
        self.now = now;
        self.set_limits(limits);
        self
    }

    /// From now on these are the limits of each direction.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        let longest = MAX_FRAME.max(self.longest_packet());
        self.incoming = Throttle::new(limits, longest, self.now);
        self.outgoing = Throttle::new(limits, longest, self.now);
    }

    const fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    fn max_pairs(&self) -> u16 {
        self.pairs.len() as u16
    }

    /// The longest frame without an offload, in bytes.
    fn longest_packet(&self) -> usize {
        usize::from(self.link.mtu()) + ETHERNET + TAG
    }

    /// How many bytes of room the longest frame takes that may come.
    fn needed(&self) -> usize {
        Header::SIZE
            + if self.has(LARGE_RECEIVE) {
                MAX_FRAME.max(self.longest_packet())
            } else {
                self.longest_packet()
            }
    }

    fn set_status(&mut self, status: Status) {
        if self.status != Status::Gone {
            self.config_changed |= (self.status == Status::Up) != (status == Status::Up);
            self.status = status;
        }
    }

    /// Whether this pair is one that the driver uses.
    fn is_in_use(&self, pair: usize) -> bool {
        pair < usize::from(self.in_use)
    }

    fn receive(&mut self, pair: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        self.pairs[pair].waiting = false;
        self.pairs[pair].again[RECEIVE] = None;
        let result = self.receive_some(pair, ring);
        let Pair { waiting, watched, .. } = &mut self.pairs[pair];
        if waiting != watched {
            *watched = *waiting;
            self.link.watch(pair, *waiting);
        }
        result
    }

    fn receive_some(&mut self, pair: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let memory = ring.memory();
        let mut windows = Windows::new();
        let mut budget = BYTES_PER_CALL;
        let needed = self.needed();
        // Without mergeable buffers a frame has one chain, whatever its length.
        let chains = if self.has(F_MRG_RXBUF) {
            usize::from(QUEUE_SIZE)
        } else {
            1
        };
        for _ in 0..FRAMES_PER_CALL {
            // A link that is down may still have frames from before.
            if self.status == Status::Gone || !self.is_in_use(pair) {
                return Ok(Progress::Waiting);
            }
            let room = &mut self.pairs[pair].room;
            while !room.is_enough(needed, chains) {
                if !ring.pop(&mut self.chain)? {
                    return Ok(Progress::Drained);
                }
                room.add(&self.chain)?;
            }
            self.pairs[pair].again[RECEIVE] = self.incoming.wait();
            if self.pairs[pair].again[RECEIVE].is_some() {
                return Ok(Progress::Waiting);
            }
            let room = &mut self.pairs[pair].room;
            room.gather(Header::SIZE, needed, memory, &mut windows)?;
            let mut header = [0; Header::SIZE];
            match self.link.receive(pair, &mut header, windows.as_slice()) {
                Received::Frame(len) => {
                    let len = len.min(windows.bytes());
                    self.incoming.pay(len);
                    room.gather(0, Header::SIZE, memory, &mut windows)?;
                    let used = room.take(Header::SIZE + len);
                    let mut header = Header::from_bytes(&header);
                    header.num_buffers = used.len() as u16;
                    windows.write(&header.to_bytes());
                    ring.push_all(used);
                    budget = budget.saturating_sub(len);
                    if budget == 0 {
                        break;
                    }
                }
                Received::TooLong => self.failures += 1,
                Received::Empty => {
                    self.pairs[pair].waiting = true;
                    return Ok(Progress::Waiting);
                }
                Received::Gone => self.set_status(Status::Gone),
            }
        }
        Ok(Progress::More)
    }

    fn transmit(&mut self, pair: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let memory = ring.memory();
        let mut windows = Windows::new();
        let mut budget = BYTES_PER_CALL;
        for _ in 0..FRAMES_PER_CALL {
            self.pairs[pair].again[TRANSMIT] = self.outgoing.wait();
            if self.pairs[pair].again[TRANSMIT].is_some() {
                return Ok(Progress::Waiting);
            }
            if !ring.pop(&mut self.chain)? {
                return Ok(Progress::Drained);
            }
            let buffers = self.chain.readable();
            let mut cursor = Cursor::default();
            cursor.gather(buffers, memory, Header::SIZE, &mut windows)?;
            let mut header = [0; Header::SIZE];
            let complete = windows.read(&mut header) == Header::SIZE;
            let len = self.chain.readable_bytes().saturating_sub(Header::SIZE as u64);
            let checked = check(&Header::from_bytes(&header), len, self.features, self.longest_packet());
            let sent = if let Some(header) = checked.filter(|_| complete && self.is_in_use(pair)) {
                self.outgoing.pay(len as usize);
                cursor.advance(buffers, Header::SIZE);
                cursor.gather(buffers, memory, len as usize, &mut windows)?;
                if windows.bytes() as u64 != len {
                    // More buffers than a frame needs.
                    Sent::Dropped
                } else if self.status == Status::Gone {
                    Sent::Done
                } else {
                    self.link.send(pair, &header.to_bytes(), windows.as_slice())
                }
            } else {
                self.outgoing.pay(0);
                Sent::Dropped
            };
            match sent {
                Sent::Done => {}
                Sent::Dropped => self.failures += 1,
                Sent::Gone => self.set_status(Status::Gone),
            }
            ring.push(self.chain.head(), 0);
            budget = budget.saturating_sub(windows.bytes());
            if budget == 0 {
                break;
            }
        }
        Ok(Progress::More)
    }

    fn control(&mut self, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let memory = ring.memory();
        let mut windows = Windows::new();
        for _ in 0..COMMANDS_PER_CALL {
            if !ring.pop(&mut self.chain)? {
                return Ok(Progress::Drained);
            }
            let done = match control::read(&self.chain, memory, &mut windows)? {
                Command::SetPairs(pairs) => self.has(F_MQ) && self.set_pairs(pairs),
                Command::Unknown => false,
            };
            self.failures += u64::from(!done);
            control::answer(&self.chain, done, memory, &mut windows)?;
            ring.push(self.chain.head(), 1);
            if done {
                // Queues that were of no use may have buffers, of which no kick tells.
                break;
            }
        }
        Ok(Progress::More)
    }

    fn set_pairs(&mut self, pairs: u16) -> bool {
        if !(1..=self.max_pairs()).contains(&pairs) || !self.link.set_pairs(pairs) {
            return false;
        }
        self.in_use = pairs;
        true
    }
}

impl<L: Link> Device for Net<L> {
    fn id(&self) -> u32 {
        id::NET
    }

    fn features(&self) -> u64 {
        let several = if self.pairs.len() > 1 { F_CTRL_VQ | F_MQ } else { 0 };
        F_MAC | F_STATUS | F_MTU | F_MRG_RXBUF | several | consistent(self.link.offloads())
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn in_order(&self) -> bool {
        true
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let config = Config {
            mac: self.link.mac(),
            status: if self.status == Status::Up { S_LINK_UP } else { 0 },
            max_virtqueue_pairs: self.max_pairs(),
            mtu: self.link.mtu(),
        };
        super::read_bytes(&config.to_bytes(), offset, data);
    }

    fn negotiated(&mut self, features: u64) {
        self.features = consistent(features);
        self.link.set_offloads(self.features & self.link.offloads());
    }

    fn process(&mut self, queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let pair = queue / 2;
        if control_queue(self.features, self.max_pairs()) == Some(queue) {
            self.control(ring)
        } else if pair >= self.pairs.len() {
            Ok(Progress::Drained)
        } else if queue % 2 == RECEIVE {
            self.receive(pair, ring)
        } else {
            self.transmit(pair, ring)
        }
    }

    fn interest(&self) -> Interest {
        Interest {
            readable: self.pairs.iter().any(|pair| pair.waiting),
            at: self.pairs.iter().flat_map(|pair| pair.again).flatten().min(),
            ..Interest::default()
        }
    }

    fn config_changed(&mut self) -> bool {
        core::mem::take(&mut self.config_changed)
    }

    fn look_at_backend(&mut self) {
        let status = self.link.status();
        self.set_status(status);
    }

    fn set_limits(&mut self, limits: Limits) -> bool {
        self.set_limits(limits);
        true
    }

    fn limits(&self) -> Option<Limits> {
        Some(self.limits)
    }

    fn stop(&mut self, queue: usize) {
        let is_control = control_queue(self.features, self.max_pairs()) == Some(queue);
        if let Some(pair) = self.pairs.get_mut(queue / 2).filter(|_| !is_control) {
            pair.again[queue % 2] = None;
            if queue % 2 == RECEIVE {
                pair.room.clear();
                pair.waiting = false;
                if core::mem::take(&mut pair.watched) {
                    self.link.watch(queue / 2, false);
                }
            }
        }
    }

    fn reset(&mut self) {
        self.features = 0;
        for queue in 0..2 * self.pairs.len() {
            self.stop(queue);
        }
        // A link that fails to go back to one pair has said so.
        self.link.set_pairs(1);
        self.in_use = 1;
    }

    fn failures(&self) -> u64 {
        self.failures
    }
}
