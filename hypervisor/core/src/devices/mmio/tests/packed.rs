//! Packed queues and notification data, as a driver uses them that was written from sections 2.8
//! and 2.9 alone.

use std::vec::Vec;

use chiton_shared::map::QUEUES;
use chiton_shared::memory::GuestMemory;

use super::super::super::DeviceError;
use super::super::super::testing::{BUFFERS, END, Memory, WORLD};
use super::super::{Effect, Ignored, Misled, Transport};
use super::driver::*;
use super::registers::{block, console, entropy};

// Sections 2.8.1 and 2.8.10.
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
const EVENT_DISABLE: u16 = 1;
const EVENT_DESC: u16 = 2;

const PACKED: u64 = VERSION_1 | RING_PACKED;

/// A descriptor ring and its event structures, and how far the driver has come.
struct Packed<'m> {
    memory: &'m Memory,
    size: u16,
    ring: u64,
    event_idx: bool,
    next: (u16, bool),
    seen: (u16, bool),
    /// How many descriptors each buffer has.
    lens: Vec<u16>,
}

impl<'m> Packed<'m> {
    fn new(memory: &'m Memory, size: u16, features: u64) -> Self {
        memory.write(QUEUES, &vec![0; usize::from(size) * 16 + 8]);
        Self {
            memory,
            size,
            ring: QUEUES,
            event_idx: features & EVENT_IDX != 0,
            next: (0, true),
            seen: (0, true),
            lens: vec![0; usize::from(size)],
        }
    }

    fn parts(&self) -> [u64; 3] {
        let events = self.ring + u64::from(self.size) * 16;
        [self.ring, events, events + 4]
    }

    fn word(&self, address: u64) -> u16 {
        self.memory.window(address, 2).expect("a ring in memory").load_u16(0)
    }

    fn step(&self, (slot, wrap): (u16, bool)) -> (u16, bool) {
        if slot + 1 == self.size {
            (0, !wrap)
        } else {
            (slot + 1, wrap)
        }
    }

    fn put(&self, slot: u16, (address, len, flags): (u64, u32, u16), id: u16) {
        let mut bytes = [0; 16];
        bytes[0..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&id.to_le_bytes());
        bytes[14..16].copy_from_slice(&flags.to_le_bytes());
        self.memory.write(self.ring + u64::from(slot) * 16, &bytes);
    }

    /// Section 2.8.21: a buffer of these elements (address, length, flags).
    fn offer(&mut self, id: u16, elements: &[(u64, u32, u16)]) {
        for (address, len, flags) in elements {
            let (slot, wrap) = self.next;
            let mark = if wrap { AVAIL } else { USED };
            self.put(slot, (*address, *len, flags | mark), id);
            self.next = self.step(self.next);
        }
        self.lens[usize::from(id)] = elements.len() as u16;
    }

    /// Section 2.8.22: the buffers used since last time, by ID and length.
    fn used(&mut self) -> Vec<(u16, u32)> {
        let mut all = Vec::new();
        loop {
            let (slot, wrap) = self.seen;
            let bytes = self.memory.read(self.ring + u64::from(slot) * 16, 16);
            let flags = u16::from_le_bytes([bytes[14], bytes[15]]);
            if flags & (AVAIL | USED) != if wrap { AVAIL | USED } else { 0 } {
                return all;
            }
            let id = u16::from_le_bytes([bytes[12], bytes[13]]);
            let len = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
            all.push((id, if flags & WRITE == 0 { 0 } else { len }));
            for _ in 0..self.lens[usize::from(id)] {
                self.seen = self.step(self.seen);
            }
        }
    }

    /// Whether the device wants a kick for the buffer whose first descriptor was at `first`.
    fn wants_kick(&self, first: (u16, bool)) -> bool {
        let device = self.parts()[2];
        match self.word(device + 2) {
            EVENT_DESC => self.word(device) == first.0 | u16::from(first.1) << 15,
            flags => flags != EVENT_DISABLE,
        }
    }

    fn want_notification(&self, wanted: bool) {
        let driver = self.parts()[1];
        let (off_wrap, flags) = match (wanted, self.event_idx) {
            (false, _) => (0, EVENT_DISABLE),
            (true, true) => (self.seen.0 | u16::from(self.seen.1) << 15, EVENT_DESC),
            (true, false) => (0, 0),
        };
        self.memory.write(driver, &off_wrap.to_le_bytes());
        self.memory.write(driver + 2, &flags.to_le_bytes());
    }
}

