//! Network device (virtio 1.3 section 5.1): Ethernet frames in and out, one pair of queues.
//!
//! ```text
//!  transmitq1 ─▶ header copied and checked ─▶ Link::send(header, windows of the frame)
//!  receiveq1  ─▶ room ≥ the longest frame?  ─▶ Link::receive ─▶ one or several used buffers
//! ```
//!
//! A frame that nobody can take is dropped, as networks do: nothing is queued here. Input stays in
//! the host until the guest gives room for the longest frame it has agreed to.

mod room;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;

use chiton_shared::memory::Window;
use chiton_shared::virtio::id;
use chiton_shared::virtio::net::{
    Config, ETHERNET, F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_TSO4, F_HOST_TSO6, F_HOST_USO, F_MAC,
    F_MRG_RXBUF, F_MTU, F_STATUS, Header, MAX_FRAME, RECEIVE, S_LINK_UP, TRANSMIT, flags, gso,
};
use chiton_shared::virtio::ring::Chain;

use super::buffers::{Cursor, Windows};
use super::{Device, DeviceError, Interest, Progress, Ring};
use room::Room;

/// Size of either queue.
const QUEUE_SIZE: u16 = 256;

/// How many frames one call moves at most in either direction, so that a flood leaves others their
/// turn.
const FRAMES_PER_CALL: u16 = 128;

