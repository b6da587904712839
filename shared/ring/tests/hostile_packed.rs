//! A packed queue against what no driver and no device may do, case by case. What any memory does
//! is in `hostile.rs`.
#![cfg(not(loom))]

mod common;

use chiton_ring::feature::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, RING_PACKED};
use chiton_ring::memory::{GuestMemory, Window};
use chiton_ring::{Areas, Buffer, Chain, DeviceQueue, DriverError, DriverQueue, Format, QueueConfig, QueueError};
use common::Memory;

const MEMORY: usize = 0x800;
const SIZE: u16 = 4;
const TABLE: u64 = 0x400;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Available in the first round.
const AVAIL: u16 = 1 << 7;
/// Used in the first round.
const USED: u16 = 1 << 15 | 1 << 7;

/// A queue of four descriptors in memory of its own.
struct Ring {
    memory: Memory,
    config: QueueConfig,
}

impl Ring {
    fn new() -> Self {
        Self {
            memory: Memory::new(MEMORY),
            config: QueueConfig::placed(Format::Packed, 0, SIZE).0,
        }
    }

    fn areas(&self) -> Areas<'_> {
        Areas::find_as(Format::Packed, &self.memory, &self.config).expect("a good queue")
    }

    fn put(&self, at: u64, (address, len): (u64, u32), id: u16, flags: u16) {
        let window = self.memory.window(at, 16).expect("within memory");
        window.write_u64(0, address);
        window.write_u32(8, len);
        window.write_u16(12, id);
        window.store_u16(14, flags);
    }

    /// Descriptors from the first on, all marked as available in the first round.
    fn available(&self, descriptors: &[((u64, u32), u16)]) {
        for (slot, (buffer, flags)) in (0..).zip(descriptors) {
            self.put(16 * slot, *buffer, 0, flags | AVAIL);
        }
    }

    fn device(&self, features: u64) -> DeviceQueue {
        DeviceQueue::new(self.config, features | RING_PACKED)
    }

    fn pop(&self, features: u64) -> Result<bool, QueueError> {
        self.device(features).attach(&self.memory)?.pop(&mut Chain::new())
    }

    fn driver(&self, features: u64) -> DriverQueue<'_, 4> {
        DriverQueue::new(self.areas(), SIZE, features | RING_PACKED).expect("a good queue")
    }
}

#[test]
fn a_descriptor_is_not_taken_unless_it_became_available_in_this_round() {
    for flags in [0, 1 << 15, USED] {
        let ring = Ring::new();
        ring.put(0, (0, 1), 0, flags);
        assert_eq!(ring.pop(0), Ok(false), "flags {flags:#x}");
    }
}

#[test]
fn a_chain_that_goes_round_the_ring_is_refused() {
    let ring = Ring::new();
    ring.available(&[((0, 1), NEXT); 4]);
    assert_eq!(ring.pop(0), Err(QueueError::ChainLength));
    ring.available(&[((0, 1), NEXT), ((0, 1), NEXT), ((0, 1), NEXT), ((0, 1), 0)]);
    assert_eq!(ring.pop(0), Ok(true));
}

#[test]
fn a_chain_does_not_reach_into_descriptors_that_are_in_flight() {
    let ring = Ring::new();
    let mut device = ring.device(0);
    let mut queue = device.attach(&ring.memory).expect("a good queue");
    ring.available(&[((0, 1), 0), ((0, 1), NEXT), ((0, 1), NEXT), ((0, 1), NEXT)]);
    assert_eq!(queue.pop(&mut Chain::new()), Ok(true));
    assert_eq!(queue.pop(&mut Chain::new()), Err(QueueError::ChainLength));
}

#[test]
fn a_descriptor_that_is_available_again_before_it_was_used_is_refused() {
    let ring = Ring::new();
    let mut device = ring.device(0);
    let mut queue = device.attach(&ring.memory).expect("a good queue");
    ring.available(&[((0, 1), 0); 4]);
    for _ in 0..4 {
        assert_eq!(queue.pop(&mut Chain::new()), Ok(true));
    }
    assert_eq!(queue.pop(&mut Chain::new()), Ok(false));
    // Available in the second round.
    ring.put(0, (0, 1), 0, 1 << 15);
    assert_eq!(queue.pop(&mut Chain::new()), Err(QueueError::NotUsed(0)));
}

