//! One side against memory in which anything stands: it refuses what is wrong, and comes to an
//! end; never a panic, and never more work than the queue is long.
#![cfg(not(loom))]

mod common;

use chiton_ring::feature::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, RING_PACKED};
use chiton_ring::memory::{GuestMemory, Window};
use chiton_ring::{Areas, Buffer, Chain, DeviceQueue, DriverError, DriverQueue, Format, QueueConfig, QueueError};
use common::Memory;
use proptest::prelude::*;

const MEMORY: usize = 0x800;

fn config() -> ProptestConfig {
    let cases = if cfg!(miri) { 6 } else { 4096 };
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Memory with small numbers here and there, so that indices and flags often mean something.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    any::<u64>().prop_map(|mut seed| {
        let mut byte = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            match (seed >> 33) % 10 {
                0..5 => 0,
                5..9 => (seed >> 40) as u8 % 8,
                _ => (seed >> 40) as u8,
            }
        };
        // Miri takes longer to make them than to use them.
        let different = if cfg!(miri) { 256 } else { MEMORY };
        (0..different)
            .map(|_| byte())
            .collect::<Vec<_>>()
            .repeat(MEMORY / different)
    })
}

/// A queue anywhere. Under Miri its parts do not overlap: see [`Memory::filled`].
fn queue() -> impl Strategy<Value = QueueConfig> {
    let near =
        || prop_oneof![8 => (0..MEMORY as u64 / 16).prop_map(|n| n * 16), 1 => any::<u64>(), 1 => u64::MAX - 64..];
    let size = prop_oneof![8 => (0..=6u32).prop_map(|n| 1 << n), 1 => any::<u16>()];
    (size, near(), near(), near()).prop_map(|(size, descriptors, driver, device)| {
        let anywhere = QueueConfig {
            size,
            descriptors,
            driver,
            device,
        };
        if cfg!(miri) {
            QueueConfig::packed_at(descriptors % 0x100, 1 << (size % 6)).0
        } else {
            anywhere
        }
    })
}

fn features() -> impl Strategy<Value = u64> {
    let ring = prop::sample::select(vec![0, EVENT_IDX, INDIRECT_DESC, EVENT_IDX | INDIRECT_DESC]);
    // Miri cannot follow accesses of different widths that a ring without a driver consists of.
    let format = prop::sample::select(if cfg!(miri) { vec![0] } else { vec![0, RING_PACKED] });
    let order = prop::sample::select(vec![0, IN_ORDER]);
    (ring, format, order).prop_map(|(ring, format, order)| ring | format | order)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_device_side_survives_any_memory(
        bytes in bytes(),
        config in queue(),
        features in features(),
        writes in prop::collection::vec((0..MEMORY - 1, any::<u16>()), 0..8),
        written in any::<u32>(),
    ) {
        let memory = Memory::filled(&bytes);
        let mut device = DeviceQueue::new(config, features);
        let mut chain = Chain::new();
        let Ok(mut queue) = device.attach(&memory) else {
            prop_assert!(Areas::find_as(Format::of(features), &memory, &config).is_none());
            return Ok(());
        };
        // Without giving any back, no more than the queue holds.
        let mut popped = Vec::new();
        while let Ok(true) = queue.pop(&mut chain) {
            let buffers = chain.readable().len() + chain.writable().len();
            prop_assert!((1..=usize::from(config.size)).contains(&buffers));
            prop_assert!(chain.readable_bytes() + chain.writable_bytes() <= 1 << 32);
            prop_assert!(features & RING_PACKED == 0 || !popped.contains(&chain.head()));
            popped.push(chain.head());
            prop_assert!(popped.len() <= usize::from(config.size));
        }
        for head in popped {
            queue.push(head, written);
        }
        for (at, value) in writes {
            if cfg!(miri) {
                memory.window(config.driver, 8).expect("the available ring").store_u16(at % 4 * 2, value);
            } else {
                memory.all().write(at, &value.to_le_bytes());
            }
            let _ = queue.wants_notification();
            if queue.enable_kicks() && queue.pop(&mut chain) == Ok(true) {
                queue.push(chain.head(), written);
            }
            queue.disable_kicks();
        }
    }

    #[test]
    fn the_driver_side_survives_any_device(
        bytes in bytes(),
        log2 in 0..=4u32,
        features in features(),
        steps in prop::collection::vec((0..6u8, 0..MEMORY - 1, any::<u16>()), 0..64),
    ) {
        let memory = Memory::filled(&bytes);
        let format = Format::of(features);
        let (config, end) = QueueConfig::placed(format, 0, 1 << log2);
        prop_assert!(end <= MEMORY as u64);
        let areas = Areas::find_as(format, &memory, &config).expect("a good queue");
        let mut driver = DriverQueue::<'_, 16>::new(areas, config.size, features).expect("a good queue");
        let mut in_flight = Vec::new();
        for (step, at, value) in steps {
            match step {
                0 | 1 => {
                    let buffers = [Buffer::readable(0, 8), Buffer::writable(8, u32::from(value))];
                    in_flight.extend(driver.add(&buffers[usize::from(step)..]));
                }
                // The device writes a likely descriptor, index, or entry, or anything anywhere.
                2 | 4 if format == Format::Packed => {
                    let slot = 16 * (at % usize::from(config.size));
                    areas.descriptors.write_u32(slot + 8, u32::from(value % 20));
                    areas.descriptors.write_u16(slot + 12, value % 5);
                    areas.descriptors.store_u16(slot + 14, if value & 64 == 0 { 0x8082 } else { 2 });
                }
                2 => areas.device.store_u16(2, value % 4),
                3 if cfg!(miri) => areas.device.store_u16(at % 2 * 2, value),
                3 => memory.all().write(at, &value.to_le_bytes()),
                4 => areas.device.write_u32(4 + 8 * (at % usize::from(config.size)), u32::from(value % 20)),
                _ => {
                    let _ = driver.wants_kick();
                    if driver.arm() {
                        match driver.take() {
                            Ok(Some((head, _))) => {
                                let was = in_flight.iter().position(|h| *h == head);
                                prop_assert!(was.is_some(), "{} came back and was not sent", head);
                                prop_assert!(features & IN_ORDER == 0 || was == Some(0));
                                in_flight.remove(was.expect("just seen"));
                            }
                            Ok(None) => {}
                            Err(DriverError::Device { .. }) => {}
                            Err(error) => prop_assert!(false, "{}", error),
                        }
                    }
                    driver.disarm();
                }
            }
            prop_assert!(usize::from(driver.free()) + in_flight.len() <= usize::from(config.size));
        }
    }
}