/// How many bytes one call moves at most, besides the frame that goes beyond them.
const BYTES_PER_CALL: usize = 1 << 20;

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

    /// Fills the windows, in order, with the next frame, and tells of its offloads in `header`,
    /// whose `num_buffers` does not matter.
    fn receive(&mut self, header: &mut [u8; Header::SIZE], to: &[Window<'_>]) -> Received;

    /// Takes the frame in the windows, in order. The header has been checked.
    fn send(&mut self, header: &[u8; Header::SIZE], frame: &[Window<'_>]) -> Sent;
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
    room: Room,
    /// Input is awaited: there is room for it.
    waiting: bool,
    /// What is negotiated, without offloads that lack what they build on.
    features: u64,
    up: bool,
    config_changed: bool,
    failures: u64,
}

impl<L: Link> Net<L> {
    /// A network device on this link, which is up.
    #[must_use]
    pub fn new(link: L) -> Self {
        Self {
            link,
            chain: Box::default(),
            room: Room::default(),
            waiting: false,
            features: 0,
            up: true,
            config_changed: false,
            failures: 0,
        }
    }

    const fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// The longest frame without an offload, in bytes.
    fn longest_packet(&self) -> usize {
        usize::from(self.link.mtu()) + ETHERNET + TAG
    }

    /// How many bytes of room the longest frame takes that may come.
    fn needed(&self) -> usize {
        Header::SIZE
            + if self.has(F_GUEST_TSO4 | F_GUEST_TSO6) {
                MAX_FRAME.max(self.longest_packet())
            } else {
                self.longest_packet()
            }
    }

    fn down(&mut self) {
        self.config_changed |= self.up;
        self.up = false;
        self.waiting = false;
    }

    fn receive(&mut self, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
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
        self.waiting = false;
        for _ in 0..FRAMES_PER_CALL {
            if !self.up {
                return Ok(Progress::Waiting);
            }
            while !self.room.is_enough(needed, chains) {
                if !ring.pop(&mut self.chain)? {
                    return Ok(Progress::Drained);
                }
                self.room.add(&self.chain)?;
            }
            self.room.gather(Header::SIZE, needed, memory, &mut windows)?;
            let mut header = [0; Header::SIZE];
            match self.link.receive(&mut header, windows.as_slice()) {
                Received::Frame(len) => {
                    let len = len.min(windows.bytes());
                    self.room.gather(0, Header::SIZE, memory, &mut windows)?;
                    let used = self.room.take(Header::SIZE + len);
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
                    self.waiting = true;
                    return Ok(Progress::Waiting);
                }
                Received::Gone => self.down(),
            }
        }
        Ok(Progress::More)
    }

    fn transmit(&mut self, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let memory = ring.memory();
        let mut windows = Windows::new();
        let mut budget = BYTES_PER_CALL;
        for _ in 0..FRAMES_PER_CALL {
            if !ring.pop(&mut self.chain)? {
                return Ok(Progress::Drained);
            }
            let buffers = self.chain.readable();
            let mut cursor = Cursor::default();
            cursor.gather(buffers, memory, Header::SIZE, &mut windows)?;
            let mut header = [0; Header::SIZE];
            let complete = windows.read(&mut header) == Header::SIZE;
            let len = self.chain.readable_bytes().saturating_sub(Header::SIZE as u64);
            let checked = self.check(&Header::from_bytes(&header), len).filter(|_| complete);
            let sent = if let Some(header) = checked {
                cursor.advance(buffers, Header::SIZE);
                cursor.gather(buffers, memory, len as usize, &mut windows)?;
                if windows.bytes() as u64 != len {
                    // More buffers than a frame needs.
                    Sent::Dropped
                } else if self.up {
                    self.link.send(&header.to_bytes(), windows.as_slice())
                } else {
                    Sent::Done
                }
            } else {
                Sent::Dropped
            };
            match sent {
                Sent::Done => {}
                Sent::Dropped => self.failures += 1,
                Sent::Gone => self.down(),
            }
            ring.push(self.chain.head(), 0);
            budget = budget.saturating_sub(windows.bytes());
            if budget == 0 {
                break;
            }
        }
        Ok(Progress::More)
    }

    /// The header of a frame of `len` bytes as the link gets it; `None` if it asks for what is not
    /// negotiated or makes no sense (section 5.1.6.2).
    fn check(&self, given: &Header, len: u64) -> Option<Header> {
        let needs_csum = given.flags & flags::NEEDS_CSUM != 0;
        let checksum_end = u64::from(given.csum_start) + u64::from(given.csum_offset) + 2;
        if needs_csum && (!self.has(F_CSUM) || checksum_end > len) {
            return None;
        }
        let needed = match given.gso_type {
            gso::NONE => 0,
            gso::TCPV4 => F_HOST_TSO4,
            gso::TCPV6 => F_HOST_TSO6,
            gso::UDP_L4 => F_HOST_USO,
            _ => return None,
        };
        let segmented = needed != 0;
        if segmented && (!self.has(needed) || !needs_csum || given.gso_size == 0) {
            return None;
        }
        let longest = if segmented { MAX_FRAME } else { self.longest_packet() };
        if len < ETHERNET as u64 || len > longest as u64 {
            return None;
        }
        let mut header = Header::default();
        if needs_csum {
            header.flags = flags::NEEDS_CSUM;
            header.csum_start = given.csum_start;
            header.csum_offset = given.csum_offset;
        }
        if segmented {
            header.gso_type = given.gso_type;
            header.gso_size = given.gso_size;
            header.hdr_len = given.hdr_len.min(u16::try_from(len).unwrap_or(u16::MAX));
        }
        Some(header)
    }
}

/// Drops what was negotiated without what it builds on (section 5.1.3.1).
const fn consistent(features: u64) -> u64 {
    let mut features = features;
    if features & F_CSUM == 0 {
        features &= !(F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_USO);
    }
    if features & F_GUEST_CSUM == 0 {
        features &= !(F_GUEST_TSO4 | F_GUEST_TSO6);
    }
    features
}

impl<L: Link> Device for Net<L> {
    fn id(&self) -> u32 {
        id::NET
    }

    fn features(&self) -> u64 {
        F_MAC | F_STATUS | F_MTU | F_MRG_RXBUF | consistent(self.link.offloads())
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let config = Config {
            mac: self.link.mac(),
            status: if self.up { S_LINK_UP } else { 0 },
            max_virtqueue_pairs: 1,
            mtu: self.link.mtu(),
        };
        super::read_bytes(&config.to_bytes(), offset, data);
    }

    fn negotiated(&mut self, features: u64) {
        self.features = consistent(features);
        self.link.set_offloads(self.features & self.link.offloads());
    }

    fn process(&mut self, queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        match queue {
            RECEIVE => self.receive(ring),
            TRANSMIT => self.transmit(ring),
            _ => Ok(Progress::Drained),
        }
    }

    fn interest(&self) -> Interest {
        Interest {
            readable: self.waiting,
            ..Interest::default()
        }
    }

    fn config_changed(&mut self) -> bool {
        core::mem::take(&mut self.config_changed)
    }

    fn stop(&mut self, queue: usize) {
        if queue == RECEIVE {
            self.room.clear();
            self.waiting = false;
        }
    }

    fn reset(&mut self) {
        self.stop(RECEIVE);
        self.features = 0;
    }

    fn failures(&self) -> u64 {
        self.failures
    }
}
