use std::boxed::Box;
use std::string::String;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

use chiton_shared::memory::Window;
use chiton_shared::virtio::console::{
    CONTROL_RECEIVE, CONTROL_TRANSMIT, Control, F_MULTIPORT, RECEIVE, TRANSMIT, event, port_receive,
};
use proptest::prelude::*;

use super::super::super::testing::{Memory, Rig, config};
use super::super::super::{Console, Device, DeviceError, Input, Output};
use super::super::fake::FakePort;
use super::super::{NamedPort, Port};
use super::{MAX_NAME, MAX_PORTS};

/// A port that somebody holds, or not.
#[derive(Clone, Default)]
struct Held {
    bytes: FakePort,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Who has nothing more to say still listens.
    listens: bool,
    waits: bool,
    open: bool,
    guest: Vec<bool>,
}

impl Port for Held {
    fn read(&mut self, to: &[Window<'_>]) -> Input {
        match self.bytes.read(to) {
            Input::End if self.state.lock().unwrap().listens => Input::End,
            Input::End => {
                self.state.lock().unwrap().open = false;
                Input::Empty
            }
            other => other,
        }
    }

    fn write(&mut self, from: &[Window<'_>]) -> Output {
        self.bytes.write(from)
    }

    fn emergency(&mut self, _byte: u8) {}

    fn size(&self) -> (u16, u16) {
        self.bytes.size()
    }

    fn is_open(&self) -> bool {
        self.state.lock().unwrap().open
    }

    fn let_in(&mut self) {
        let mut state = self.state.lock().unwrap();
        state.open |= std::mem::take(&mut state.waits);
    }

    fn guest_opened(&mut self, open: bool) {
        self.state.lock().unwrap().guest.push(open);
    }
}

fn named(name: &str, port: &Held) -> NamedPort {
    (String::from(name), Box::new(port.clone()))
}

/// A driver that gives room for messages and reads them.
struct Driver<'m> {
    rig: Rig<'m>,
    room: Vec<chiton_shared::virtio::ring::Buffer>,
    next: usize,
}

impl<'m> Driver<'m> {
    fn new(memory: &'m Memory, first: &FakePort, ports: Vec<NamedPort>) -> Self {
        let mut rig = Rig::new(memory, Console::new(first.clone()).with_ports(ports));
        let room: Vec<_> = (0..12).map(|_| rig.writable(128)).collect();
        for buffer in &room {
            rig.queues[CONTROL_RECEIVE].add(&[*buffer]).unwrap();
        }
        Self { rig, room, next: 0 }
    }

    fn say(&mut self, port: u32, event: u16, value: u16) {
        let message = self.rig.readable(&Control { port, event, value }.to_bytes());
        let _ = self.rig.submit(CONTROL_TRANSMIT, &[message]);
        self.rig.process_all();
        assert_eq!(self.rig.take(CONTROL_TRANSMIT), Some(0));
    }

