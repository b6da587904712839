use std::vec::Vec;

use chiton_shared::emulated::nic::{
    AV, BUFFER, CTRL_RST, Descriptor, RCTL_EN, STATUS_FD, STATUS_LU, TCTL_EN, cause, register,
};
use chiton_shared::virtio::net::Header;
use proptest::prelude::*;

use super::super::{Emulated, Nic};
use super::{Rig, script};
use crate::devices::net::fake::FakeLink;
use crate::devices::testing::{BUFFERS, Memory, WORLD, config};

const RING: u32 = 8;
const RECEIVE: u64 = BUFFERS;
const TRANSMIT: u64 = BUFFERS + 0x100;
/// Two buffers, shared by the descriptors in turn.
const DATA: u64 = BUFFERS + 0x1000;

fn rig<'m>(memory: &'m Memory, link: &FakeLink) -> Rig<'m, Nic<FakeLink>> {
    let mut rig = Rig {
        memory,
        device: Nic::new(link.clone()),
    };
    for (base, low, len) in [
        (RECEIVE, register::RDBAL, register::RDLEN),
        (TRANSMIT, register::TDBAL, register::TDLEN),
    ] {
        rig.write32(low, base as u32);
        rig.write32(len, RING * Descriptor::SIZE as u32);
    }
    rig.write32(register::TCTL, TCTL_EN);
    rig.write32(register::RCTL, RCTL_EN);
    for i in 0..RING {
        rig.put(RECEIVE, i, buffer(i), 0, 0);
    }
    rig
}

fn buffer(index: u32) -> u64 {
    DATA + u64::from(index % 2) * BUFFER as u64
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

impl Rig<'_, Nic<FakeLink>> {
    fn put(&self, ring: u64, index: u32, address: u64, len: u16, command: u8) {
        let descriptor = Descriptor {
            address,
            len,
            command,
            status: 0,
        };
        let at = ring + u64::from(index) * Descriptor::SIZE as u64;
        self.memory.write(at, &descriptor.to_bytes());
    }

    fn get(&self, ring: u64, index: u32) -> Descriptor {
        let at = ring + u64::from(index) * Descriptor::SIZE as u64;
        let bytes = self.memory.read(at, Descriptor::SIZE);
        Descriptor::from_bytes(bytes.try_into().unwrap())
    }

    /// Has descriptor `index`, the next one, sent.
    fn send(&mut self, index: u32, address: u64, len: u16, command: u8) {
        self.put(TRANSMIT, index, address, len, command);
        self.write32(register::TDT, (index + 1) % RING);
    }
}

const WHOLE: u8 = Descriptor::EOP | Descriptor::RS;

#[test]
fn a_write_to_the_tail_sends_what_is_before_it() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    memory.write(DATA, &frame(100));
    rig.put(TRANSMIT, 0, DATA, 60, WHOLE);
    rig.put(TRANSMIT, 1, DATA, 100, Descriptor::EOP);
    rig.write32(register::TDT, 2);
    let sent: Vec<_> = link.state().output.drain(..).map(|(_, frame)| frame).collect();
    assert_eq!(sent, [frame(60), frame(100)]);
    assert_eq!(rig.read32(register::TDH), 2);
    let status = [0, 1].map(|i| rig.get(TRANSMIT, i).status);
    assert_eq!(status, [Descriptor::DD, 0], "reported to who asked");
    assert_eq!(rig.read32(register::ICR), cause::TXDW);
    for turn in 2..20 {
        rig.send(turn % RING, DATA, 60, WHOLE);
        assert_eq!(link.state().output.len() as u32, turn - 1, "round and round");
    }
}

#[test]
fn frames_arrive_where_there_is_room_and_interrupt_who_is_not_masked() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    assert!(!rig.device.wants_input(), "no descriptors yet");
    link.state().input().extend([frame(60), frame(1514), frame(99)]);
    rig.device.work(&memory);
    assert_eq!(link.state().receives, 0);

    rig.write32(register::RDT, 2);
    assert!(rig.device.wants_input());
    rig.device.work(&memory);
    assert!(!rig.device.wants_input() && link.state().input().len() == 1);
    for (index, len) in [(0, 60), (1, 1514)] {
        let descriptor = rig.get(RECEIVE, index);
        assert_eq!(descriptor.status, Descriptor::DD | Descriptor::RECEIVED_EOP);
        assert_eq!(usize::from(descriptor.len), len);
        assert_eq!(memory.read(buffer(index), len), frame(len));
    }
    assert_eq!(rig.get(RECEIVE, 2).status, 0);

    assert!(!rig.device.interrupt(), "masked");
    rig.write32(register::IMS, cause::RXT0);
    assert!(rig.device.interrupt());
    assert_eq!(rig.read32(register::ICR), cause::RXT0 | cause::RXDMT0);
    assert!(!rig.device.interrupt(), "reading takes it back");
    assert_eq!(rig.read32(register::ICR), 0);
    rig.write32(register::ICS, cause::RXT0);
    assert!(rig.device.interrupt());
    rig.write32(register::IMC, cause::RXT0);
    assert!(!rig.device.interrupt() && rig.read32(register::IMS) == 0);
}

