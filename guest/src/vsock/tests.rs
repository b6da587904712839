//! The driver against the other half of `shared`, in the place of a host.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ptr::NonNull;

use chiton_shared::memory::GuestMemory;
use chiton_shared::virtio::feature;
use chiton_shared::virtio::ring::{Areas, Chain, DeviceQueue, QueueConfig};
use chiton_shared::virtio::vsock::{Config, HOST_CID, Header, RECEIVE, TRANSMIT, TYPE_STREAM, op, shutdown};

use super::VsockError;
use super::connection::{Ports, ROOM};
use super::driver::Driver;
use crate::host::Host;
use crate::queue::{Port, Queue, QueueError};
use crate::testing::{Identity, bytes};

const CID: u64 = 3;
const SIZE: u16 = 16;

/// A device that takes packets and gives those that a test has put into `to_guest`.
struct Machine {
    memory: NonNull<u8>,
    layout: Layout,
    configs: [QueueConfig; 2],
    queues: RefCell<[DeviceQueue; 2]>,
    to_guest: RefCell<VecDeque<Vec<u8>>>,
    from_guest: RefCell<VecDeque<(Header, Vec<u8>)>>,
    kicks: Cell<usize>,
    waits: Cell<usize>,
    stopped: Cell<bool>,
}

impl Machine {
    fn new() -> Self {
        let layout = Layout::from_size_align(1 << 14, 4096).unwrap();
        // SAFETY: the layout has a size.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        let start = memory.as_ptr().expose_provenance() as u64;
        let configs = [0, 0x2000].map(|offset| QueueConfig::packed_at(start + offset, SIZE).0);
        Self {
            memory,
            layout,
            configs,
            queues: RefCell::new(configs.map(|config| DeviceQueue::new(config, feature::RING))),
            to_guest: RefCell::default(),
            from_guest: RefCell::default(),
            kicks: Cell::new(0),
            waits: Cell::new(0),
            stopped: Cell::new(false),
        }
    }

    fn driver(&self) -> Driver<'_, &Self> {
        let queue = |index: usize| {
            let areas = Areas::find(&Identity, &self.configs[index]).unwrap();
            let port = Port {
                kick: 0xC40,
                registers: 0,
            };
            Queue::new(areas, SIZE, feature::RING, index as u16, port, self).unwrap()
        };
        let config = Config { guest_cid: CID }.to_bytes();
        Driver::new(queue(RECEIVE), queue(TRANSMIT), &config).unwrap()
    }

    /// Has the host send a packet.
    fn send(&self, header: Header, body: &[u8]) {
        let len = body.len() as u32;
        let header = Header { len, ..header };
        self.to_guest
            .borrow_mut()
            .push_back([&header.to_bytes()[..], body].concat());
    }

    /// The next packet of the guest.
    fn next(&self) -> Option<(Header, Vec<u8>)> {
        self.serve();
        self.from_guest.borrow_mut().pop_front()
    }

    fn next_op(&self) -> Option<u16> {
        self.next().map(|(header, _)| header.op)
    }

    fn serve(&self) -> bool {
        if self.stopped.get() {
            return false;
        }
        let [receive, transmit] = &mut *self.queues.borrow_mut();
        let mut chain = Chain::new();
        let mut transmit = transmit.attach(&Identity).unwrap();
        while transmit.pop(&mut chain).unwrap() {
            let packet: Vec<u8> = chain.readable().iter().flat_map(bytes).collect();
            let (header, body) = packet.split_first_chunk().unwrap();
            self.from_guest
                .borrow_mut()
                .push_back((Header::from_bytes(header), body.to_vec()));
            transmit.push(chain.head(), 0);
        }
        let mut receive = receive.attach(&Identity).unwrap();
        let mut to_guest = self.to_guest.borrow_mut();
        while !to_guest.is_empty() && receive.pop(&mut chain).unwrap() {
            let packet = to_guest.pop_front().unwrap();
            let buffer = chain.writable()[0];
            Identity.window(buffer.address, packet.len()).unwrap().write(0, &packet);
            receive.push(chain.head(), packet.len() as u32);
        }
        receive.wants_notification() | transmit.wants_notification()
    }
}

impl Host for &Machine {
    fn kick(&self, _port: u16, _queue: u16) {
        self.kicks.set(self.kicks.get() + 1);
        self.serve();
    }

