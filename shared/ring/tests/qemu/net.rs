//! Two network devices (section 5.1) on one hub: what is sent by one arrives at the other, in buffers so small that
//! most frames need several, which the device hands back together (`VIRTIO_NET_F_MRG_RXBUF`).

use std::collections::{HashMap, VecDeque};

use chiton_ring::memory::GuestMemory;
use chiton_ring::{Format, QueueConfig, feature};

use super::device::{self, Device, Queue};
use super::random::Random;

pub(crate) const KIND: u32 = 1;
pub(crate) const DEVICES: [&str; 8] = [
    "-netdev",
    "hubport,id=a,hubid=0",
    "-netdev",
    "hubport,id=b,hubid=0",
    "-device",
    "virtio-net-device,netdev=a,packed=on",
    "-device",
    "virtio-net-device,netdev=b,packed=on",
];

const MRG_RXBUF: u64 = 1 << 15;
const HEADER: usize = 12;
const NUM_BUFFERS: u64 = 10;
const LEAST_BYTES: usize = 60;
const MOST_BYTES: usize = 1514;
/// Bytes of a buffer to receive.
const PIECE: usize = 192;
const RX: u32 = 0;
const TX: u32 = 1;

const QUEUES: u64 = 0x10_0000;
const QUEUE: u64 = 0x4000;
/// Memory for each buffer: a table, and from the middle on a frame or a part of it.
const RX_BUFFERS: u64 = 0x20_0000;
const TX_BUFFERS: u64 = 0x30_0000;
const BUFFER: u64 = 0x1000;
const DATA: u64 = 0x800;
const TABLE: usize = 0x400;

/// A queue, and where its buffers are.
struct End<'m> {
    device: Device<'m>,
    number: u32,
    queue: Queue<'m>,
    places: Vec<u64>,
    in_flight: HashMap<u16, u64>,
}

impl<'m> End<'m> {
    fn new(device: Device<'m>, number: u32, queue: Queue<'m>, buffers: u64) -> Self {
        let places = (0..u64::from(queue.size())).map(|place| buffers + place * BUFFER);
        Self {
            device,
            number,
            places: places.collect(),
            queue,
            in_flight: HashMap::new(),
        }
    }

    /// Makes pieces of the place available that is next.
    fn add(&mut self, pieces: &[usize], write: bool, indirect: bool) {
        let place = self.places.pop().expect("a place is free");
        let buffers = device::buffers(place + DATA, pieces, write);
        let added = if indirect {
            let table = self.device.machine.window(place, TABLE).expect("within memory");
            self.queue.add_indirect(table, place, &buffers)
        } else {
            self.queue.add(&buffers)
        };
        let id = added.expect("the queue has room");
        assert!(self.in_flight.insert(id, place).is_none(), "{id} is in flight already");
    }

    /// Kicks if that is wanted, and tells whether it was.
    fn kick(&mut self) -> bool {
        let wanted = self.queue.wants_kick();
        if wanted {
            self.device.kick(self.number);
        }
        wanted
    }

    /// Takes a chain back: its place, and how many bytes were written.
    fn take(&mut self) -> Option<(u64, u32)> {
        let (id, written) = self.queue.take().expect("a good device")?;
        let place = self.in_flight.remove(&id).expect("a chain in flight");
        self.places.push(place);
        Some((place, written))
    }
}

pub(crate) struct Cable<'d, 'm> {
    tx: End<'m>,
    rx: End<'m>,
    format: Format,
    indirect: bool,
    random: &'d mut Random,
    sent: VecDeque<Vec<u8>>,
    /// How often the receiving device wanted to hear of new buffers, and how often not.
    pub(crate) kicks: u32,
    pub(crate) unwanted_kicks: u32,
}

