//! Each side of a packed queue against another implementation of section 2.8: a driver and a
//! device that do what the text says, one step at a time, and remember everything in lists.
#![cfg(not(loom))]

mod common;

use std::collections::{HashMap, VecDeque};

use chiton_ring::feature::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, RING_PACKED};
use chiton_ring::memory::GuestMemory;
use chiton_ring::{Areas, Buffer, Chain, DeviceQueue, DriverQueue, Format, QueueConfig};
use common::Memory;
use proptest::prelude::*;

// Sections 2.8.1, 2.8.3, 2.8.6, 2.8.7 and 2.8.10.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
const EVENT_ENABLE: u16 = 0;
const EVENT_DISABLE: u16 = 1;
const EVENT_DESC: u16 = 2;

const TABLES: u64 = 0x1000;
const TABLE: u64 = 16 * 8;

/// A place in the ring, and the wrap counter there.
type Place = (u16, bool);

/// The memory of a queue, as the text describes it.
struct Shared<'m> {
    memory: &'m Memory,
    config: QueueConfig,
}

impl Shared<'_> {
    fn next(&self, (slot, wrap): Place) -> Place {
        if slot + 1 == self.config.size {
            (0, !wrap)
        } else {
            (slot + 1, wrap)
        }
    }

    fn field(&self, address: u64) -> u16 {
        self.memory.window(address, 2).expect("within memory").load_u16(0)
    }

    fn set_field(&self, address: u64, value: u16) {
        self.memory
            .window(address, 2)
            .expect("within memory")
            .store_u16(0, value);
    }

    fn at(&self, slot: u16) -> u64 {
        self.config.descriptors + 16 * u64::from(slot)
    }

    fn flags(&self, slot: u16) -> u16 {
        self.field(self.at(slot) + 14)
    }

    fn describe(&self, at: u64, address: u64, len: u32, id: u16, flags: u16) {
        let window = self.memory.window(at, 16).expect("within memory");
        window.write_u64(0, address);
        window.write_u32(8, len);
        window.write_u16(12, id);
        window.store_u16(14, flags);
    }

    /// Whether an event structure asks for a notification of any of these places.
    fn asks(&self, event: u64, changed: &[Place], event_idx: bool) -> bool {
        match self.field(event + 2) {
            EVENT_ENABLE => !changed.is_empty(),
            EVENT_DESC if event_idx => {
                let bits = self.field(event);
                changed.contains(&(bits & 0x7fff, bits >> 15 == 1))
            }
            EVENT_DISABLE => false,
            other => panic!("event flags {other}"),
        }
    }
}

/// The driver of the text.
struct Driver<'m> {
    shared: Shared<'m>,
    next: Place,
    used: Place,
    free: u16,
    /// How many descriptors each buffer in flight has.
    lists: HashMap<u16, u16>,
}

impl Driver<'_> {
    /// Section 2.8.21.1.
    fn add(&mut self, id: u16, elements: &[(u64, u32, u16)]) {
        let first = self.next;
        for (i, (address, len, flags)) in elements.iter().enumerate() {
            let (slot, wrap) = self.next;
            let mark = if wrap { AVAIL } else { USED };
            let more = if i + 1 < elements.len() { NEXT } else { 0 };
            // Only the last descriptor has the ID.
            let id = if more == 0 { id } else { 0xdead };
            let visible = if i == 0 { 0 } else { flags | mark | more };
            if i != 0 {
                self.shared.describe(self.shared.at(slot), *address, *len, id, visible);
            } else {
                let window = self
                    .shared
                    .memory
                    .window(self.shared.at(slot), 16)
                    .expect("within memory");
                window.write_u64(0, *address);
                window.write_u32(8, *len);
                window.write_u16(12, id);
            }
            self.next = self.shared.next(self.next);
        }
        let more = if elements.len() > 1 { NEXT } else { 0 };
        let mark = if first.1 { AVAIL } else { USED };
        self.shared
            .set_field(self.shared.at(first.0) + 14, elements[0].2 | mark | more);
        self.lists.insert(id, elements.len() as u16);
        self.free -= elements.len() as u16;
    }

    /// Section 2.8.22.
    fn take(&mut self) -> Option<(u16, u32)> {
        let (slot, wrap) = self.used;
        let flags = self.shared.flags(slot);
        if (flags & AVAIL != 0) != wrap || (flags & USED != 0) != wrap {
            return None;
        }
        let window = self
            .shared
            .memory
            .window(self.shared.at(slot), 16)
            .expect("within memory");
        let id = window.read_u16(12);
        let written = if flags & WRITE == 0 { 0 } else { window.read_u32(8) };
        let list = self.lists.remove(&id).expect("a buffer in flight");
        for _ in 0..list {
            self.used = self.shared.next(self.used);
        }
        self.free += list;
        Some((id, written))
    }
}

