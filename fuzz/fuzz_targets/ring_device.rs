//! The device side of a ring on any memory.
#![no_main]

use chiton_fuzz::memory::Memory;
use chiton_fuzz::script::Script;
use chiton_shared::virtio::feature::{EVENT_IDX, INDIRECT_DESC};
use chiton_shared::virtio::ring::{Chain, DeviceQueue, QueueConfig};
use libfuzzer_sys::fuzz_target;

const MEMORY: usize = 0x1000;

fuzz_target!(|data: &[u8]| {
    let (mut script, image) = Script::split(data);
    let memory = Memory::new(MEMORY);
    memory.all().write(0, &image[..image.len().min(MEMORY)]);
    let choice = script.u8();
    let size = 1 << (choice % 10);
    let config = if choice & 0x80 == 0 {
        QueueConfig::packed_at(u64::from(script.u16() % 0x800), size).0
    } else {
        QueueConfig {
            size: script.u16(),
            descriptors: script.u64(),
            driver: script.u64(),
            device: script.u64(),
        }
    };
    let features = u64::from(script.u8()) << 28 & (EVENT_IDX | INDIRECT_DESC);
    let mut device = DeviceQueue::new(config, features);
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
                    held.push(chain.head());
                    assert!(held.len() <= usize::from(config.size));
                }
                Ok(false) => {}
                Err(_) => return,
            },
            2 | 3 => {
                if let Some(head) = held.pop() {
                    queue.push(head, script.u32());
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
});
