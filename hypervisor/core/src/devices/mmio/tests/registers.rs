//! What the registers read as, and the life of a device under the second driver.

use std::boxed::Box;

use super::super::super::block::fake::FakeDisk;
use super::super::super::console::fake::FakePort;
use super::super::super::entropy::fake::Counting;
use super::super::super::testing::{BUFFERS, Memory};
use super::super::super::{Block, Console, Entropy};
use super::super::{Effect, Transport};
use super::driver::*;
use chiton_shared::map::QUEUES;

pub(super) fn block(sectors: usize) -> (Transport, FakeDisk) {
    let disk = FakeDisk::new(sectors);
    (Transport::new(Box::new(Block::new(disk.clone()))), disk)
}

pub(super) fn console() -> (Transport, FakePort) {
    let port = FakePort::default();
    (Transport::new(Box::new(Console::new(port.clone()))), port)
}

pub(super) fn entropy() -> Transport {
    Transport::new(Box::new(Entropy::new(Counting::default())))
}

#[test]
fn a_fresh_device_reads_as_the_specification_says() {
    let (transport, _) = block(7);
    let table = [
        ("MagicValue", 0x000, 0x7472_6976),
        ("Version", 0x004, 2),
        ("DeviceID", 0x008, 2),
        ("VendorID", 0x00c, u32::from_le_bytes(*b"CHIT")),
        ("DeviceFeatures", 0x010, 1 << 2 | 1 << 6 | 1 << 9 | 3 << 13 | 3 << 28),
        ("DeviceFeaturesSel", 0x014, 0),
        ("DriverFeatures", 0x020, 0),
        ("DriverFeaturesSel", 0x024, 0),
        ("QueueSel", 0x030, 0),
        ("QueueSizeMax", 0x034, 128),
        ("QueueSize", 0x038, 0),
        ("QueueReady", 0x044, 0),
        ("QueueNotify", 0x050, 0),
        ("InterruptStatus", 0x060, 0),
        ("InterruptACK", 0x064, 0),
        ("Status", 0x070, 0),
        ("QueueDescLow", 0x080, 0),
        ("QueueDeviceHigh", 0x0a4, 0),
        ("SHMSel", 0x0ac, 0),
        ("SHMLenLow", 0x0b0, u32::MAX),
        ("SHMLenHigh", 0x0b4, u32::MAX),
        ("SHMBaseLow", 0x0b8, u32::MAX),
        ("SHMBaseHigh", 0x0bc, u32::MAX),
        ("QueueReset", 0x0c0, 0),
        ("ConfigGeneration", 0x0fc, 0),
        ("capacity", 0x100, 7),
        ("seg_max", 0x10c, 126),
        ("blk_size", 0x114, 512),
        ("nothing, behind the registers", 0x0c4, 0),
        ("nothing, between registers", 0x018, 0),
        ("max_discard_seg", 0x128, 32),
        ("nothing, behind the configuration", 0x13c, 0),
        ("nothing, far behind", 0xffc, 0),
        ("nothing, at the end of the address space", u64::MAX - 3, 0),
    ];
    for (name, offset, value) in table {
        assert_eq!(read(&transport, offset), value, "{name}");
    }
}

#[test]
fn registers_answer_to_aligned_32_bit_accesses_alone() {
    let (mut transport, _) = block(1);
    for (offset, width) in [(0x70, 1), (0x70, 2), (0x70, 8), (0x71, 4), (0x6e, 4), (0x70, 0)] {
        let mut data = vec![0xaa; width];
        transport.read(offset, &mut data);
        assert_eq!(data, vec![0; width], "read of {width} at {offset:#x}");
        data.fill(1);
        assert!(
            matches!(transport.write(offset, &data), Effect::Ignored(_)),
            "write of {width} at {offset:#x}"
        );
        assert_eq!(read(&transport, STATUS), 0);
    }
}

