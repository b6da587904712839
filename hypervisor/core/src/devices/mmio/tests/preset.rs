//! Devices made ready by the host.

use std::vec;
use std::vec::Vec;

use chiton_shared::boot::{CONFIG_BYTES, QUEUE_MAX, QueueEntry, queue_address};
use chiton_shared::virtio::ring::layout::{descriptor_bytes, device_bytes, driver_bytes};
use chiton_shared::virtio::ring::{Format, QueueConfig};
use chiton_shared::{doorbell, map};

use super::super::super::testing::WORLD;
use super::super::{Preset, PresetError, Transport, preset_all, preset_all_in};
use super::driver::*;
use super::registers::{block, console, entropy};

#[test]
fn the_registers_and_the_boot_page_tell_the_same() {
    let (mut console, port) = console();
    port.state().size = (132, 43);
    assert!(!console.config_changed().notify, "there is no driver yet");
    let mut transports = [console, block(9).0, entropy()];
    let Preset { devices, queues: table } = preset_all(&mut transports).unwrap();
    let mut first = 0;
    for (index, (transport, entry)) in transports.iter_mut().zip(&devices).enumerate() {
        assert_eq!(
            (entry.kick, entry.registers),
            (doorbell::kick(index), map::device_registers(index))
        );
        assert_eq!(read(transport, DEVICE_ID), entry.id);
        assert_eq!(read(transport, STATUS), 15);
        assert!(transport.is_live());
        let mut config = [0; CONFIG_BYTES];
        transport.read(CONFIG, &mut config);
        assert_eq!(entry.config, config);
        assert_eq!(entry.features & !RING_FEATURES, transport.features() & !RING_FEATURES);
        let order = transport.features() & IN_ORDER;
        assert_eq!(
            entry.features & RING_FEATURES,
            INDIRECT_DESC | EVENT_IDX | VERSION_1 | RING_RESET | order
        );
        assert_eq!(entry.queues, queue_address(first));
        let queues = &table[first..first + usize::from(entry.queue_count)];
        for (number, queue) in (first..).zip(queues) {
            assert_eq!(queue.vector as usize, 0x30 + number);
        }
        first += queues.len();
        for (index, queue) in (0..).zip(queues) {
            set(transport, QUEUE_SEL, index);
            assert_eq!(read(transport, QUEUE_READY), 1);
            assert_eq!(read(transport, QUEUE_SIZE_MAX), queue.size);
        }
        set(transport, QUEUE_SEL, queues.len() as u32);
        assert_eq!(read(transport, QUEUE_READY), 0);
        assert_eq!(read(transport, QUEUE_SIZE_MAX), 0);
    }
    assert_eq!(devices[0].config[..4], [132, 0, 43, 0]);
}

#[test]
fn as_many_devices_as_the_map_holds_have_queues_that_do_not_touch() {
    let mut transports: Vec<_> = (0..map::DEVICE_MAX)
        .map(|i| if i % 2 == 0 { block(1).0 } else { console().0 })
        .collect();
    let queues = preset_all(&mut transports).unwrap().queues;
    let mut parts = Vec::new();
    for queue in queues {
        let size = queue.size as u16;
        for (address, alignment) in [(queue.descriptors, 16), (queue.driver, 2), (queue.device, 4)] {
            assert!(address.is_multiple_of(alignment), "{address:#x}");
        }
        parts.push((queue.descriptors, descriptor_bytes(size)));
        parts.push((queue.driver, driver_bytes(size)));
        parts.push((queue.device, device_bytes(size)));
    }
    parts.sort_unstable();
    assert!(parts.first().is_some_and(|first| first.0 >= map::QUEUES));
    assert!(
        parts
            .last()
            .is_some_and(|last| last.0 + last.1 as u64 <= map::QUEUES_END)
    );
    assert!(parts.windows(2).all(|two| two[0].0 + two[0].1 as u64 <= two[1].0));

    transports.push(entropy());
    assert_eq!(
        preset_all(&mut transports).unwrap_err(),
        PresetError::TooManyDevices(map::DEVICE_MAX)
    );
}

#[test]
fn a_preset_that_cannot_be_leaves_the_device_as_after_a_reset() {
    let good = QueueConfig::packed_at(map::QUEUES, 8).0;
    let large = QueueConfig::packed_at(map::QUEUES, 16).0;
    let low = QueueConfig::packed_at(WORLD, 8).0;
    let unusable = |config| PresetError::Queue { queue: 0, config };
    let count = |given| PresetError::QueueCount { given, has: 1 };
    let (most, all) = (map::DEVICE_MAX, u64::MAX);
    let cases = [
        (most, all, vec![good], 0, PresetError::TooManyDevices(most)),
        (0, all, vec![], 0, count(0)),
        (0, all, vec![good, good], 0, count(2)),
        (0, all, vec![large], 0, unusable(large)),
        (0, all, vec![low], 0, unusable(low)),
        (0, EVENT_IDX, vec![good], 0, PresetError::Features(EVENT_IDX)),
        (0, all, vec![good], QUEUE_MAX, PresetError::TooManyQueues(QUEUE_MAX + 1)),
    ];
    for (index, features, queues, before, error) in cases {
        let mut transport = entropy();
        let mut table = vec![QueueEntry::default(); before];
        transport.preset(0, u64::MAX, &[good], &mut Vec::new()).unwrap();
        let refused = transport.preset(index, features, &queues, &mut table);
        assert_eq!(refused.unwrap_err(), error);
        assert_eq!(table.len(), before);
        assert_eq!(read(&transport, STATUS), 0);
        assert_eq!(read(&transport, QUEUE_READY), 0);
    }
}

#[test]
fn a_driver_may_start_over_from_the_registers() {
    let mut transports = [block(1).0];
    preset_all(&mut transports).unwrap();
    let [mut transport] = transports;
    assert_eq!(negotiate(&mut transport, VERSION_1), Some(VERSION_1));
    set(&mut transport, QUEUE_SEL, 0);
    assert_eq!(read(&transport, QUEUE_READY), 0);
}

#[test]
fn queues_are_packed_if_the_host_will_have_it_so() {
    let mut transports = [console().0, block(9).0, entropy()];
    let Preset { devices, queues } = preset_all_in(Format::Packed, &mut transports).unwrap();
    let mut other = [console().0, block(9).0, entropy()];
    let split = preset_all(&mut other).unwrap();
    for (entry, split) in devices.iter().zip(split.devices) {
        assert_eq!(entry.features, split.features | RING_PACKED);
    }
    assert_eq!(queues, split.queues);
    assert!(transports.iter().all(Transport::is_live));
}