/// A queue of four descriptors in memory of its own.
struct Ring {
    memory: Memory,
    config: QueueConfig,
}

impl Ring {
    fn new() -> Self {
        Self {
            memory: Memory::new(MEMORY),
            config: QueueConfig::packed_at(0, 4).0,
        }
    }

    fn descriptor(&self, index: usize, (address, len): (u64, u32), flags: u16, next: u16) {
        let at = index * 16;
        self.memory.all().write(at, &address.to_le_bytes());
        self.memory.all().write(at + 8, &len.to_le_bytes());
        self.memory.all().write(at + 12, &flags.to_le_bytes());
        self.memory.all().write(at + 14, &next.to_le_bytes());
    }

    fn available(&self, index: u16, heads: &[u16]) {
        let driver = Areas::find(&self.memory, &self.config).expect("a good queue").driver;
        for (i, head) in heads.iter().enumerate() {
            driver.store_u16(4 + 2 * i, *head);
        }
        driver.store_u16(2, index);
    }

    fn pop(&self, features: u64) -> Result<bool, QueueError> {
        let mut device = DeviceQueue::new(self.config, features);
        device.attach(&self.memory)?.pop(&mut Chain::new())
    }
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

#[test]
fn an_available_index_beyond_the_queue_is_refused() {
    let ring = Ring::new();
    ring.available(5, &[0]);
    assert_eq!(ring.pop(0), Err(QueueError::AvailableIndex(5)));
}

#[test]
fn a_head_beyond_the_table_is_refused() {
    let ring = Ring::new();
    ring.available(1, &[4]);
    assert_eq!(ring.pop(0), Err(QueueError::DescriptorIndex(4)));
}

#[test]
fn a_successor_beyond_the_table_is_refused() {
    let ring = Ring::new();
    ring.descriptor(0, (0, 1), NEXT, 4);
    ring.available(1, &[0]);
    assert_eq!(ring.pop(0), Err(QueueError::DescriptorIndex(4)));
}

#[test]
fn a_loop_is_refused() {
    let ring = Ring::new();
    ring.descriptor(0, (0, 1), NEXT, 1);
    ring.descriptor(1, (0, 1), NEXT, 0);
    ring.available(1, &[0]);
    assert_eq!(ring.pop(0), Err(QueueError::ChainLength));
}

#[test]
fn a_loop_within_an_indirect_table_is_refused() {
    let ring = Ring::new();
    let table = 0x400;
    ring.descriptor(0, (table, 32), INDIRECT, 0);
    ring.descriptor(0x40, (0, 1), NEXT, 1);
    ring.descriptor(0x41, (0, 1), NEXT, 0);
    ring.available(1, &[0]);
    assert_eq!(ring.pop(INDIRECT_DESC), Err(QueueError::ChainLength));
}

#[test]
fn readable_after_writable_is_refused() {
    let ring = Ring::new();
    ring.descriptor(0, (0, 1), NEXT | WRITE, 1);
    ring.descriptor(1, (0, 1), 0, 0);
    ring.available(1, &[0]);
    assert_eq!(ring.pop(0), Err(QueueError::Order));
}

#[test]
fn a_chain_may_have_two_to_the_32_bytes_and_not_one_more() {
    let ring = Ring::new();
    ring.descriptor(0, (0, u32::MAX), NEXT, 1);
    ring.descriptor(1, (0, 1), 0, 0);
    ring.available(1, &[0]);
    assert_eq!(ring.pop(0), Ok(true));
    ring.descriptor(1, (0, 2), WRITE, 0);
    assert_eq!(ring.pop(0), Err(QueueError::TooManyBytes));
}

#[test]
fn indirect_descriptors_are_refused_where_none_may_be() {
    let ring = Ring::new();
    ring.descriptor(0, (0x400, 16), INDIRECT, 0);
    ring.available(1, &[0]);
    assert_eq!(ring.pop(0), Err(QueueError::Indirect), "not negotiated");
    assert_eq!(ring.pop(INDIRECT_DESC), Ok(true));
    ring.descriptor(0x40, (0x400, 16), INDIRECT, 0);
    assert_eq!(ring.pop(INDIRECT_DESC), Err(QueueError::Indirect), "within a table");
    ring.descriptor(0, (0x400, 16), INDIRECT | NEXT, 1);
    assert_eq!(ring.pop(INDIRECT_DESC), Err(QueueError::Indirect), "with a successor");
}

#[test]
fn indirect_tables_are_refused_if_empty_ragged_or_outside_memory() {
    for (address, len) in [
        (0x400, 0),
        (0x400, 24),
        (0x400, 8),
        (MEMORY as u64, 16),
        (u64::MAX - 7, 16),
        (0, u32::MAX - 15),
    ] {
        let ring = Ring::new();
        ring.descriptor(0, (address, len), INDIRECT, 0);
        ring.available(1, &[0]);
        assert_eq!(ring.pop(INDIRECT_DESC), Err(QueueError::IndirectTable { address, len }));
    }
}

#[test]
fn a_chain_through_ring_and_table_is_no_longer_than_the_queue() {
    let ring = Ring::new();
    ring.descriptor(0, (0, 1), NEXT, 1);
    ring.descriptor(1, (0x400, 64), INDIRECT, 0);
    for i in 0..4 {
        ring.descriptor(0x40 + i, (0, 1), if i < 3 { NEXT } else { 0 }, i as u16 + 1);
    }
    ring.available(1, &[0]);
    assert_eq!(ring.pop(INDIRECT_DESC), Err(QueueError::ChainLength));
    ring.descriptor(0x42, (0, 1), 0, 0);
    assert_eq!(ring.pop(INDIRECT_DESC), Ok(true));
}

#[test]
fn a_driver_that_lends_out_more_chains_than_it_has_descriptors_is_refused() {
    let ring = Ring::new();
    let mut device = DeviceQueue::new(ring.config, 0);
    let mut chain = Chain::new();
    let mut queue = device.attach(&ring.memory).expect("a good queue");
    for index in 1..=4 {
        ring.available(index, &[0]);
        assert_eq!(queue.pop(&mut chain), Ok(true));
    }
    ring.available(5, &[0]);
    assert_eq!(queue.pop(&mut chain), Err(QueueError::AvailableIndex(1)));
    queue.push(0, 0);
    assert_eq!(queue.pop(&mut chain), Ok(true));
}

#[test]
fn a_queue_outside_memory_misaligned_or_of_a_bad_size_is_refused() {
    let memory = Memory::new(MEMORY);
    let good = QueueConfig::packed_at(0, 4).0;
    let end = MEMORY as u64;
    let bad = [
        QueueConfig { size: 0, ..good },
        QueueConfig { size: 3, ..good },
        QueueConfig { size: 512, ..good },
        QueueConfig { descriptors: 8, ..good },
        QueueConfig {
            driver: good.driver + 1,
            ..good
        },
        QueueConfig {
            device: good.device + 2,
            ..good
        },
        QueueConfig {
            descriptors: end - 48,
            ..good
        },
        QueueConfig {
            driver: end - 12,
            ..good
        },
        QueueConfig {
            device: end - 36,
            ..good
        },
        QueueConfig {
            device: u64::MAX - 3,
            ..good
        },
    ];
    assert!(DeviceQueue::new(good, 0).attach(&memory).is_ok());
    for config in bad {
        assert!(
            matches!(DeviceQueue::new(config, 0).attach(&memory), Err(QueueError::Placement)),
            "{config:?}"
        );
    }
}

/// Memory that begins at an odd address on the host.
struct Odd(Memory);

impl GuestMemory for Odd {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        self.0.window(address.checked_add(1)?, len)
    }
}