#[test]
fn the_configuration_reads_alike_in_every_width() {
    let (transport, _) = block(0x102);
    let mut whole = [0xff; 64];
    transport.read(CONFIG, &mut whole);
    // `unused0`, `unused1`, and what is behind the end.
    assert_eq!((whole[33], &whole[57..]), (0, &[0; 7][..]));
    for width in [1, 2, 4, 8] {
        for at in (0..64).step_by(width) {
            let mut part = vec![0xff; width];
            transport.read(CONFIG + at as u64, &mut part);
            assert_eq!(part, whole[at..at + width]);
        }
    }
    assert_eq!(whole[20..28], [0, 2, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn features_are_offered_by_halves_and_nothing_beyond() {
    let (mut transport, _) = block(1);
    for (select, bits) in [
        (0, 0x3000_6244),
        (1, 1 | 1 << 2 | 1 << 6 | 1 << 8),
        (2, 0),
        (3, 0),
        (u32::MAX, 0),
    ] {
        set(&mut transport, DEVICE_FEATURES_SEL, select);
        assert_eq!(read(&transport, DEVICE_FEATURES), bits, "half {select}");
    }
}

#[test]
fn a_driver_from_the_specification_reads_a_disk_whatever_it_negotiates() {
    let all = [0, INDIRECT_DESC | EVENT_IDX, INDIRECT_DESC, EVENT_IDX];
    for ring in &all[..if cfg!(miri) { 2 } else { 4 }] {
        let (mut transport, _) = block(3);
        let memory = Memory::new();
        let features = negotiate(&mut transport, VERSION_1 | ring).expect("features are accepted");
        let mut ring = Ring::new(&memory, QUEUES, 16, features);
        set_up_queue(&mut transport, 0, 16, ring.parts());
        driver_ok(&mut transport);
        // More requests than the queue has entries, so that it wraps.
        for i in 0..if cfg!(miri) { 18 } else { 40_u64 } {
            memory.write(BUFFERS, &[0, 0, 0, 0, 0, 0, 0, 0, (i % 3) as u8, 0, 0, 0, 0, 0, 0, 0]);
            memory.write(BUFFERS + 0x100, &[0xee; 513]);
            let chain = [(BUFFERS, 16, NEXT, 8), (BUFFERS + 0x100, 513, WRITE, 0)];
            if features & INDIRECT_DESC != 0 && i % 2 == 0 {
                let table = BUFFERS + 0x1001;
                ring.describe(table, 0, &[(BUFFERS, 16, NEXT, 1), chain[1]]);
                ring.describe(ring.table, 7, &[(table, 32, INDIRECT, 0)]);
            } else {
                ring.describe(ring.table, 7, &chain);
            }
            ring.want_notification(true);
            ring.offer(7);
            assert!(ring.wants_kick());
            assert!(kick(&mut transport, &memory, 0).notify);
            assert_eq!(read(&transport, INTERRUPT_STATUS), 1);
            set(&mut transport, INTERRUPT_ACK, 1);
            assert_eq!(read(&transport, INTERRUPT_STATUS), 0);
            assert_eq!(ring.used(), [(7, 513)]);
            let data = memory.read(BUFFERS + 0x100, 513);
            assert_eq!((data[0], data[511], data[512]), (i as u8 % 3 + 1, i as u8 % 3 + 1, 0));
        }
    }
}

#[test]
fn a_driver_that_wants_no_notification_gets_none() {
    for features in [VERSION_1, VERSION_1 | EVENT_IDX] {
        let mut transport = entropy();
        let memory = Memory::new();
        let features = negotiate(&mut transport, features).expect("features are accepted");
        let mut ring = Ring::new(&memory, QUEUES, 8, features);
        set_up_queue(&mut transport, 0, 8, ring.parts());
        driver_ok(&mut transport);
        ring.want_notification(false);
        ring.describe(ring.table, 0, &[(BUFFERS, 8, WRITE, 0)]);
        ring.offer(0);
        assert!(!kick(&mut transport, &memory, 0).notify);
        assert_eq!((read(&transport, INTERRUPT_STATUS), ring.used()), (0, vec![(0, 8)]));
    }
}

#[test]
fn the_status_survives_a_driver_that_reads_modifies_and_writes() {
    let mut transport = entropy();
    assert!(negotiate(&mut transport, u64::MAX).is_some());
    for bit in [1, 2, 8, 4] {
        let status = read(&transport, STATUS);
        set(&mut transport, STATUS, status | bit);
    }
    assert_eq!(read(&transport, STATUS), 15);
    set(&mut transport, STATUS, 15 | 128);
    assert_eq!(read(&transport, STATUS), 15 | 128);
    assert!(!transport.is_live(), "a driver that gave up has no device");
}

#[test]
fn a_change_of_configuration_is_seen_and_told() {
    let (mut transport, _) = console();
    let before = read(&transport, CONFIG_GENERATION);
    assert!(!transport.config_changed().notify, "nobody to tell");
    assert_eq!(read(&transport, INTERRUPT_STATUS), 0);
    assert_ne!(read(&transport, CONFIG_GENERATION), before);

    assert!(negotiate(&mut transport, VERSION_1).is_some());
    driver_ok(&mut transport);
    let before = read(&transport, CONFIG_GENERATION);
    let outcome = transport.config_changed();
    assert_eq!((outcome.notify, outcome.queues), (true, 0), "it is about no queue");
    assert_eq!(read(&transport, INTERRUPT_STATUS), 2);
    assert!(transport.interrupt_pending());
    assert_ne!(read(&transport, CONFIG_GENERATION), before);
    set(&mut transport, INTERRUPT_ACK, 2);
    assert!(!transport.interrupt_pending());
}

#[test]
fn a_reset_takes_everything_back() {
    let (mut transport, port) = console();
    let memory = Memory::new();
    let features = negotiate(&mut transport, !RING_PACKED).expect("features are accepted");
    let mut rings = [
        Ring::new(&memory, QUEUES, 16, features),
        Ring::new(&memory, QUEUES + 0x1000, 16, features),
    ];
    for (i, ring) in (0..).zip(&rings) {
        set_up_queue(&mut transport, i, 16, ring.parts());
    }
    driver_ok(&mut transport);
    // One chain held, waiting for input; one used.
    rings[0].describe(QUEUES, 0, &[(BUFFERS, 8, WRITE, 0)]);
    rings[0].offer(0);
    let _ = kick(&mut transport, &memory, 0);
    port.state().takes.push_back(9);
    rings[1].describe(QUEUES + 0x1000, 0, &[(BUFFERS, 8, 0, 0)]);
    rings[1].offer(0);
    let outcome = kick(&mut transport, &memory, 1);
    assert_eq!((outcome.notify, outcome.queues), (true, 0b10));
    assert!(transport.interest().readable);
    assert_eq!(
        (read(&transport, QUEUE_READY), read(&transport, INTERRUPT_STATUS)),
        (1, 1)
    );

    assert_eq!(write(&mut transport, STATUS, 0), Effect::Reset);
    assert_eq!((read(&transport, STATUS), read(&transport, INTERRUPT_STATUS)), (0, 0));
    assert!(!transport.interest().readable && !transport.is_live());
    for queue in 0..2 {
        set(&mut transport, QUEUE_SEL, queue);
        assert_eq!(read(&transport, QUEUE_READY), 0);
    }
    port.state().input.extend(b"for nobody");
    assert_eq!(transport.process(&memory), Default::default());
    assert_eq!(rings[0].used(), []);

    // And it works again from the start.
    assert!(negotiate(&mut transport, VERSION_1).is_some());
    let mut ring = Ring::new(&memory, QUEUES, 16, VERSION_1);
    set_up_queue(&mut transport, 0, 16, ring.parts());
    driver_ok(&mut transport);
    ring.describe(QUEUES, 3, &[(BUFFERS, 8, WRITE, 0)]);
    ring.offer(3);
    assert!(kick(&mut transport, &memory, 0).notify);
    assert_eq!(ring.used(), [(3, 8)]);
    assert_eq!(memory.read(BUFFERS, 8), b"for nobo");
}