    fn wait(&self, _ns: u64) {
        self.waits.set(self.waits.get() + 1);
        let news = self.serve();
        assert!(news || self.stopped.get(), "nothing would ever wake the driver");
    }

    fn needs_reset(&self, _registers: u64) -> bool {
        self.stopped.get()
    }

    fn reset(&self, _registers: u64) {}
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) }
    }
}

fn from_host(op: u16, ports: Ports) -> Header {
    Header {
        src_cid: HOST_CID,
        dst_cid: CID,
        src_port: ports.host,
        dst_port: ports.guest,
        kind: TYPE_STREAM,
        op,
        buf_alloc: ROOM,
        ..Header::default()
    }
}

const PORTS: Ports = Ports { guest: 5, host: 9 };

/// A connection that the host asked for.
fn accepted(machine: &Machine, driver: &mut Driver<'_, &Machine>) -> Ports {
    driver.listen(PORTS.guest).unwrap();
    assert_eq!(driver.try_accept(PORTS.guest), Ok(None));
    machine.send(from_host(op::REQUEST, PORTS), &[]);
    driver.sleep(u64::MAX).unwrap();
    assert_eq!(driver.try_accept(PORTS.guest), Ok(Some(PORTS)));
    assert_eq!(machine.next_op(), Some(op::RESPONSE));
    PORTS
}

#[test]
fn an_answer_and_the_sleep_for_the_next_question_are_one_exit() {
    let machine = Machine::new();
    let mut driver = machine.driver();
    let ports = accepted(&machine, &mut driver);
    let before = (machine.kicks.get(), machine.waits.get());
    for i in 0..20 {
        machine.send(from_host(op::RW, ports), &[i; 10]);
        driver.sleep(u64::MAX).unwrap();
        let mut question = [0; 64];
        assert_eq!(driver.try_read(ports, &mut question), Ok(Some(10)));
        assert_eq!(driver.try_write(ports, &question[..10]), Ok(Some(10)));
    }
    assert_eq!((machine.kicks.get(), machine.waits.get()), (before.0, before.1 + 20));
    for i in 0..20 {
        assert_eq!(machine.next().unwrap().1, [i; 10]);
    }
}

#[test]
fn a_connection_to_the_host_is_accepted_or_refused() {
    let machine = Machine::new();
    let mut driver = machine.driver();
    for answer in [op::RESPONSE, op::RST] {
        let ports = driver.connect(80).unwrap();
        let (header, _) = machine.next().unwrap();
        assert_eq!((header.op, header.dst_port, header.buf_alloc), (op::REQUEST, 80, ROOM));
        assert_eq!(driver.is_connected(ports), Ok(false));
        machine.send(from_host(answer, ports), &[]);
        driver.sleep(u64::MAX).unwrap();
        let connected = if answer == op::RST {
            Err(VsockError::Refused(80))
        } else {
            Ok(true)
        };
        assert_eq!(driver.is_connected(ports), connected);
    }
}

#[test]
fn no_more_is_sent_than_the_host_has_room_for() {
    let machine = Machine::new();
    let mut driver = machine.driver();
    let ports = accepted(&machine, &mut driver);
    let small = Header {
        buf_alloc: 10,
        ..from_host(op::CREDIT_UPDATE, ports)
    };
    machine.send(small, &[]);
    machine.serve();
    assert_eq!(driver.try_write(ports, &[1; 16]), Ok(Some(10)));
    assert_eq!(driver.try_write(ports, &[1; 16]), Ok(None));
    machine.send(Header { fwd_cnt: 4, ..small }, &[]);
    driver.sleep(u64::MAX).unwrap();
    assert_eq!(driver.try_write(ports, &[1; 16]), Ok(Some(4)));
}

#[test]
#[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
fn the_host_is_told_of_room_when_half_of_it_is_free_again_or_it_asks() {
    let machine = Machine::new();
    let mut driver = machine.driver();
    let ports = accepted(&machine, &mut driver);
    let mut buffer = [0; 4096];
    for _ in 0..ROOM / 2 / 4096 {
        assert_eq!(machine.next(), None);
        machine.send(from_host(op::RW, ports), &[7; 4096]);
        machine.serve();
        assert_eq!(driver.try_read(ports, &mut buffer), Ok(Some(4096)));
    }
    let (header, _) = machine.next().unwrap();
    assert_eq!((header.op, header.fwd_cnt), (op::CREDIT_UPDATE, ROOM / 2));
    machine.send(from_host(op::CREDIT_REQUEST, ports), &[]);
    driver.sleep(u64::MAX).unwrap();
    assert_eq!(machine.next_op(), Some(op::CREDIT_UPDATE));
}

