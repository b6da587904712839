//! The driver side of a ring against any device.
#![no_main]

use chiton_fuzz::memory::Memory;
use chiton_fuzz::script::Script;
use chiton_shared::memory::GuestMemory;
use chiton_shared::virtio::feature::{EVENT_IDX, INDIRECT_DESC};
use chiton_shared::virtio::ring::{Areas, Buffer, DriverQueue, QueueConfig};
use libfuzzer_sys::fuzz_target;

const MEMORY: usize = 0x1000;
const TABLE: u64 = 0xF00;

fuzz_target!(|data: &[u8]| {
    let mut script = Script::new(data);
    let memory = Memory::new(MEMORY);
    let size = 1 << (script.u8() % 7);
    let (config, end) = QueueConfig::packed_at(0, size);
    let areas = Areas::find(&memory, &config).expect("it fits");
    let features = u64::from(script.u8()) << 28 & (EVENT_IDX | INDIRECT_DESC);
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
                    let (_, _, room) = in_flight.swap_remove(was);
                    assert!(u64::from(written) <= room);
                }
                Ok(None) => {}
                Err(_) => return,
            },
            4 => {
                let _ = driver.wants_kick();
            }
            5 => {
                let _ = driver.arm();
                driver.disarm();
            }
            6 => {
                // A used element, as a device might write it.
                let slot = usize::from(script.u8()) % usize::from(size);
                areas.device.write_u32(4 + 8 * slot, u32::from(script.u8()));
                areas.device.write_u32(8 + 8 * slot, u32::from(script.u8()));
                areas.device.store_u16(2, areas.device.load_u16(2).wrapping_add(1));
            }
            _ => {
                let at = usize::from(script.u16()) % (end as usize - 1);
                memory.all().write(at, &script.u16().to_le_bytes());
            }
        }
        let lent: usize = in_flight.iter().map(|(_, descriptors, _)| descriptors).sum();
        assert_eq!(usize::from(driver.free()) + lent, usize::from(size));
    }
});