impl<'d, 'm> Cable<'d, 'm> {
    pub(crate) fn begin(from: Device<'m>, to: Device<'m>, features: u64, size: u16, random: &'d mut Random) -> Self {
        let format = Format::of(features);
        let start = |device: Device<'m>, first: u64| {
            let place = |number: u64| QueueConfig::placed(format, QUEUES + number * QUEUE, size).0;
            device.begin(features | MRG_RXBUF, &[place(first), place(first + 1)])
        };
        let (mut from_queues, mut to_queues) = (start(from, 0), start(to, 2));
        Self {
            tx: End::new(from, TX, from_queues.remove(TX as usize), TX_BUFFERS),
            rx: End::new(to, RX, to_queues.remove(RX as usize), RX_BUFFERS),
            format,
            indirect: features & feature::INDIRECT_DESC != 0,
            random,
            sent: VecDeque::new(),
            kicks: 0,
            unwanted_kicks: 0,
        }
    }

    /// Some frames find buffers, as many as they need, and each of the others none, so that it waits in QEMU.
    pub(crate) fn carry(&mut self, rounds: u32) {
        for _ in 0..rounds {
            let size = usize::from(self.rx.queue.size());
            let waits = self.random.below(2) == 0;
            let mut room = size;
            for _ in 0..if waits { 1 } else { 1 + self.random.below(3) } {
                let most = MOST_BYTES.min(room * PIECE - HEADER);
                let len = LEAST_BYTES + self.random.below(most - LEAST_BYTES + 1);
                room -= (HEADER + len).div_ceil(PIECE);
                self.sent
                    .push_back((0..len).map(|_| self.random.below(256) as u8).collect());
                if room == 0 {
                    break;
                }
            }
            if waits {
                self.send();
                self.wait_until_sent();
                self.refill(size - room);
                assert!(self.rx.kick(), "a device that waits for buffers wants to hear of them");
                self.kicks += 1;
            } else {
                self.refill(size - room);
                let wanted = self.rx.kick();
                *if wanted {
                    &mut self.kicks
                } else {
                    &mut self.unwanted_kicks
                } += 1;
                self.send();
            }
            while !self.sent.is_empty() {
                self.receive();
            }
            self.wait_until_sent();
        }
    }

    /// Makes buffers available. Each is one descriptor in the queue: QEMU 7.2 counts buffers and not descriptors when it
    /// hands several back together by a packed queue.
    fn refill(&mut self, count: usize) {
        for _ in 0..count {
            let indirect = self.indirect && self.random.below(2) == 0;
            let pieces = if indirect {
                self.random.cut(PIECE, 3)
            } else {
                vec![PIECE]
            };
            self.rx.add(&pieces, true, indirect);
        }
    }

    /// Makes all frames available that are to be sent.
    fn send(&mut self) {
        // Each may have all descriptors that the others leave.
        let mut left = usize::from(self.tx.queue.size()) - self.sent.len();
        for frame in &self.sent {
            let place = *self.tx.places.last().expect("nothing is on its way");
            let bytes = [&[0; HEADER], frame.as_slice()].concat();
            self.tx.device.machine.put(place + DATA, &bytes);
            let pieces = self.random.cut(bytes.len(), 1 + left.min(4));
            left -= pieces.len() - 1;
            let indirect = self.indirect && self.random.below(2) == 0;
            self.tx.add(&pieces, false, indirect);
        }
        assert!(self.tx.kick(), "a device that sleeps wants a kick");
    }

    fn wait_until_sent(&mut self) {
        let device = self.tx.device;
        device.wait_for("a frame to be sent", || {
            while self.tx.take().is_some() {}
            self.tx.in_flight.is_empty().then(|| device.notified())
        });
    }

    /// Waits for a frame, and checks all that are there.
    fn receive(&mut self) {
        let mut first = self.rx.take();
        while first.is_none() {
            if !self.rx.queue.arm() {
                let device = self.rx.device;
                device.wait_for("a frame", || device.notified().then_some(()));
                self.rx.queue.disarm();
            }
            first = self.rx.take();
        }
        while let Some((place, written)) = first {
            self.check(place, written);
            first = self.rx.take();
        }
    }

    /// The frame that begins there is the one that was sent first, all of it.
    fn check(&mut self, first: u64, written: u32) {
        let machine = self.rx.device.machine;
        let frame = self.sent.pop_front().expect("a frame was sent");
        let count = (HEADER + frame.len()).div_ceil(PIECE);
        let told = machine.bytes(first + DATA + NUM_BUFFERS, 2);
        assert_eq!(usize::from(told[0]) | usize::from(told[1]) << 8, count);
        let (mut bytes, mut written) = (machine.bytes(first + DATA, PIECE), written);
        for _ in 1..count {
            let (next, more) = self.rx.take().expect("all of a frame comes together");
            bytes.extend(machine.bytes(next + DATA, PIECE));
            written += more;
        }
        assert!(bytes[HEADER..][..frame.len()] == frame, "another frame");
        // As for a disk, the length means nothing in QEMU's packed queues.
        let told = written as usize == HEADER + frame.len() || written == 0 && self.format == Format::Packed;
        assert!(told, "{written} bytes of {}", frame.len());
    }

    pub(crate) fn finish(self) {
        assert_eq!(self.rx.queue.free(), self.rx.queue.size());
        assert!(self.tx.device.is_content() && self.rx.device.is_content());
        self.tx.device.end();
        self.rx.device.end();
    }
}