#[test]
fn a_host_that_ignores_credit_loses_the_connection() {
    let machine = Machine::new();
    let mut driver = machine.driver();
    let ports = accepted(&machine, &mut driver);
    for _ in 0..=ROOM / 4096 {
        machine.send(from_host(op::RW, ports), &[7; 4096]);
        machine.serve();
        assert_eq!(driver.try_accept(5), Ok(None));
    }
    assert_eq!(machine.next_op(), Some(op::RST));
    assert_eq!(driver.try_write(ports, b"x"), Err(VsockError::Reset));
    // What came before can be read.
    assert_eq!(driver.try_read(ports, &mut [0; 100]), Ok(Some(100)));
}

#[test]
fn each_direction_ends_by_itself() {
    let machine = Machine::new();
    let mut driver = machine.driver();
    let ports = accepted(&machine, &mut driver);
    machine.send(from_host(op::RW, ports), b"last");
    let flags = shutdown::SEND;
    let header = from_host(op::SHUTDOWN, ports);
    machine.send(Header { flags, ..header }, &[]);
    driver.sleep(u64::MAX).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(driver.try_read(ports, &mut buffer), Ok(Some(4)));
    assert_eq!(driver.try_read(ports, &mut buffer), Ok(Some(0)));
    assert_eq!(driver.try_write(ports, b"mine"), Ok(Some(4)));
    driver.shut(ports, shutdown::SEND).unwrap();
    assert_eq!(driver.try_write(ports, b"more"), Err(VsockError::Closed));
    assert_eq!(machine.next().unwrap().1, b"mine");
    let (header, _) = machine.next().unwrap();
    assert_eq!((header.op, header.flags), (op::SHUTDOWN, shutdown::SEND));
    driver.close(ports);
    let (header, _) = machine.next().unwrap();
    assert_eq!((header.op, header.flags), (op::SHUTDOWN, shutdown::BOTH));
    assert_eq!(driver.try_read(ports, &mut buffer), Err(VsockError::Reset));
}

#[test]
fn a_port_where_nobody_listens_is_refused() {
    let machine = Machine::new();
    let mut driver = machine.driver();
    machine.send(from_host(op::REQUEST, PORTS), &[]);
    driver.sleep(u64::MAX).unwrap();
    assert_eq!(machine.next_op(), Some(op::RST));
    driver.listen(5).unwrap();
    assert_eq!(driver.listen(5), Err(VsockError::PortTaken(5)));
    machine.send(from_host(op::REQUEST, PORTS), &[]);
    driver.sleep(u64::MAX).unwrap();
    assert_eq!(machine.next_op(), Some(op::RESPONSE));
    driver.unlisten(5);
    assert_eq!(driver.try_accept(5), Ok(None));
    assert_eq!(machine.next_op(), Some(op::RST));
}

#[test]
fn a_device_that_stops_is_an_error_and_no_endless_sleep() {
    let machine = Machine::new();
    let mut driver = machine.driver();
    machine.stopped.set(true);
    assert_eq!(driver.sleep(u64::MAX), Err(VsockError::Device(QueueError::NeedsReset)));
    assert_eq!(driver.flush(), Err(VsockError::Device(QueueError::GivenUp)));
}

#[test]
fn any_packets_are_survived() {
    let mut random = crate::random::Random::seeded(7);
    for _ in 0..if cfg!(miri) { 2 } else { 300 } {
        let machine = Machine::new();
        let mut driver = machine.driver();
        let ports = accepted(&machine, &mut driver);
        for _ in 0..30 {
            let header = Header {
                flags: random.below(4) as u32,
                fwd_cnt: random.below(1 << 20) as u32,
                dst_port: random.below(7) as u32,
                src_port: 8 + random.below(3) as u32,
                ..from_host(random.below(9) as u16, ports)
            };
            machine.send(header, &[1; 50][..random.below(50) as usize]);
            machine.serve();
            let _ = driver.try_read(ports, &mut [0; 30]);
            let _ = driver.try_write(ports, &[2; 30]);
            driver.try_accept(5).unwrap();
            machine.serve();
        }
    }
}