#[test]
fn a_queue_that_is_misaligned_on_the_host_is_an_error_and_no_panic() {
    let memory = Odd(Memory::new(MEMORY));
    let config = QueueConfig::packed_at(0, 4).0;
    assert!(matches!(
        DeviceQueue::new(config, 0).attach(&memory),
        Err(QueueError::Placement)
    ));
    let all = memory.0.all();
    let areas = |driver: usize, device: usize| {
        let window = |at: usize| all.part(at, 64).expect("within memory");
        Areas {
            descriptors: window(1),
            driver: window(128 + driver),
            device: window(256 + device),
        }
    };
    let refused = |areas| DriverQueue::<'_, 4>::new(areas, 4, 0).err() == Some(DriverError::Size(4));
    assert!(!refused(areas(0, 0)), "descriptors are read as bytes");
    assert!(refused(areas(1, 0)));
    assert!(refused(areas(0, 2)));
}

#[test]
fn the_driver_side_refuses_what_the_specification_forbids_it() {
    let ring = Ring::new();
    let areas = Areas::find(&ring.memory, &ring.config).expect("a good queue");
    let mut driver = DriverQueue::<'_, 8>::new(areas, 4, 0).expect("a good queue");
    let table = ring.memory.window(0x400, 64).expect("within memory");
    let (readable, writable) = (Buffer::readable(0, u32::MAX), Buffer::writable(0, u32::MAX));
    assert_eq!(driver.add(&[]), Err(DriverError::Buffers(0)));
    assert_eq!(driver.add(&[readable; 5]), Err(DriverError::Buffers(5)));
    assert_eq!(driver.add(&[writable, readable]), Err(DriverError::Order));
    assert_eq!(
        driver.add(&[readable, writable]),
        Err(DriverError::Bytes(0x1_FFFF_FFFE))
    );
    assert_eq!(
        driver.add_indirect(table, 0x400, &[readable]),
        Err(DriverError::Buffers(1)),
        "not negotiated"
    );
    assert_eq!(driver.free(), 4);
    assert_eq!(areas.driver.load_u16(2), 0);
    let small = Buffer::readable(0, 1);
    assert_eq!(driver.add(&[small; 3]), Ok(0));
    assert_eq!(driver.add(&[small; 2]), Err(DriverError::Full), "room for a part of it");
    assert_eq!((driver.free(), areas.driver.load_u16(2)), (1, 1));
    for size in [0, 3, 16, 512] {
        assert_eq!(
            DriverQueue::<'_, 8>::new(areas, size, 0).err(),
            Some(DriverError::Size(size))
        );
    }
}