#[test]
fn a_buffer_id_used_twice_is_given_back_twice_and_each_chain_once() {
    let ring = Ring::new();
    let mut device = ring.device(0);
    let mut queue = device.attach(&ring.memory).expect("a good queue");
    ring.put(0, (0, 1), 0xffff, AVAIL);
    ring.put(16, (0, 1), 9, AVAIL | NEXT);
    ring.put(32, (0, 1), 0xffff, AVAIL);
    let (mut first, mut second) = (Chain::new(), Chain::new());
    assert_eq!((queue.pop(&mut first), queue.pop(&mut second)), (Ok(true), Ok(true)));
    assert_ne!(first.head(), second.head());
    queue.push(second.head(), 0);
    queue.push(second.head(), 0);
    queue.push(first.head(), 1);
    queue.push(200, 1);
    let entry = |slot: usize| {
        let ring = ring.areas().descriptors;
        (ring.read_u16(16 * slot + 12), ring.load_u16(16 * slot + 14))
    };
    assert_eq!(entry(0), (0xffff, USED));
    assert_eq!(entry(1), (9, AVAIL | NEXT), "skipped");
    assert_eq!(entry(2), (0xffff, USED | WRITE));
    assert_eq!(entry(3), (0, 0));
}

#[test]
fn readable_after_writable_and_too_many_bytes_are_refused() {
    let ring = Ring::new();
    ring.available(&[((0, 1), NEXT | WRITE), ((0, 1), 0)]);
    assert_eq!(ring.pop(0), Err(QueueError::Order));
    ring.available(&[((0, u32::MAX), NEXT), ((0, 1), WRITE)]);
    assert_eq!(ring.pop(0), Ok(true));
    ring.available(&[((0, u32::MAX), NEXT), ((0, 2), WRITE)]);
    assert_eq!(ring.pop(0), Err(QueueError::TooManyBytes));
}

#[test]
fn indirect_descriptors_are_refused_where_none_may_be() {
    let ring = Ring::new();
    ring.available(&[((TABLE, 16), INDIRECT)]);
    assert_eq!(ring.pop(0), Err(QueueError::Indirect), "not negotiated");
    assert_eq!(ring.pop(INDIRECT_DESC), Ok(true));
    ring.available(&[((TABLE, 16), INDIRECT | NEXT), ((0, 1), 0)]);
    assert_eq!(ring.pop(INDIRECT_DESC), Err(QueueError::Indirect), "with a successor");
    ring.available(&[((0, 1), NEXT), ((TABLE, 16), INDIRECT)]);
    assert_eq!(ring.pop(INDIRECT_DESC), Err(QueueError::Indirect), "in a chain");
}

#[test]
fn in_a_table_nothing_counts_but_write() {
    let ring = Ring::new();
    ring.available(&[((TABLE, 32), INDIRECT | WRITE)]);
    ring.put(TABLE, (5, 6), 7, INDIRECT | AVAIL);
    ring.put(TABLE + 16, (8, 9), 7, NEXT | WRITE);
    let mut chain = Chain::new();
    let mut device = ring.device(INDIRECT_DESC);
    assert_eq!(
        device.attach(&ring.memory).expect("a good queue").pop(&mut chain),
        Ok(true)
    );
    assert_eq!(chain.readable(), [Buffer::readable(5, 6)]);
    assert_eq!(chain.writable(), [Buffer::writable(8, 9)]);
}

#[test]
fn tables_are_refused_if_empty_ragged_too_long_or_outside_memory() {
    for (address, len) in [
        (TABLE, 0),
        (TABLE, 24),
        (TABLE, 8),
        (MEMORY as u64, 16),
        (u64::MAX - 7, 16),
    ] {
        let ring = Ring::new();
        ring.available(&[((address, len), INDIRECT)]);
        assert_eq!(ring.pop(INDIRECT_DESC), Err(QueueError::IndirectTable { address, len }));
    }
    for len in [80, u32::MAX - 15] {
        let ring = Ring::new();
        ring.available(&[((0, len), INDIRECT)]);
        assert_eq!(ring.pop(INDIRECT_DESC), Err(QueueError::ChainLength));
    }
}

