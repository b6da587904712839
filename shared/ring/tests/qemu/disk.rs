//! Requests to a block device (section 5.2), any number in flight.

use std::collections::HashMap;

use chiton_ring::layout::DESCRIPTOR;
use chiton_ring::memory::GuestMemory;
use chiton_ring::{Buffer, DriverError, Format, QueueConfig, feature};

use super::device::{self, Device, Queue};
use super::random::Random;

pub(crate) const KIND: u32 = 2;
pub(crate) const SERIAL: &str = "independent";
/// `VIRTIO_BLK_F_FLUSH`.
pub(crate) const FLUSH: u64 = 1 << 9;

const SECTOR: usize = 512;
const MOST_SECTORS: usize = 8;
const QUEUE: u64 = 0x10_0000;
/// Memory for each request: a table, the header, the status, and from the middle on data.
const REQUESTS: u64 = 0x20_0000;
const REQUEST: u64 = 0x2000;
const HEADER: u64 = 0x400;
const STATUS: u64 = 0x500;
const DATA: u64 = 0x1000;
const TABLE: usize = 0x400;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_UNKNOWN: u32 = 99;
const S_OK: u8 = 0;
const S_UNSUPP: u8 = 2;
const KINDS: [u32; 9] = [T_IN, T_IN, T_IN, T_OUT, T_OUT, T_OUT, T_FLUSH, T_GET_ID, T_UNKNOWN];

/// A request in flight.
#[derive(Clone, Copy)]
struct Request {
    kind: u32,
    sector: usize,
    /// Bytes of data.
    len: usize,
    /// Which of the places in memory it has.
    place: u64,
    /// How many descriptors of the queue it has.
    descriptors: u32,
}

impl Request {
    fn at(&self, offset: u64) -> u64 {
        REQUESTS + self.place * REQUEST + offset
    }

    fn sectors(&self) -> std::ops::Range<usize> {
        let count = if self.kind <= T_OUT { self.len / SECTOR } else { 0 };
        self.sector..self.sector + count
    }

    fn disturbs(&self, other: &Self) -> bool {
        let (a, b) = (self.sectors(), other.sectors());
        (self.kind == T_OUT || other.kind == T_OUT) && a.start < b.end && b.start < a.end
    }
}

pub(crate) struct Disk<'d, 'm> {
    device: Device<'m>,
    queue: Queue<'m>,
    format: Format,
    indirect: bool,
    in_order: bool,
    random: &'d mut Random,
    /// What is on the disk when all requests are done.
    content: &'d mut Vec<u8>,
    in_flight: HashMap<u16, Request>,
    places: Vec<u64>,
    /// Requests and descriptors that were made available.
    pub(crate) requests: u32,
    pub(crate) descriptors: u32,
    /// Descriptors that came back.
    used: u32,
    pub(crate) most_in_flight: usize,
}

impl<'d, 'm> Disk<'d, 'm> {
    pub(crate) fn begin(
        device: Device<'m>,
        features: u64,
        size: u16,
        random: &'d mut Random,
        content: &'d mut Vec<u8>,
    ) -> Self {
        let format = Format::of(features);
        let (config, _) = QueueConfig::placed(format, QUEUE, size);
        let queue = device.begin(features, &[config]).pop().expect("a queue");
        Self {
            device,
            queue,
            format,
            indirect: features & feature::INDIRECT_DESC != 0,
            in_order: features & feature::IN_ORDER != 0,
            random,
            content,
            in_flight: HashMap::new(),
            places: (0..u64::from(size)).collect(),
            requests: 0,
            descriptors: 0,
            used: 0,
            most_in_flight: 0,
        }
    }

    /// Makes up to `count` random requests available, as far as there is room, and kicks if that is wanted.
    pub(crate) fn submit(&mut self, count: usize) {
        for _ in 0..count {
            let Some(request) = self.next() else { continue };
            if !self.add(request) {
                break;
            }
        }
        if self.queue.wants_kick() {
            self.device.kick(0);
        }
    }

    fn submit_one(&mut self) {
        assert!(self.offer(), "a device that sleeps wants a kick");
        self.kick();
    }

    /// Makes a request available, and tells whether the device wants a kick for it.
    pub(crate) fn offer(&mut self) -> bool {
        // One that disturbs none of those in flight.
        let request = std::iter::repeat_with(|| self.next()).take(1000).flatten().next();
        assert!(request.is_some_and(|request| self.add(request)), "there is no room");
        self.wants_kick()
    }

    pub(crate) fn wants_kick(&mut self) -> bool {
        self.queue.wants_kick()
    }

    pub(crate) fn kick(&self) {
        self.device.kick(0);
    }

    fn next(&mut self) -> Option<Request> {
        let place = *self.places.last()?;
        let kind = KINDS[self.random.below(KINDS.len())];
        let sectors = 1 + self.random.below(MOST_SECTORS);
        let len = match kind {
            T_IN | T_OUT => sectors * SECTOR,
            T_GET_ID => 20,
            _ => 0,
        };
        let sector = match kind {
            T_IN | T_OUT => self.random.below(self.content.len() / SECTOR - sectors),
            _ => 0,
        };
        let request = Request {
            kind,
            sector,
            len,
            place,
            descriptors: 0,
        };
        self.in_flight
            .values()
            .all(|other| !request.disturbs(other))
            .then_some(request)
    }

