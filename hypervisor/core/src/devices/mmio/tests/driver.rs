//! A virtio-mmio driver written from virtio 1.3 alone: its own constants, its own ring, one
//! memory access and one register access at a time. It shares nothing with Chiton's own driver
//! but the memory.

use std::vec::Vec;

use chiton_shared::memory::GuestMemory;

use super::super::super::testing::Memory;
use super::super::{Effect, Outcome, Transport};

// Table 4.1.
pub(super) const MAGIC_VALUE: u64 = 0x000;
pub(super) const VERSION: u64 = 0x004;
pub(super) const DEVICE_ID: u64 = 0x008;
pub(super) const DEVICE_FEATURES: u64 = 0x010;
pub(super) const DEVICE_FEATURES_SEL: u64 = 0x014;
pub(super) const DRIVER_FEATURES: u64 = 0x020;
pub(super) const DRIVER_FEATURES_SEL: u64 = 0x024;
pub(super) const QUEUE_SEL: u64 = 0x030;
pub(super) const QUEUE_SIZE_MAX: u64 = 0x034;
pub(super) const QUEUE_SIZE: u64 = 0x038;
pub(super) const QUEUE_READY: u64 = 0x044;
pub(super) const QUEUE_NOTIFY: u64 = 0x050;
pub(super) const INTERRUPT_STATUS: u64 = 0x060;
pub(super) const INTERRUPT_ACK: u64 = 0x064;
pub(super) const STATUS: u64 = 0x070;
pub(super) const QUEUE_DESC: u64 = 0x080;
pub(super) const QUEUE_DRIVER: u64 = 0x090;
pub(super) const QUEUE_DEVICE: u64 = 0x0a0;
pub(super) const QUEUE_RESET: u64 = 0x0c0;
pub(super) const CONFIG_GENERATION: u64 = 0x0fc;
pub(super) const CONFIG: u64 = 0x100;

// Section 6.
pub(super) const INDIRECT_DESC: u64 = 1 << 28;
pub(super) const EVENT_IDX: u64 = 1 << 29;
pub(super) const VERSION_1: u64 = 1 << 32;
pub(super) const RING_PACKED: u64 = 1 << 34;
pub(super) const IN_ORDER: u64 = 1 << 35;
pub(super) const NOTIFICATION_DATA: u64 = 1 << 38;
pub(super) const RING_RESET: u64 = 1 << 40;
/// Bits 24 to 49, which do not depend on the device.
pub(super) const RING_FEATURES: u64 = (1 << 50) - (1 << 24);

// Section 2.7.5.
pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