#[test]
fn a_queue_outside_memory_misaligned_or_of_a_bad_size_is_refused() {
    let memory = Memory::new(MEMORY);
    let good = QueueConfig::placed(Format::Packed, 0, 3).0;
    let end = MEMORY as u64;
    assert!(DeviceQueue::new(good, RING_PACKED).attach(&memory).is_ok());
    for config in [
        QueueConfig { size: 0, ..good },
        QueueConfig { size: 257, ..good },
        QueueConfig { descriptors: 8, ..good },
        QueueConfig {
            driver: good.driver + 2,
            ..good
        },
        QueueConfig {
            device: good.device + 2,
            ..good
        },
        QueueConfig {
            descriptors: end - 32,
            ..good
        },
        QueueConfig { driver: end, ..good },
        QueueConfig {
            device: u64::MAX - 3,
            ..good
        },
    ] {
        let mut queue = DeviceQueue::new(config, RING_PACKED);
        let refused = matches!(queue.attach(&memory), Err(QueueError::Placement));
        assert!(refused, "{config:?}");
    }
}

#[test]
fn events_that_mean_nothing_cost_a_notification_and_no_more() {
    // Event index not negotiated, the reserved value, reserved bits, an offset beyond the ring.
    for (features, event, flags) in [(0, 0, 2), (EVENT_IDX, 0, 3), (0, 0, 0xfffc), (EVENT_IDX, 99, 2)] {
        let ring = Ring::new();
        let mut device = ring.device(features);
        let mut queue = device.attach(&ring.memory).expect("a good queue");
        ring.areas().driver.store_u16(0, event);
        ring.areas().driver.store_u16(2, flags);
        assert!(!queue.wants_notification(), "nothing was used");
        ring.available(&[((0, 1), 0)]);
        let mut chain = Chain::new();
        assert_eq!(queue.pop(&mut chain), Ok(true));
        queue.push(chain.head(), 0);
        assert!(queue.wants_notification());
        assert!(!queue.wants_notification());
    }
}

#[test]
fn the_driver_side_refuses_what_no_device_may_give_back() {
    let give_back = |features: u64, id: u16, written: u32, flags: u16| {
        let ring = Ring::new();
        let mut driver = ring.driver(features);
        assert_eq!(driver.add(&[Buffer::readable(0, 9), Buffer::writable(0, 7)]), Ok(0));
        ring.put(0, (0, written), id, flags);
        let first = driver.take();
        (first, first.and_then(|_| driver.take()))
    };
    for features in [0, IN_ORDER] {
        let refused = |id: u16| Err(DriverError::Device { id: id.into() });
        assert_eq!(give_back(features, 0, 7, USED | WRITE), (Ok(Some((0, 7))), Ok(None)));
        assert_eq!(
            give_back(features, 0, 8, USED | WRITE).0,
            refused(0),
            "more than there is room"
        );
        assert_eq!(
            give_back(features, 0, 8, USED).0,
            Ok(Some((0, 0))),
            "a length without WRITE"
        );
        assert_eq!(give_back(features, 1, 0, USED).0, refused(1), "not in flight");
        assert_eq!(give_back(features, 4, 0, USED).0, refused(4), "beyond the queue");
        assert_eq!(give_back(features, 0xffff, 0, USED).0, refused(0xffff));
        assert_eq!(
            give_back(features, 0, 0, 0).0,
            Ok(None),
            "used in no round of this ring"
        );
    }
    let ring = Ring::new();
    ring.put(0, (0, 0), 0, USED);
    assert_eq!(
        ring.driver(0).take(),
        Err(DriverError::Device { id: 0 }),
        "nothing was sent"
    );
}