    fn add(&mut self, mut request: Request) -> bool {
        let machine = self.device.machine;
        let indirect = self.indirect && self.random.below(2) == 0;
        let buffers = self.buffers(&request);
        machine.put(request.at(HEADER), &request.kind.to_le_bytes());
        machine.put(request.at(HEADER) + 8, &(request.sector as u64).to_le_bytes());
        machine.put(request.at(STATUS), &[0xff]);
        let data: Vec<_> = (0..request.len).map(|_| self.random.below(256) as u8).collect();
        machine.put(request.at(DATA), &data);
        let added = if indirect {
            let table = machine.window(request.at(0), TABLE).expect("within memory");
            self.queue.add_indirect(table, request.at(0), &buffers)
        } else {
            self.queue.add(&buffers)
        };
        let id = match added {
            Ok(id) => id,
            Err(DriverError::Full) => return false,
            Err(error) => panic!("{error}"),
        };
        if request.kind == T_OUT {
            self.content[request.sector * SECTOR..][..request.len].copy_from_slice(&data);
        }
        self.places.pop();
        request.descriptors = if indirect { 1 } else { buffers.len() as u32 };
        self.descriptors += request.descriptors;
        assert!(
            self.in_flight.insert(id, request).is_none(),
            "{id} is in flight already"
        );
        self.requests += 1;
        self.most_in_flight = self.most_in_flight.max(self.in_flight.len());
        true
    }

    /// Header, data and status, in few pieces or as many as the queue has descriptors for.
    fn buffers(&mut self, request: &Request) -> Vec<Buffer> {
        let most = if self.random.below(2) == 0 {
            3
        } else {
            self.queue.size().into()
        };
        let for_data = if request.len == 0 {
            0
        } else {
            1 + self.random.below((most - 2).min(6))
        };
        let mut buffers = self.pieces(request.at(HEADER), 16, (most - 1 - for_data).min(3), false);
        if request.len != 0 {
            buffers.extend(self.pieces(request.at(DATA), request.len, for_data, request.kind != T_OUT));
        }
        buffers.push(Buffer::writable(request.at(STATUS), 1));
        buffers
    }

    fn pieces(&mut self, address: u64, len: usize, most: usize, write: bool) -> Vec<Buffer> {
        device::buffers(address, &self.random.cut(len, most), write)
    }

    /// Takes back what is done, and checks it; sleeps as a driver would if that is nothing.
    pub(crate) fn wait(&mut self) {
        while !self.take() {
            if self.queue.arm() {
                continue;
            }
            let device = self.device;
            device.wait_for("a notification", || device.notified().then_some(()));
            self.queue.disarm();
        }
    }

    pub(crate) fn take(&mut self) -> bool {
        let mut any = false;
        while let Some((id, written)) = self.queue.take().expect("a good device") {
            let request = self.in_flight.remove(&id).expect("a request in flight");
            self.check(&request, written);
            self.used += request.descriptors;
            self.places.push(request.place);
            any = true;
        }
        any
    }

    fn check(&self, request: &Request, written: u32) {
        let machine = self.device.machine;
        let Request { kind, sector, len, .. } = *request;
        let status = if kind == T_UNKNOWN { S_UNSUPP } else { S_OK };
        assert_eq!(
            machine.bytes(request.at(STATUS), 1),
            [status],
            "a request of kind {kind}"
        );
        let data = machine.bytes(request.at(DATA), len);
        match kind {
            T_IN => assert!(
                data == self.content[sector * SECTOR..][..len],
                "sector {sector} is another"
            ),
            T_GET_ID => assert!(data.starts_with(SERIAL.as_bytes())),
            _ => {}
        }
        let room = if matches!(kind, T_IN | T_GET_ID) { len + 1 } else { 1 };
        let mut written = written;
        if written == 0 && self.format == Format::Packed && !self.in_order {
            // QEMU 7.2 never sets WRITE in a used descriptor, without which the length means nothing (section 2.8.4). It is
            // right, and where the next used descriptor has to be.
            let slot = self.used as usize % usize::from(self.queue.size());
            written = self.queue.areas().descriptors.read_u32(slot * DESCRIPTOR + 8);
        }
        let told = written as usize == room || written == 0 && self.format == Format::Packed && self.in_order;
        assert!(told, "{written} bytes for a request of kind {kind}");
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Makes a request that is done at once, and tells whether that was notified.
    pub(crate) fn is_told(&mut self) -> bool {
        self.submit_one();
        let device = self.device;
        device.wait_for("a request", || self.take().then_some(()));
        // What serves registers is the thread that finished the request, after it has thought of the notification.
        device.notified()
    }

    pub(crate) fn arm(&mut self) {
        self.arm_for(1);
    }

    pub(crate) fn arm_for(&mut self, count: u16) {
        assert!(!self.queue.arm_for(count), "something is done already");
    }

    /// Waits for a notification, and tells whether all that is in flight has come by then.
    pub(crate) fn is_told_of_all(&mut self) -> bool {
        let device = self.device;
        device.wait_for("a notification", || device.notified().then_some(()));
        self.take() && self.is_idle()
    }

    /// Asks for what no device can do: a request without a header.
    pub(crate) fn offend(&mut self) {
        let added = self.queue.add(&[Buffer::writable(REQUESTS, 1)]);
        assert!(added.is_ok() && self.queue.wants_kick());
        self.kick();
    }

    pub(crate) fn disarm(&mut self) {
        self.queue.disarm();
    }

    /// Ends with nothing in flight; the file holds what was written.
    pub(crate) fn finish(mut self) {
        while !self.is_idle() {
            self.wait();
        }
        assert_eq!(self.queue.free(), self.queue.size());
        assert!(self.device.is_content());
        assert!(
            self.device.machine.disk() == *self.content,
            "the file has not what was written"
        );
        self.device.end();
    }
}