/// The device of the text.
struct Device<'m> {
    shared: Shared<'m>,
    next: Place,
    used: Place,
}

/// A buffer that the device has: its ID, its elements, its descriptors in the ring.
type Taken = (u16, Vec<Buffer>, u16);

impl Device<'_> {
    fn take(&mut self) -> Option<Taken> {
        let (slot, wrap) = self.next;
        let flags = self.shared.flags(slot);
        if (flags & AVAIL != 0) != wrap || (flags & USED != 0) == wrap {
            return None;
        }
        let (mut buffers, mut count) = (Vec::new(), 0);
        loop {
            let (slot, wrap) = self.next;
            let window = self
                .shared
                .memory
                .window(self.shared.at(slot), 16)
                .expect("within memory");
            let (address, len, flags) = (window.read_u64(0), window.read_u32(8), window.load_u16(14));
            assert_eq!(
                flags & (AVAIL | USED),
                if wrap { AVAIL } else { USED },
                "set in all of a list"
            );
            if flags & INDIRECT != 0 {
                for i in 0..u64::from(len) / 16 {
                    let mut entry = [0; 16];
                    self.shared.memory.all().read((address + 16 * i) as usize, &mut entry);
                    let number = |from: usize, to: usize| {
                        entry[from..to]
                            .iter()
                            .rev()
                            .fold(0, |n, byte| n << 8 | u64::from(*byte))
                    };
                    assert_eq!(number(14, 16) & !2, 0, "no flag but WRITE in a table");
                    let (address, len, write) = (number(0, 8), number(8, 12) as u32, number(14, 16) & 2 != 0);
                    buffers.push(Buffer { address, len, write });
                }
            } else {
                let write = flags & WRITE != 0;
                buffers.push(Buffer { address, len, write });
            }
            count += 1;
            self.next = self.shared.next(self.next);
            if flags & NEXT == 0 {
                return Some((window.read_u16(12), buffers, count));
            }
        }
    }

    /// Uses some buffers by one descriptor: the last one's ID, and as much written.
    fn use_up(&mut self, batch: &[Taken], written: u32) {
        let (slot, wrap) = self.used;
        let mark = if wrap { AVAIL | USED } else { 0 };
        let write = if written > 0 { WRITE } else { 0 };
        let id = batch.last().expect("a buffer").0;
        let window = self
            .shared
            .memory
            .window(self.shared.at(slot), 16)
            .expect("within memory");
        window.write_u16(12, id);
        // Without WRITE the length is reserved, and ignored by drivers (section 2.8.4).
        window.write_u32(8, if written > 0 { written } else { 77 });
        window.store_u16(14, mark | write);
        for _ in 0..batch.iter().map(|taken| taken.2).sum::<u16>() {
            self.used = self.shared.next(self.used);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add {
        readable: Vec<u32>,
        writable: Vec<u32>,
        indirect: bool,
        id: u16,
    },
    Take,
    DriverTells,
    DriverWants(bool),
    Pop,
    Use {
        which: usize,
        batch: usize,
        written: u32,
    },
    DeviceTells,
    DeviceWants(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let lens = || prop::collection::vec(0..5000_u32, 0..3);
    prop_oneof![
        6 => (lens(), lens(), any::<bool>(), any::<u16>())
            .prop_map(|(readable, writable, indirect, id)| Step::Add { readable, writable, indirect, id }),
        4 => Just(Step::Take),
        2 => Just(Step::DriverTells),
        1 => any::<bool>().prop_map(Step::DriverWants),
        5 => Just(Step::Pop),
        5 => (any::<usize>(), 1..4_usize, any::<u32>())
            .prop_map(|(which, batch, written)| Step::Use { which, batch, written }),
        2 => Just(Step::DeviceTells),
        1 => any::<bool>().prop_map(Step::DeviceWants),
    ]
}

fn buffers(readable: &[u32], writable: &[u32]) -> Vec<Buffer> {
    let mut buffers: Vec<_> = readable.iter().map(|len| Buffer::readable(0x77, *len)).collect();
    buffers.extend(writable.iter().map(|len| Buffer::writable(0x1_0000_0000, *len)));
    buffers
}

fn room(buffers: &[Buffer]) -> u32 {
    buffers.iter().filter(|b| b.write).map(|b| b.len).sum()
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

const STEPS: usize = if cfg!(miri) { 40 } else { 500 };

fn features() -> impl Strategy<Value = u64> {
    let ring = prop::sample::select(vec![0, EVENT_IDX, INDIRECT_DESC, EVENT_IDX | INDIRECT_DESC]);
    ring.prop_map(|ring| ring | RING_PACKED)
}

fn memory() -> Memory {
    Memory::new((TABLES + 64 * TABLE) as usize)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn our_device_serves_the_driver_of_the_text(
        size in 1..40_u16,
        features in features(),
        steps in prop::collection::vec(step(), 1..STEPS),
    ) {
        let memory = memory();
        let config = QueueConfig::placed(Format::Packed, 0, size).0;
        let shared = || Shared { memory: &memory, config };
        let mut driver = Driver { shared: shared(), next: (0, true), used: (0, true), free: size, lists: HashMap::new() };
        let mut device = DeviceQueue::new(config, features);
        let mut chain = Chain::new();
        let (mut sent, mut held, mut used) = (VecDeque::new(), Vec::new(), VecDeque::new());
        let (mut used_at, mut used_since) = ((0, true), Vec::new());
        let mut tables = 0;
        for step in steps {
            let mut ours = device.attach(&memory).expect("a good queue");
            match step {
                Step::Add { readable, writable, indirect, id } => {
                    let buffers = buffers(&readable, &writable);
                    let indirect = indirect && features & INDIRECT_DESC != 0;
                    let needed = if indirect { 1 } else { buffers.len() };
                    if buffers.is_empty() || buffers.len() > usize::from(size) || needed > usize::from(driver.free)
                        || driver.lists.contains_key(&id)
                    {
                        continue;
                    }
                    let flags = |b: &Buffer| if b.write { WRITE } else { 0 };
                    if indirect {
                        let table = TABLES + tables % 64 * TABLE;
                        tables += 1;
                        for (i, b) in (0..).zip(&buffers) {
                            driver.shared.describe(table + 16 * i, b.address, b.len, 0xbad, flags(b));
                        }
                        driver.add(id, &[(table, 16 * buffers.len() as u32, INDIRECT)]);
                    } else {
                        let elements: Vec<_> = buffers.iter().map(|b| (b.address, b.len, flags(b))).collect();
                        driver.add(id, &elements);
                    }
                    sent.push_back((id, buffers, needed));
                }
                Step::Take => prop_assert_eq!(driver.take(), used.pop_front()),
                Step::DriverWants(wanted) => {
                    let (event, flags) = match (wanted, features & EVENT_IDX != 0) {
                        (false, _) => (0, EVENT_DISABLE),
                        (true, false) => (0, EVENT_ENABLE),
                        (true, true) => (driver.used.0 | u16::from(driver.used.1) << 15, EVENT_DESC),
                    };
                    driver.shared.set_field(config.driver, event);
                    driver.shared.set_field(config.driver + 2, flags);
                }
                Step::DriverTells => {}
                Step::Pop => {
                    let popped = ours.pop(&mut chain).expect("a good driver");
                    prop_assert_eq!(popped, !sent.is_empty());
                    if let Some((id, buffers, needed)) = sent.pop_front() {
                        prop_assert_eq!([chain.readable(), chain.writable()].concat(), buffers.clone());
                        held.push((chain.head(), id, room(&buffers), needed));
                    }
                }
                Step::Use { which, written, .. } => {
                    if !held.is_empty() {
                        let (head, id, room, needed) = held.swap_remove(which % held.len());
                        let written = written % (room + 1);
                        ours.push(head, written);
                        used.push_back((id, written));
                        for _ in 0..needed {
                            used_since.push(used_at);
                            used_at = driver.shared.next(used_at);
                        }
                    }
                }
                Step::DeviceTells => {
                    let expected = driver.shared.asks(config.driver, &used_since, features & EVENT_IDX != 0);
                    prop_assert_eq!(ours.wants_notification(), expected);
                    used_since.clear();
                }
                Step::DeviceWants(false) => {
                    ours.disable_kicks();
                    prop_assert!(!driver.shared.asks(config.device, &[driver.next], features & EVENT_IDX != 0));
                }
                Step::DeviceWants(true) => {
                    prop_assert_eq!(ours.enable_kicks(), !sent.is_empty());
                    if sent.is_empty() {
                        prop_assert!(driver.shared.asks(config.device, &[driver.next], features & EVENT_IDX != 0));
                    }
                }
            }
        }
    }

    #[test]
    fn our_driver_is_served_by_the_device_of_the_text(
        size in 1..40_u16,
        features in features(),
        in_order in any::<bool>(),
        steps in prop::collection::vec(step(), 1..STEPS),
    ) {
        let memory = memory();
        let config = QueueConfig::placed(Format::Packed, 0, size).0;
        let areas = Areas::find_as(Format::Packed, &memory, &config).expect("a good queue");
        let features = features | if in_order { IN_ORDER } else { 0 };
        let mut driver = DriverQueue::<'_, 40>::new(areas, size, features).expect("a good queue");
        let shared = Shared { memory: &memory, config };
        let mut device = Device { shared, next: (0, true), used: (0, true) };
        let (mut sent, mut held, mut used) = (VecDeque::new(), Vec::<Taken>::new(), VecDeque::new());
        let (mut added_at, mut added_since) = ((0, true), Vec::new());
        let mut tables = 0;
        for step in steps {
            match step {
                Step::Add { readable, writable, indirect, .. } => {
                    let buffers = buffers(&readable, &writable);
                    let (added, needed) = if indirect {
                        let table = TABLES + tables % 64 * TABLE;
                        tables += 1;
                        let window = memory.window(table, TABLE as usize).expect("within memory");
                        (driver.add_indirect(window, table, &buffers), 1)
                    } else {
                        (driver.add(&buffers), buffers.len())
                    };
                    if let Ok(id) = added {
                        for _ in 0..needed {
                            added_since.push(added_at);
                            added_at = device.shared.next(added_at);
                        }
                        sent.push_back((id, buffers));
                        let bits = driver.notification_data(3);
                        prop_assert_eq!(bits, u32::from(added_at.0 | u16::from(added_at.1) << 15) << 16 | 3);
                    }
                }
                Step::Take => prop_assert_eq!(driver.take().expect("a good device"), used.pop_front()),
                Step::DriverTells => {
                    let expected = device.shared.asks(config.device, &added_since, features & EVENT_IDX != 0);
                    prop_assert_eq!(driver.wants_kick(), expected);
                    added_since.clear();
                }
                Step::DriverWants(true) => {
                    prop_assert_eq!(driver.arm(), !used.is_empty());
                    if used.is_empty() {
                        prop_assert!(device.shared.asks(config.driver, &[device.used], features & EVENT_IDX != 0));
                    }
                }
                Step::DriverWants(false) => driver.disarm(),
                Step::Pop => {
                    let taken = device.take();
                    prop_assert_eq!(taken.clone().map(|(id, buffers, _)| (id, buffers)), sent.pop_front());
                    held.extend(taken);
                }
                Step::Use { which, batch, written } => {
                    if held.is_empty() {
                        continue;
                    }
                    let batch: Vec<_> = if in_order {
                        held.drain(..batch.min(held.len())).collect()
                    } else {
                        vec![held.swap_remove(which % held.len())]
                    };
                    let last = batch.last().expect("one at least");
                    let written = written % (room(&last.1) + 1);
                    device.use_up(&batch, written);
                    for skipped in &batch[..batch.len() - 1] {
                        used.push_back((skipped.0, room(&skipped.1)));
                    }
                    used.push_back((last.0, written));
                }
                Step::DeviceTells => {}
                Step::DeviceWants(wanted) => {
                    let (event, flags) = match (wanted, features & EVENT_IDX != 0) {
                        (false, _) => (0, EVENT_DISABLE),
                        (true, false) => (0, EVENT_ENABLE),
                        (true, true) => (device.next.0 | u16::from(device.next.1) << 15, EVENT_DESC),
                    };
                    device.shared.set_field(config.device, event);
                    device.shared.set_field(config.device + 2, flags);
                }
            }
        }
    }
}