#[test]
fn a_packed_driver_refuses_what_the_specification_forbids_it() {
    let ring = Ring::new();
    let mut driver = ring.driver(0);
    let table = ring.memory.window(TABLE, 64).expect("within memory");
    let (readable, writable) = (Buffer::readable(0, u32::MAX), Buffer::writable(0, u32::MAX));
    assert_eq!(driver.add(&[]), Err(DriverError::Buffers(0)));
    assert_eq!(driver.add(&[readable; 5]), Err(DriverError::Buffers(5)));
    assert_eq!(driver.add(&[writable, readable]), Err(DriverError::Order));
    assert_eq!(
        driver.add(&[readable, writable]),
        Err(DriverError::Bytes(0x1_FFFF_FFFE))
    );
    assert_eq!(
        driver.add_indirect(table, TABLE, &[readable]),
        Err(DriverError::Buffers(1)),
        "not negotiated"
    );
    let flags = || ring.areas().descriptors.load_u16(14);
    assert_eq!((driver.free(), flags()), (4, 0), "nothing was made available");
    let small = Buffer::readable(0, 1);
    assert_eq!(driver.add(&[small; 3]), Ok(0));
    assert_eq!(driver.add(&[small; 2]), Err(DriverError::Full), "room for a part of it");
    assert_eq!(driver.free(), 1);
    assert_eq!(ring.areas().descriptors.load_u16(3 * 16 + 14), 0);
    for size in [0, 5, 257] {
        let refused = DriverQueue::<'_, 4>::new(ring.areas(), size, RING_PACKED).err();
        assert_eq!(refused, Some(DriverError::Size(size)));
    }
}

#[test]
fn a_batch_in_order_comes_back_chain_by_chain() {
    let ring = Ring::new();
    let mut driver = ring.driver(IN_ORDER);
    assert_eq!(driver.add(&[Buffer::readable(0, 1), Buffer::writable(0, 5)]), Ok(0));
    assert_eq!(driver.add(&[Buffer::writable(0, 7)]), Ok(2));
    assert_eq!(driver.add(&[Buffer::writable(0, 9)]), Ok(3));
    ring.put(0, (0, 6), 2, USED | WRITE);
    assert!(driver.arm());
    assert_eq!(driver.take(), Ok(Some((0, 5))), "used completely");
    assert!(driver.arm(), "the batch is not over");
    assert_eq!(driver.take(), Ok(Some((2, 6))));
    assert!(!driver.arm());
    assert_eq!((driver.take(), driver.free()), (Ok(None), 3));
}

#[test]
fn a_split_batch_in_order_comes_back_chain_by_chain() {
    let memory = Memory::new(MEMORY);
    let config = QueueConfig::placed(Format::Split, 0, SIZE).0;
    let areas = Areas::find(&memory, &config).expect("a good queue");
    let mut driver = DriverQueue::<'_, 4>::new(areas, SIZE, IN_ORDER).expect("a good queue");
    assert_eq!(driver.add(&[Buffer::readable(0, 1), Buffer::writable(0, 5)]), Ok(0));
    assert_eq!(driver.add(&[Buffer::writable(0, 7)]), Ok(2));
    areas.device.write_u32(4, 2);
    areas.device.write_u32(8, 6);
    areas.device.store_u16(2, 2);
    assert_eq!(driver.take(), Ok(Some((0, 5))), "used completely");
    assert_eq!(driver.take(), Ok(Some((2, 6))));
    assert_eq!((driver.take(), driver.free()), (Ok(None), 4));
    // Descriptors go round the table in order (section 2.7.5.2).
    assert_eq!(driver.add(&[Buffer::writable(0, 1), Buffer::writable(0, 2)]), Ok(3));
    let mut last = [0; 16];
    areas.descriptors.read(48, &mut last);
    assert_eq!(last[12..], [3, 0, 0, 0], "NEXT and WRITE, and 0 after the end");
    // An index that stops within a batch is no index a device may give.
    assert_eq!(driver.add(&[Buffer::writable(0, 1)]), Ok(1));
    areas.device.write_u32(4 + 8 * 2, 1);
    areas.device.write_u32(8 + 8 * 2, 0);
    areas.device.store_u16(2, 3);
    assert_eq!(driver.take(), Ok(Some((3, 3))));
    assert_eq!(driver.take(), Err(DriverError::Device { id: 1 }));
}