#[test]
fn a_packed_driver_reads_a_disk_whatever_else_it_negotiates() {
    let all = [
        (INDIRECT_DESC, 5),
        (EVENT_IDX, 7),
        (0, 16),
        (INDIRECT_DESC | EVENT_IDX, 16),
    ];
    for (more, size) in &all[..if cfg!(miri) { 2 } else { 4 }] {
        let (more, size) = (*more, *size);
        let (mut transport, _) = block(3);
        let memory = Memory::new();
        let features = negotiate(&mut transport, PACKED | more).expect("features are accepted");
        assert_eq!(features & RING_PACKED, RING_PACKED);
        let mut ring = Packed::new(&memory, size, features);
        set_up_queue(&mut transport, 0, size.into(), ring.parts());
        driver_ok(&mut transport);
        // More requests than the queue has descriptors, so that it wraps.
        for i in 0..if cfg!(miri) { 8 } else { 40_u64 } {
            memory.write(BUFFERS, &[0, 0, 0, 0, 0, 0, 0, 0, (i % 3) as u8, 0, 0, 0, 0, 0, 0, 0]);
            memory.write(BUFFERS + 0x100, &[0xee; 513]);
            let id = (i % 3) as u16;
            let first = ring.next;
            ring.want_notification(true);
            if features & INDIRECT_DESC != 0 && i % 2 == 0 {
                // Flags other than WRITE and the ID mean nothing in a table (section 2.8.7).
                let table = BUFFERS + 0x1001;
                let entry = |address: u64, len: u32, flags: u16| {
                    let mut bytes = address.to_le_bytes().to_vec();
                    bytes.extend(len.to_le_bytes());
                    bytes.extend([9, 9]);
                    bytes.extend((flags | INDIRECT | NEXT | AVAIL).to_le_bytes());
                    bytes
                };
                memory.write(table, &entry(BUFFERS, 16, 0));
                memory.write(table + 16, &entry(BUFFERS + 0x100, 513, WRITE));
                ring.offer(id, &[(table, 32, INDIRECT | WRITE)]);
            } else {
                ring.offer(id, &[(BUFFERS, 16, NEXT), (BUFFERS + 0x100, 513, WRITE)]);
            }
            assert!(ring.wants_kick(first), "request {i}");
            assert!(kick(&mut transport, &memory, 0).notify, "request {i}");
            assert_eq!(ring.used(), [(id, 513)]);
            let data = memory.read(BUFFERS + 0x100, 513);
            assert_eq!((data[0], data[511], data[512]), (i as u8 % 3 + 1, i as u8 % 3 + 1, 0));
        }
        ring.want_notification(false);
        ring.offer(0, &[(BUFFERS, 16, NEXT), (BUFFERS + 0x100, 513, WRITE)]);
        assert!(!kick(&mut transport, &memory, 0).notify);
        assert_eq!(ring.used().len(), 1);
    }
}

