//! Each side of a ring, of either format, against the fuzzer.

use chiton_shared::memory::GuestMemory;
use chiton_shared::virtio::feature::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, RING_PACKED};
use chiton_shared::virtio::ring::{Areas, Buffer, Chain, DeviceQueue, DriverQueue, Format, QueueConfig};

use crate::memory::Memory;
use crate::script::Script;

const MEMORY: usize = 0x1000;
const TABLE: u64 = 0xF00;

/// The features of a format and the bits of a byte.
fn features(format: Format, bits: u8) -> u64 {
    let packed = if format == Format::Packed { RING_PACKED } else { 0 };
    let order = if bits & 4 != 0 { IN_ORDER } else { 0 };
    u64::from(bits) << 28 & (EVENT_IDX | INDIRECT_DESC) | packed | order
}

/// The device side on any memory.
pub fn device(format: Format, data: &[u8]) {
    let (mut script, image) = Script::split(data);
    let memory = Memory::new(MEMORY);
    memory.all().write(0, &image[..image.len().min(MEMORY)]);
    let choice = script.u8();
    let size = 1 << (choice % 10);
    let config = if choice & 0x80 == 0 {
        QueueConfig::placed(format, u64::from(script.u16() % 0x800), size).0
    } else {
        QueueConfig {
            size: script.u16(),
            descriptors: script.u64(),
            driver: script.u64(),
            device: script.u64(),
        }
    };
    let mut device = DeviceQueue::new(config, features(format, script.u8()));
    let mut chain = Chain::new();
    let mut held = Vec::new();
    while !script.is_empty() {
        let Ok(mut queue) = device.attach(&memory) else { return };
        match script.u8() % 8 {
            0 | 1 => match queue.pop(&mut chain) {
                Ok(true) => {
                    let buffers = [chain.readable(), chain.writable()].concat();
                    assert!((1..=usize::from(config.size)).contains(&buffers.len()));
                    assert!(buffers.is_sorted_by_key(|b| b.write));
                    assert!(chain.readable_bytes() + chain.writable_bytes() <= 1 << 32);
                    assert!(chain.head() < config.size);
                    assert!(format == Format::Split || !held.contains(&chain.head()));
                    held.push(chain.head());
                    assert!(held.len() <= usize::from(config.size));
                }
                Ok(false) => {}
                Err(_) => return,
            },
            2 | 3 => {
                let which = usize::from(script.u8());
                if !held.is_empty() {
                    queue.push(held.swap_remove(which % held.len()), script.u32());
                }
            }
            4 => {
                let _ = queue.wants_notification();
            }
            5 => {
                let _ = queue.enable_kicks();
            }
            6 => queue.disable_kicks(),
            _ => {
                let at = usize::from(script.u16()) % (MEMORY - 8);
                memory.all().write(at, &script.u64().to_le_bytes()[..1 + at % 8]);
            }
        }
    }
}

/// The driver side against any device.
pub fn driver(format: Format, data: &[u8]) {
    let mut script = Script::new(data);
    let memory = Memory::new(MEMORY);
    let choice = script.u8();
    let size = match format {
        Format::Split => 1 << (choice % 7),
        Format::Packed => 1 + u16::from(choice % 64),
    };
    let (config, end) = QueueConfig::placed(format, 0, size);
    let areas = Areas::find_as(format, &memory, &config).expect("it fits");
    let features = features(format, script.u8());
    let mut driver = DriverQueue::<'_, 64>::new(areas, size, features).expect("a good queue");
    let mut in_flight: Vec<(u16, usize, u64)> = Vec::new();
    while !script.is_empty() {
        match script.u8() % 8 {
            0 | 1 => {
                let buffers: Vec<_> = (0..script.u8() % 6)
                    .map(|_| Buffer {
                        address: 0,
                        len: script.u32() >> 8,
                        write: script.u8() & 1 != 0,
                    })
                    .collect();
                let room = buffers.iter().filter(|b| b.write).map(|b| u64::from(b.len)).sum();
                let indirect = script.u8() & 1 != 0;
                let (added, descriptors) = if indirect {
                    let table = memory.window(TABLE, 0x50).expect("within memory");
                    (driver.add_indirect(table, TABLE, &buffers), 1)
                } else {
                    (driver.add(&buffers), buffers.len())
                };
                if let Ok(head) = added {
                    assert!(buffers.is_sorted_by_key(|b| b.write) && !buffers.is_empty());
                    assert!(in_flight.iter().all(|(h, ..)| *h != head));
                    in_flight.push((head, descriptors, room));
                }
            }
            2 | 3 => match driver.take() {
                Ok(Some((head, written))) => {
                    let was = in_flight
                        .iter()
                        .position(|(h, ..)| *h == head)
                        .expect("only what was sent comes back");
                    assert!(features & IN_ORDER == 0 || was == 0, "the oldest first");
                    let (_, _, room) = in_flight.remove(was);
                    assert!(u64::from(written) <= room);
                }
                Ok(None) => {}
                Err(_) => return,
            },
            4 => {
                let _ = driver.wants_kick();
                let _ = driver.notification_data(0);
            }
            5 => {
                let _ = driver.arm();
                driver.disarm();
            }
            6 => {
                // What is used next, as a device might write it.
                let slot = usize::from(script.u8()) % usize::from(size);
                let (id, written) = (script.u8(), script.u8());
                match format {
                    Format::Split => {
                        areas.device.write_u32(4 + 8 * slot, u32::from(id));
                        areas.device.write_u32(8 + 8 * slot, u32::from(written));
                        areas.device.store_u16(2, areas.device.load_u16(2).wrapping_add(1));
                    }
                    Format::Packed => {
                        areas.descriptors.write_u32(16 * slot + 8, u32::from(written));
                        areas.descriptors.write_u16(16 * slot + 12, u16::from(id));
                        let flags = if script.u8() & 1 != 0 { 0x8082 } else { 2 };
                        areas.descriptors.store_u16(16 * slot + 14, flags);
                    }
                }
            }
            _ => {
                let at = usize::from(script.u16()) % (end as usize - 1);
                memory.all().write(at, &script.u16().to_le_bytes());
            }
        }
        let lent: usize = in_flight.iter().map(|(_, descriptors, _)| descriptors).sum();
        assert_eq!(usize::from(driver.free()) + lent, usize::from(size));
    }
}