/// What a driver of three chains, 0 to 2, makes of a device that keeps no order: it uses chains by these IDs, each where
/// the number says, and of a split queue raises the index to the last number.
fn in_order(format: u64, used: &[(u16, u16)], index: u16) -> Vec<Result<u16, u32>> {
    let memory = Memory::new(MEMORY);
    let config = QueueConfig::placed(Format::of(format), 0, SIZE).0;
    let areas = Areas::find_as(Format::of(format), &memory, &config).expect("a good queue");
    let mut driver = DriverQueue::<'_, 4>::new(areas, SIZE, format | IN_ORDER).expect("a good queue");
    for id in 0..3 {
        assert_eq!(driver.add(&[Buffer::writable(0, 4)]), Ok(id));
    }
    for (slot, id) in used {
        let slot = usize::from(*slot);
        if format == RING_PACKED {
            areas.descriptors.write_u16(16 * slot + 12, *id);
            areas.descriptors.store_u16(16 * slot + 14, USED | WRITE);
        } else {
            areas.device.write_u32(4 + 8 * slot, (*id).into());
            areas.device.store_u16(2, index);
        }
    }
    let mut back = Vec::new();
    loop {
        match driver.take() {
            Ok(Some((id, _))) => back.push(Ok(id)),
            Ok(None) => return back,
            Err(DriverError::Device { id }) => {
                back.push(Err(id));
                return back;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn in_order_a_device_that_keeps_none_is_refused() {
    for format in [0, RING_PACKED] {
        let all = [Ok(0), Ok(1), Ok(2)];
        assert_eq!(in_order(format, &[(0, 0), (1, 1), (2, 2)], 3), all);
        assert_eq!(in_order(format, &[(0, 2)], 3), all, "a batch");
        assert_eq!(in_order(format, &[(0, 1), (2, 2)], 3), all, "a batch and one more");
        // Backwards: what is over comes again.
        assert_eq!(in_order(format, &[(0, 1), (2, 0)], 3), [Ok(0), Ok(1), Err(0)]);
        assert_eq!(in_order(format, &[(0, 0), (1, 0)], 2), [Ok(0), Err(0)]);
        assert_eq!(in_order(format, &[(0, 2), (3, 1)], 4), [Ok(0), Ok(1), Ok(2), Err(1)]);
        // What was never sent.
        assert_eq!(in_order(format, &[(0, 3)], 1), [Err(3)]);
    }
    // By its index the device has used fewer than by the ID.
    assert_eq!(in_order(0, &[(0, 2)], 2), [Ok(0), Ok(1), Err(2)]);
    assert_eq!(in_order(0, &[(0, 1)], 1), [Ok(0), Err(1)]);
    // And more than there are.
    assert_eq!(in_order(0, &[(0, 0)], 5), [Err(0)]);
}

#[test]
fn what_the_driver_writes_of_chains_and_tables_is_as_the_order_wants_it() {
    let buffers = [
        Buffer::readable(0x10, 1),
        Buffer::readable(0x20, 2),
        Buffer::writable(0x30, 3),
    ];
    for format in [0, RING_PACKED] {
        let memory = Memory::new(MEMORY);
        let config = QueueConfig::placed(Format::of(format), 0, SIZE).0;
        let areas = Areas::find_as(Format::of(format), &memory, &config).expect("a good queue");
        let features = format | IN_ORDER | INDIRECT_DESC;
        let mut driver = DriverQueue::<'_, 4>::new(areas, SIZE, features).expect("a good queue");
        let two = |window: Window<'_>, index: usize| {
            let mut bytes = [0; 4];
            window.read(16 * index + 12, &mut bytes);
            let [a, b, c, d] = bytes;
            (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
        };
        let table = memory.window(TABLE, 64).expect("within memory");
        table.write(0, &[0xFF; 64]);
        driver.add_indirect(table, TABLE, &buffers).expect("room for it");
        driver.add(&buffers).expect("room for it");
        let (tables, ring): (Vec<_>, Vec<_>) = (0..4).map(|i| (two(table, i), two(areas.descriptors, i))).unzip();
        if format == 0 {
            // Flags and next: each is followed by the one behind it, the table's last by none, and none by a table.
            assert_eq!(tables[..3], [(NEXT, 1), (NEXT, 2), (WRITE, 0)]);
            assert_eq!(ring, [(INDIRECT, 0), (NEXT, 2), (NEXT, 3), (WRITE, 0)]);
        } else {
            // ID and flags: nothing in a table but WRITE, and a table never in a list.
            assert_eq!(tables[..3], [(0, 0), (0, 0), (0, WRITE)]);
            let flags: Vec<_> = ring.iter().map(|(_, flags)| flags & !(AVAIL | USED)).collect();
            assert_eq!(flags, [INDIRECT, NEXT, NEXT, WRITE]);
            assert_eq!(ring[3].0, 1, "the last has the ID");
        }
        assert_eq!(tables[3], (0xFFFF, 0xFFFF), "nothing behind the table");
    }
}