#[test]
fn packed_queues_may_have_any_size_and_lie_where_a_device_may_write() {
    let ready = |size: u32, parts: [u64; 3]| {
        let mut transport = entropy();
        assert!(negotiate(&mut transport, PACKED).is_some());
        set(&mut transport, QUEUE_SIZE, size);
        for (register, address) in [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(parts) {
            set(&mut transport, register, address as u32);
        }
        let effect = write(&mut transport, QUEUE_READY, 1);
        let ready = read(&transport, QUEUE_READY) == 1;
        assert_eq!(
            ready,
            !matches!(effect, Effect::Ignored(Ignored::QueueNotValid { queue: 0, .. }))
        );
        ready
    };
    let good = [QUEUES, QUEUES + 0x100, QUEUES + 0x200];
    for size in 1..=8 {
        assert!(ready(size, good), "size {size}");
    }
    assert!(!ready(0, good) && !ready(9, good));
    assert!(!ready(8, [WORLD, good[1], good[2]]), "the device writes the ring");
    assert!(ready(8, [good[0], WORLD, good[2]]), "the device only reads it");
    assert!(!ready(8, [good[0], good[1], WORLD]));
    assert!(!ready(8, [QUEUES + 8, good[1], good[2]]));
    assert!(!ready(8, [good[0], good[1] + 2, good[2]]));
    assert!(!ready(8, [good[0], good[1], good[2] + 2]));
}

/// How a driver breaks its ring.
type Break = fn(&mut Packed<'_>);

#[test]
fn a_broken_packed_ring_needs_a_reset() {
    let breaks: [(&str, Break); 6] = [
        ("a chain round the whole ring", |ring| {
            ring.offer(0, &[(BUFFERS, 1, WRITE | NEXT); 8])
        }),
        ("a readable buffer behind a writable one", |ring| {
            ring.offer(0, &[(BUFFERS, 1, WRITE | NEXT), (BUFFERS, 1, 0)])
        }),
        ("an indirect table outside memory", |ring| {
            ring.offer(0, &[(END, 16, INDIRECT)])
        }),
        ("an indirect table in a chain", |ring| {
            ring.offer(0, &[(BUFFERS, 1, NEXT), (BUFFERS, 16, INDIRECT)])
        }),
        ("more bytes than a chain may have", |ring| {
            ring.offer(0, &[(BUFFERS, u32::MAX, NEXT | WRITE), (BUFFERS, u32::MAX, WRITE)])
        }),
        ("a buffer outside memory", |ring| ring.offer(0, &[(END - 1, 2, WRITE)])),
    ];
    for (name, break_it) in breaks {
        let memory = Memory::new();
        let mut transport = entropy();
        let features = negotiate(&mut transport, u64::MAX).expect("features are accepted");
        let mut ring = Packed::new(&memory, 8, features);
        set_up_queue(&mut transport, 0, 8, ring.parts());
        driver_ok(&mut transport);
        break_it(&mut ring);
        assert!(kick(&mut transport, &memory, 0).notify, "{name}");
        assert!(transport.broken().is_some(), "{name}");
        assert_eq!(read(&transport, STATUS), 15 | 64, "{name}");
        assert_eq!(ring.used(), [], "{name}");
    }
}

#[test]
fn a_packed_queue_outside_memory_is_found_out_at_the_first_kick() {
    for parts in [[END, QUEUES, QUEUES], [QUEUES, 1 << 63, QUEUES], [QUEUES, QUEUES, END]] {
        let memory = Memory::new();
        let mut transport = entropy();
        assert!(negotiate(&mut transport, PACKED).is_some());
        set_up_queue(&mut transport, 0, 8, parts);
        driver_ok(&mut transport);
        assert!(kick(&mut transport, &memory, 0).notify);
        let broken = transport.broken().map(|b| b.error);
        assert!(matches!(broken, Some(DeviceError::Queue(_))), "{parts:x?}");
    }
}

#[test]
fn notification_data_names_the_queue_in_its_low_half() {
    let data = |transport: &mut Transport, value| write(transport, QUEUE_NOTIFY, value);
    for (features, in_half) in [(VERSION_1, false), (VERSION_1 | NOTIFICATION_DATA, true)] {
        let memory = Memory::new();
        let (mut transport, _) = console();
        let features = negotiate(&mut transport, features).expect("features are accepted");
        let ring = Ring::new(&memory, QUEUES, 16, features);
        set_up_queue(&mut transport, 1, 16, ring.parts());
        driver_ok(&mut transport);
        assert_eq!(data(&mut transport, 1), Effect::Kick(1));
        // Whatever the rest says, even if it is not so.
        for next in [1, 0x7fff, 0x8000, 0xffff_u32] {
            let expected = if in_half {
                Effect::Kick(1)
            } else {
                Effect::Ignored(Ignored::NoQueue(next << 16 | 1))
            };
            assert_eq!(data(&mut transport, next << 16 | 1), expected);
        }
        if in_half {
            // The driver is at its start, which is not where the kick says.
            assert_eq!(data(&mut transport, 0x9_0001), Effect::Kick(1));
            let misled = Misled { queue: 1, next: 9 };
            assert_eq!(transport.look_at_kick(1, &memory), Some(misled));
            assert_eq!(transport.look_at_kick(1, &memory), None, "once");
            assert_eq!(data(&mut transport, 1), Effect::Kick(1));
            assert_eq!(transport.look_at_kick(1, &memory), None, "it is there");
            assert_eq!(data(&mut transport, 0x7_0002), Effect::Ignored(Ignored::NoQueue(2)));
            assert_eq!(data(&mut transport, 0x7_0000), Effect::Ignored(Ignored::NotAtWork(0)));
        }
    }
}

#[test]
fn a_device_that_offers_the_order_keeps_it() {
    for (format, more) in [(VERSION_1, 0), (PACKED, EVENT_IDX)] {
        let memory = Memory::new();
        let mut transport = entropy();
        let features = negotiate(&mut transport, format | more | IN_ORDER).expect("features are accepted");
        assert_eq!(features & IN_ORDER, IN_ORDER);
        if format == PACKED {
            let mut ring = Packed::new(&memory, 8, features);
            set_up_queue(&mut transport, 0, 8, ring.parts());
            driver_ok(&mut transport);
            for id in [4, 2, 7] {
                ring.offer(id, &[(BUFFERS, u32::from(id), WRITE)]);
            }
            let _ = kick(&mut transport, &memory, 0);
            assert_eq!(ring.used(), [(4, 4), (2, 2), (7, 7)]);
        } else {
            let mut ring = Ring::new(&memory, QUEUES, 8, features);
            set_up_queue(&mut transport, 0, 8, ring.parts());
            driver_ok(&mut transport);
            for head in 0..3 {
                ring.describe(ring.table, head, &[(BUFFERS, 1 + u32::from(head), WRITE, 0)]);
                ring.offer(head);
            }
            let _ = kick(&mut transport, &memory, 0);
            assert_eq!(ring.used(), [(0, 1), (1, 2), (2, 3)]);
        }
    }
}