#[test]
fn the_driver_side_refuses_what_no_device_may_give_back() {
    let give_back = |index: u16, id: u32, written: u32| {
        let ring = Ring::new();
        let areas = Areas::find(&ring.memory, &ring.config).expect("a good queue");
        let mut driver = DriverQueue::<'_, 4>::new(areas, 4, 0).expect("a good queue");
        assert_eq!(driver.add(&[Buffer::readable(0, 9), Buffer::writable(0, 7)]), Ok(0));
        areas.device.write_u32(4, id);
        areas.device.write_u32(8, written);
        areas.device.store_u16(2, index);
        let first = driver.take();
        let second = first.and_then(|_| driver.take());
        (first, second)
    };
    assert_eq!(give_back(1, 0, 7), (Ok(Some((0, 7))), Ok(None)));
    assert_eq!(
        give_back(1, 0, 8).0,
        Err(DriverError::Device { id: 0 }),
        "more written than there was room for"
    );
    assert_eq!(give_back(1, 1, 0).0, Err(DriverError::Device { id: 1 }), "no head");
    assert_eq!(
        give_back(1, 4, 0).0,
        Err(DriverError::Device { id: 4 }),
        "beyond the queue"
    );
    assert_eq!(
        give_back(1, 0x1_0000, 0).0,
        Err(DriverError::Device { id: 0x1_0000 }),
        "beyond 16 bits"
    );
    assert_eq!(
        give_back(5, 0, 7).0,
        Err(DriverError::Device { id: 0 }),
        "an index beyond the queue"
    );
    assert_eq!(
        give_back(2, 0, 7).1,
        Err(DriverError::Device { id: 0 }),
        "more chains than were sent"
    );
}