pub(super) fn read(transport: &Transport, offset: u64) -> u32 {
    let mut bytes = [0xff; 4];
    transport.read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

pub(super) fn write(transport: &mut Transport, offset: u64, value: u32) -> Effect {
    transport.write(offset, &value.to_le_bytes())
}

/// Writes that the test expects to be taken.
pub(super) fn set(transport: &mut Transport, offset: u64, value: u32) {
    let effect = write(transport, offset, value);
    assert!(
        !matches!(effect, Effect::Ignored(_)),
        "{value:#x} at {offset:#x}: {effect:?}"
    );
}

/// Steps 1 to 6 of section 3.1.1. Returns the features that were negotiated, or `None` if the
/// device refused them.
pub(super) fn negotiate(transport: &mut Transport, wanted: u64) -> Option<u64> {
    assert_eq!(read(transport, MAGIC_VALUE), u32::from_le_bytes(*b"virt"));
    assert_eq!(read(transport, VERSION), 2);
    assert_ne!(read(transport, DEVICE_ID), 0);
    set(transport, STATUS, 0);
    assert_eq!(read(transport, STATUS), 0);
    set(transport, STATUS, 1);
    set(transport, STATUS, 1 | 2);
    let mut offered = 0;
    for half in [0, 1] {
        set(transport, DEVICE_FEATURES_SEL, half);
        offered |= u64::from(read(transport, DEVICE_FEATURES)) << (32 * half);
    }
    let accepted = offered & wanted;
    for half in [0, 1] {
        set(transport, DRIVER_FEATURES_SEL, half);
        set(transport, DRIVER_FEATURES, (accepted >> (32 * half)) as u32);
    }
    let _ = write(transport, STATUS, 1 | 2 | 8);
    (read(transport, STATUS) & 8 != 0).then_some(accepted)
}

/// Section 4.2.3.2, with the queue's parts where the caller wants them.
pub(super) fn set_up_queue(transport: &mut Transport, index: u32, size: u32, parts: [u64; 3]) {
    set(transport, QUEUE_SEL, index);
    assert_eq!(read(transport, QUEUE_READY), 0);
    assert!(read(transport, QUEUE_SIZE_MAX) >= size);
    set(transport, QUEUE_SIZE, size);
    for (register, address) in [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(parts) {
        set(transport, register, address as u32);
        set(transport, register + 4, (address >> 32) as u32);
    }
    set(transport, QUEUE_READY, 1);
    assert_eq!(read(transport, QUEUE_READY), 1);
}

pub(super) fn driver_ok(transport: &mut Transport) {
    assert_eq!(write(transport, STATUS, 1 | 2 | 8 | 4), Effect::Live);
    assert_eq!(read(transport, STATUS), 15);
}

/// Where a ring's parts are, and how far the driver has come.
pub(super) struct Ring<'m> {
    pub(super) memory: &'m Memory,
    pub(super) size: u16,
    pub(super) table: u64,
    pub(super) avail: u64,
    pub(super) used: u64,
    pub(super) event_idx: bool,
    pub(super) available: u16,
    pub(super) seen: u16,
}

/// A descriptor: address, length, flags, next.
pub(super) type Descriptor = (u64, u32, u16, u16);

impl<'m> Ring<'m> {
    /// A ring with its parts apart from each other, from `start` on; 4 KiB suffice for size 64.
    pub(super) fn new(memory: &'m Memory, start: u64, size: u16, features: u64) -> Self {
        let avail = start + u64::from(size) * 16 + 0x20;
        let used = (avail + 6 + 2 * u64::from(size) + 0x20).next_multiple_of(4);
        memory.write(start, &vec![0; (used - start) as usize + 6 + 8 * usize::from(size)]);
        let event_idx = features & EVENT_IDX != 0;
        Self {
            memory,
            size,
            table: start,
            avail,
            used,
            event_idx,
            available: 0,
            seen: 0,
        }
    }

    pub(super) fn parts(&self) -> [u64; 3] {
        [self.table, self.avail, self.used]
    }

    fn word(&self, address: u64) -> u16 {
        self.memory.window(address, 2).expect("a ring in memory").load_u16(0)
    }

    /// Writes a descriptor table.
    pub(super) fn describe(&self, table: u64, first: u16, descriptors: &[Descriptor]) {
        for (i, (address, len, flags, next)) in (first..).zip(descriptors) {
            let mut bytes = [0; 16];
            bytes[0..8].copy_from_slice(&address.to_le_bytes());
            bytes[8..12].copy_from_slice(&len.to_le_bytes());
            bytes[12..14].copy_from_slice(&flags.to_le_bytes());
            bytes[14..16].copy_from_slice(&next.to_le_bytes());
            self.memory.write(table + u64::from(i) * 16, &bytes);
        }
    }

    /// Section 2.7.13, steps 1 to 6.
    pub(super) fn offer(&mut self, head: u16) {
        let slot = self.avail + 4 + 2 * u64::from(self.available % self.size);
        self.memory.write(slot, &head.to_le_bytes());
        self.available = self.available.wrapping_add(1);
        self.memory.write(self.avail + 2, &self.available.to_le_bytes());
    }

    /// Whether the device wants a kick for the one buffer offered last (section 2.7.10).
    pub(super) fn wants_kick(&self) -> bool {
        if self.event_idx {
            let event = self.word(self.used + 4 + 8 * u64::from(self.size));
            event == self.available.wrapping_sub(1)
        } else {
            self.word(self.used) == 0
        }
    }

    /// Asks to hear of the next used buffer, or (without event index only) of none.
    pub(super) fn want_notification(&self, wanted: bool) {
        if self.event_idx {
            let event = if wanted { self.seen } else { self.seen.wrapping_sub(1) };
            self.memory
                .write(self.avail + 4 + 2 * u64::from(self.size), &event.to_le_bytes());
        } else {
            self.memory.write(self.avail, &u16::from(!wanted).to_le_bytes());
        }
    }

    /// Section 2.7.14: the used buffers since last time, as head and length.
    pub(super) fn used(&mut self) -> Vec<(u32, u32)> {
        let mut all = Vec::new();
        while self.seen != self.word(self.used + 2) {
            let entry = self.used + 4 + 8 * u64::from(self.seen % self.size);
            let bytes = self.memory.read(entry, 8);
            let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            all.push((number(0), number(4)));
            self.seen = self.seen.wrapping_add(1);
        }
        all
    }
}

/// A kick, and what a host does about it.
pub(super) fn kick(transport: &mut Transport, memory: &Memory, queue: u32) -> Outcome {
    match write(transport, QUEUE_NOTIFY, queue) {
        Effect::Kick(queue) => transport.process_queue(queue, memory),
        _ => Outcome::default(),
    }
}