    /// What the device has said since.
    fn heard(&mut self) -> Vec<(u32, u16, u16, Vec<u8>)> {
        self.rig.process_all();
        let mut heard = Vec::new();
        while let Some(len) = self.rig.take(CONTROL_RECEIVE) {
            let bytes = self.rig.bytes(self.room[self.next]);
            self.next += 1;
            let (head, _) = bytes.split_first_chunk().unwrap();
            let Control { port, event, value } = Control::from_bytes(head);
            heard.push((port, event, value, bytes[Control::SIZE..len as usize].to_vec()));
        }
        heard
    }
}

#[test]
fn without_further_ports_there_is_no_multiport_and_no_queue_for_it() {
    let console = Console::new(FakePort::default()).with_ports([]);
    assert_eq!((console.features() & F_MULTIPORT, console.queue_sizes().len()), (0, 2));
    let ports = (0..20).map(|_| named("x", &Held::default()));
    let console = Console::new(FakePort::default()).with_ports(ports);
    assert_eq!(console.features() & F_MULTIPORT, F_MULTIPORT);
    assert_eq!(console.queue_sizes().len(), 4 + 2 * MAX_PORTS);
    let mut count = [0; 4];
    console.read_config(4, &mut count);
    assert_eq!(u32::from_le_bytes(count), 1 + MAX_PORTS as u32);
}

#[test]
fn a_driver_is_told_of_ports_in_the_order_of_the_handshake() {
    let (memory, first, port) = (Memory::new(), FakePort::default(), Held::default());
    first.state().size = (80, 25);
    let mut driver = Driver::new(&memory, &first, vec![named("log", &port)]);
    assert_eq!(driver.heard(), [], "nothing before the driver is ready");
    driver.say(0, event::DEVICE_READY, 1);
    assert_eq!(
        driver.heard(),
        [(0, event::PORT_ADD, 1, vec![]), (1, event::PORT_ADD, 1, vec![])]
    );
    driver.say(0, event::PORT_READY, 1);
    assert_eq!(
        driver.heard(),
        [
            (0, event::CONSOLE_PORT, 1, vec![]),
            (0, event::RESIZE, 0, vec![80, 0, 25, 0]),
            (0, event::PORT_OPEN, 1, vec![])
        ]
    );
    driver.say(1, event::PORT_READY, 1);
    assert_eq!(driver.heard(), [(1, event::PORT_NAME, 1, b"log".to_vec())]);
    first.state().size = (81, 25);
    port.bytes.state().size = (7, 8);
    assert!(driver.rig.transport.config_changed().notify);
    assert_eq!(
        driver.heard(),
        [
            (0, event::RESIZE, 0, vec![81, 0, 25, 0]),
            (1, event::RESIZE, 0, vec![7, 0, 8, 0])
        ]
    );
    assert_eq!(driver.heard(), []);
}

#[test]
fn who_comes_and_goes_is_told_of_one_after_the_other() {
    let (memory, port) = (Memory::new(), Held::default());
    let mut driver = Driver::new(&memory, &FakePort::default(), vec![named("a", &port)]);
    port.state.lock().unwrap().waits = true;
    for (who, event) in [(0, event::DEVICE_READY), (1, event::PORT_READY)] {
        driver.say(who, event, 1);
    }
    assert_eq!(driver.heard().last().unwrap(), &(1, event::PORT_OPEN, 1, vec![]));

    // Input waits until the guest wants it.
    port.bytes.state().input.extend(b"hi");
    let room = driver.rig.writable(16);
    let _ = driver.rig.submit(port_receive(1), &[room]);
    driver.rig.process_all();
    assert_eq!(driver.rig.take(port_receive(1)), None);
    driver.say(1, event::PORT_OPEN, 1);
    assert_eq!(driver.rig.take(port_receive(1)), Some(2));
    assert_eq!(driver.rig.bytes(room)[..2], *b"hi");

    // The next one waits already: the driver hears of both.
    port.bytes.state().input_ended = true;
    port.state.lock().unwrap().waits = true;
    let room = driver.rig.writable(16);
    let _ = driver.rig.submit(port_receive(1), &[room]);
    let told = driver.heard();
    assert_eq!(told[0], (1, event::PORT_OPEN, 0, vec![]));
    assert_eq!(told[1], (1, event::PORT_OPEN, 1, vec![]));

    driver.say(1, event::PORT_OPEN, 0);
    driver.say(1, event::PORT_OPEN, 0);
    assert_eq!(port.state.lock().unwrap().guest, [true, false]);
}

#[test]
fn who_has_nothing_more_to_say_still_hears_and_the_next_one_is_heard() {
    let (memory, port) = (Memory::new(), Held::default());
    let mut driver = Driver::new(&memory, &FakePort::default(), vec![named("a", &port)]);
    port.state.lock().unwrap().listens = true;
    port.state.lock().unwrap().waits = true;
    for (who, event) in [(0, event::DEVICE_READY), (1, event::PORT_READY), (1, event::PORT_OPEN)] {
        driver.say(who, event, 1);
    }
    for _ in 0..2 {
        assert_eq!(driver.heard().last().unwrap(), &(1, event::PORT_OPEN, 1, vec![]));
        port.bytes.state().input.extend(b"hi");
        port.bytes.state().input_ended = true;
        for len in [2, 0] {
            let room = driver.rig.writable(16);
            let _ = driver.rig.submit(port_receive(1), &[room]);
            driver.rig.process_all();
            assert_eq!(driver.rig.take(port_receive(1)), Some(len));
        }
        assert_eq!(driver.heard(), [], "it still listens");
        port.bytes.state().takes.push_back(100);
        let answer = driver.rig.readable(b"answer");
        let _ = driver.rig.submit(port_receive(1) + 1, &[answer]);
        driver.rig.process_all();
        assert_eq!(driver.rig.take(port_receive(1) + 1), Some(0));
        assert_eq!(std::mem::take(&mut port.bytes.state().output), b"answer");
        port.bytes.state().input_ended = false;
        let mut state = port.state.lock().unwrap();
        (state.open, state.waits) = (false, true);
    }
    let told = driver.heard();
    assert_eq!(told[0], (1, event::PORT_OPEN, 0, vec![]));
    assert_eq!(told[1], (1, event::PORT_OPEN, 1, vec![]));
}

#[test]
fn each_port_has_its_own_queues() {
    let (memory, first) = (Memory::new(), FakePort::default());
    let ports = [Held::default(), Held::default()];
    let all = ports.iter().map(|port| named("x", port)).collect();
    let mut driver = Driver::new(&memory, &first, all);
    for port in [&first, &ports[0].bytes, &ports[1].bytes] {
        port.state().takes.push_back(100);
    }
    for (queue, words) in [
        (TRANSMIT, b"zero"),
        (port_receive(1) + 1, b"one!"),
        (port_receive(2) + 1, b"two!"),
    ] {
        let buffer = driver.rig.readable(words);
        let _ = driver.rig.submit(queue, &[buffer]);
        assert_eq!(driver.rig.take(queue), Some(0));
    }
    assert_eq!(first.state().output, b"zero");
    assert_eq!(ports[0].bytes.state().output, b"one!");
    assert_eq!(ports[1].bytes.state().output, b"two!");
    // Output that nobody takes is held by its port alone.
    let buffer = driver.rig.readable(b"more");
    let _ = driver.rig.submit(port_receive(2) + 1, &[buffer]);
    assert!(driver.rig.transport.holds_output());
    assert!(!driver.rig.transport.interest().writable);
    let room = driver.rig.writable(4);
    first.state().input.extend(b"in");
    let _ = driver.rig.submit(RECEIVE, &[room]);
    assert_eq!(driver.rig.take(RECEIVE), Some(2));
}

#[test]
fn a_message_without_room_needs_a_reset() {
    let (memory, port) = (Memory::new(), Held::default());
    let console = Console::new(FakePort::default()).with_ports([named("a", &port)]);
    let mut rig = Rig::new(&memory, console);
    let room = rig.writable(7);
    rig.queues[CONTROL_RECEIVE].add(&[room]).unwrap();
    let ready = Control {
        port: 0,
        event: event::DEVICE_READY,
        value: 1,
    };
    let ready = rig.readable(&ready.to_bytes());
    let _ = rig.submit(CONTROL_TRANSMIT, &[ready]);
    rig.process_all();
    let broken = rig.transport.broken().unwrap();
    assert_eq!(broken.queue, CONTROL_RECEIVE);
    assert!(matches!(broken.error, DeviceError::NoRoom { .. }));
}

#[test]
fn a_long_name_is_cut_where_a_letter_ends() {
    let (memory, port) = (Memory::new(), Held::default());
    let name = "\u{e4}".repeat(MAX_NAME);
    let mut driver = Driver::new(&memory, &FakePort::default(), vec![named(&name, &port)]);
    for (who, event) in [(0, event::DEVICE_READY), (1, event::PORT_READY)] {
        driver.say(who, event, 1);
    }
    let told = driver.heard().pop().unwrap();
    assert_eq!(
        (told.1, told.3),
        (event::PORT_NAME, "\u{e4}".repeat(MAX_NAME / 2).into_bytes())
    );
}

#[test]
fn a_driver_without_multiport_has_the_first_port_alone() {
    let (memory, first, port) = (Memory::new(), FakePort::default(), Held::default());
    let console = Console::new(first.clone()).with_ports([named("a", &port)]);
    let mut rig = Rig::with_features(&memory, console, !F_MULTIPORT);
    first.state().takes.push_back(9);
    let word = rig.readable(b"hi");
    let _ = rig.submit(TRANSMIT, &[word]);
    assert_eq!(rig.take(TRANSMIT), Some(0));
    let word = rig.readable(b"hi");
    let _ = rig.submit(port_receive(1) + 1, &[word]);
    assert_eq!((rig.take(port_receive(1) + 1), port.bytes.state().writes), (None, 0));
}

proptest! {
    #![proptest_config(config())]

    /// Whatever the driver says, the device answers a bounded number of times, and does not break.
    #[test]
    fn any_messages_are_survived(
        messages in prop::collection::vec((0_u32..4, 0_u16..9, 0_u16..3, 0_usize..9), 1..if cfg!(miri) { 3 } else { 8 })
    ) {
        let (memory, port) = (Memory::new(), Held::default());
        port.state.lock().unwrap().waits = true;
        let mut driver = Driver::new(&memory, &FakePort::default(), vec![named("a", &port)]);
        for (port, event, value, len) in messages {
            let bytes = Control { port, event, value }.to_bytes();
            let message = driver.rig.readable(&bytes[..len]);
            let _ = driver.rig.submit(CONTROL_TRANSMIT, &[message]);
            driver.rig.process_all();
            prop_assert_eq!(driver.rig.take(CONTROL_TRANSMIT), Some(0));
        }
        prop_assert!(driver.rig.transport.broken().is_none());
    }
}