#[test]
fn frames_that_make_no_sense_are_counted_and_not_sent() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    let cases = [
        ("too short", DATA, 13, WHOLE),
        ("too long", DATA, 1519, WHOLE),
        ("not its end", DATA, 60, Descriptor::RS),
        ("no memory", 0xDEAD_0000, 60, WHOLE),
        ("wraps", u64::MAX - 3, 60, WHOLE),
    ];
    for ((index, failures), (name, address, len, command)) in (0..).zip(1..).zip(cases) {
        rig.send(index, address, len, command);
        assert_eq!(
            (link.state().output.len(), rig.device.failures()),
            (0, failures),
            "{name}"
        );
        assert_eq!(rig.get(TRANSMIT, index).status, Descriptor::DD, "{name}");
    }
    link.state().blocked = true;
    rig.send(5, DATA, 60, WHOLE);
    assert_eq!(rig.device.failures(), 6);
    // What the host built may be read, as by a virtio device.
    link.state().blocked = false;
    rig.send(6, WORLD, 60, WHOLE);
    assert_eq!(link.state().output.len(), 1);
}

#[test]
fn a_ring_that_is_not_memory_stops_it_until_a_reset() {
    for (base, buffer) in [(0xFFFF_F000_u32, DATA), (WORLD as u32, DATA), (RECEIVE as u32, WORLD)] {
        let (memory, link) = (Memory::new(), FakeLink::default());
        let mut rig = rig(&memory, &link);
        link.state().input().push_back(frame(60));
        rig.put(RECEIVE, 0, buffer, 0, 0);
        rig.write32(register::RDBAL, base);
        rig.write32(register::RDT, 4);
        rig.device.work(&memory);
        assert!(!rig.device.wants_input() && rig.device.failures() == 1);
        assert_eq!((rig.read32(register::RCTL), link.state().receives), (0, 0));
        assert_eq!(memory.read(WORLD, 4096), [0; 4096]);
        rig.write32(register::CTRL, CTRL_RST);
        assert_eq!((rig.read32(register::RDBAL), rig.read32(register::RDT)), (0, 0));
    }
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    rig.write32(register::TDBAH, u32::MAX);
    rig.write32(register::TDT, 1);
    assert_eq!((rig.read32(register::TCTL), rig.device.failures()), (0, 1));
}

#[test]
fn heads_and_tails_beyond_the_ring_mean_that_it_is_empty() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    link.state().input().push_back(frame(60));
    for (head, tail) in [(0, RING), (RING, 0), (0xFFFF, 0xFFFE), (0, 0xFFFF)] {
        rig.write32(register::TDH, head);
        rig.write32(register::TDT, tail);
        rig.write32(register::RDH, head);
        rig.write32(register::RDT, tail);
        rig.device.work(&memory);
        assert!(!rig.device.wants_input());
        let state = link.state();
        assert_eq!((state.output.len(), state.receives), (0, 0));
    }
    // A ring that becomes shorter than its head.
    rig.write32(register::TDH, 5);
    rig.write32(register::TDT, 7);
    rig.write32(register::TDLEN, 0);
    rig.write32(register::TDT, 6);
    assert_eq!(rig.read32(register::TDT), 6);
}

#[test]
fn a_link_that_is_gone_is_down_and_its_cause_is_given() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    assert_eq!(rig.read32(register::STATUS), STATUS_FD | STATUS_LU);
    rig.write32(register::RDT, 4);
    rig.write32(register::IMS, cause::LSC);
    link.state().gone = true;
    rig.device.work(&memory);
    assert!(rig.device.interrupt() && !rig.device.wants_input());
    assert_eq!(rig.read32(register::ICR), cause::LSC);
    assert_eq!(rig.read32(register::STATUS), STATUS_FD);
    rig.send(0, DATA, 60, WHOLE);
    assert_eq!(rig.get(TRANSMIT, 0).status, Descriptor::DD);
    assert_eq!(rig.read32(register::ICR), cause::TXDW, "it is down only once");
}

#[test]
fn it_has_the_address_of_its_link() {
    let (memory, link) = (Memory::new(), FakeLink::default());
    let mut rig = rig(&memory, &link);
    assert_eq!(rig.read32(register::RAL), 2);
    assert_eq!(rig.read32(register::RAH), AV | 0x0700);
    // One byte of a register is no access.
    assert_eq!(rig.read8(register::RAL), 0xFF);
    rig.write8(register::RCTL, 0);
    assert_eq!(rig.read32(register::RCTL), RCTL_EN);
    assert_eq!(link.state().offloads, 0);
}

const KNOWN: &[u64] = &[
    register::CTRL,
    register::STATUS,
    register::ICR,
    register::IMS,
    register::RCTL,
    register::RDBAL,
    register::RDLEN,
    register::RDH,
    register::RDT,
    register::TCTL,
    register::TDBAL,
    register::TDLEN,
    register::TDH,
    register::TDT,
    register::TDT,
];

proptest! {
    #![proptest_config(config())]

    /// Whatever a driver does, a reset brings the interface back.
    // It goes no other way to memory than the tests above.
    #[test]
    #[cfg_attr(miri, ignore)]
    fn any_registers_in_any_order(script in script(KNOWN)) {
        let (memory, link) = (Memory::new(), FakeLink::default());
        link.state().input().extend((0..50).map(|i| frame(60 + i)));
        let mut played = rig(&memory, &link);
        played.play(&script);
        played.write32(register::CTRL, CTRL_RST);
        prop_assert!(!played.device.interrupt() && !played.device.wants_input());
        let sent = link.state().output.len();
        let proper = |(header, frame): &(Header, Vec<u8>)| *header == Header::default() && (14..=1518).contains(&frame.len());
        prop_assert!(link.state().output.iter().all(proper), "no offloads, and no lengths of any kind");
        let mut again = Rig { memory: &memory, device: played.device };
        again.write32(register::TDBAL, TRANSMIT as u32);
        again.write32(register::TDLEN, RING * Descriptor::SIZE as u32);
        again.write32(register::TCTL, TCTL_EN);
        again.send(0, DATA, 60, WHOLE);
        prop_assert_eq!(link.state().output.len(), sent + 1);
    }
}
