//! Our driver side against our device side, in both formats: whatever they do in whatever order,
//! every chain arrives once and as it was sent, and nobody sleeps while there is something to do.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::layout::DESCRIPTOR;
use super::split::layout::{avail, used};
use super::testing::Memory;
use super::{Areas, Buffer, Chain, DeviceQueue, DriverError, DriverQueue, Format, MAX_SIZE, QueueConfig};
use crate::feature;
use crate::memory::GuestMemory;

const N: usize = MAX_SIZE as usize;

/// What one side does next. Numbers pick among what is possible.
#[derive(Clone, Debug)]
enum Step {
    Add {
        buffers: Vec<Buffer>,
        indirect: bool,
    },
    Kick,
    Take,
    Disarm,
    DriverSleeps,
    Pop,
    Push {
        which: usize,
        written: u32,
    },
    /// In order: several by the entry of the last.
    PushBatch {
        count: usize,
        written: u32,
    },
    Notify,
    DisableKicks,
    DeviceSleeps,
    Resume,
    Reset {
        polls: u8,
    },
}

fn buffers() -> impl Strategy<Value = Vec<Buffer>> {
    let lens = || prop::collection::vec((any::<u64>(), 0..=70_000u32), 0..5);
    (lens(), lens()).prop_map(|(readable, writable)| {
        let readable = readable
            .into_iter()
            .map(|(address, len)| Buffer::readable(address, len));
        readable
            .chain(
                writable
                    .into_iter()
                    .map(|(address, len)| Buffer::writable(address, len)),
            )
            .collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (buffers(), any::<bool>()).prop_map(|(buffers, indirect)| Step::Add { buffers, indirect }),
        3 => Just(Step::Kick),
        4 => Just(Step::Take),
        1 => Just(Step::Disarm),
        1 => Just(Step::DriverSleeps),
        5 => Just(Step::Pop),
        5 => (any::<usize>(), any::<u32>()).prop_map(|(which, written)| Step::Push { which, written }),
        1 => (2..9_usize, any::<u32>()).prop_map(|(count, written)| Step::PushBatch { count, written }),
        3 => Just(Step::Notify),
        1 => Just(Step::DisableKicks),
        1 => Just(Step::DeviceSleeps),
        1 => Just(Step::Resume),
        1 => (0..3_u8).prop_map(|polls| Step::Reset { polls }),
    ]
}

/// A queue with both its sides, and what they ought to know of each other.
struct Pair<'m> {
    memory: &'m Memory,
    /// Indirect tables that no chain uses.
    tables: Vec<u64>,
    size: u16,
    indirect: bool,
    in_order: bool,
    driver: DriverQueue<'m, N>,
    device: DeviceQueue,
    /// Chains are known by the driver's name for them.
    available: VecDeque<u16>,
    sent: HashMap<u16, (Vec<Buffer>, u64)>,
    /// The device's name for a chain, and the driver's.
    popped: VecDeque<(u16, u16)>,
    pushed: VecDeque<(u16, u32)>,
    /// The driver's names of all that were popped, in order.
    taken: Vec<u16>,
    features: u64,
    driver_sleeps: bool,
    device_sleeps: bool,
}

const TABLES: u64 = 0x4000;
const TABLE: u64 = 16 * DESCRIPTOR as u64;

fn memory() -> Memory {
    Memory::new(TABLES as usize + (N + 1) * TABLE as usize)
}

impl<'m> Pair<'m> {
    /// Both sides of a queue of which `start` descriptors have come and gone.
    fn new(memory: &'m Memory, size: u16, features: u64, start: u16) -> Self {
        let format = Format::of(features);
        let (config, end) = QueueConfig::placed(format, 0x100, size);
        assert!(end <= TABLES);
        let areas = Areas::find_as(format, memory, &config).expect("a good queue");
        match format {
            Format::Split => {
                areas.driver.store_u16(avail::IDX, start);
                areas.driver.store_u16(avail::used_event(size), start);
                areas.device.store_u16(used::IDX, start);
                areas.device.store_u16(used::avail_event(size), start);
            }
            Format::Packed => {
                // The flags AVAIL and USED of the last round but those of the round before.
                let odd = start / size % 2 == 1;
                for slot in 0..size {
                    let used = (slot < start % size) != odd;
                    let flags = if used { 1 << 15 | 1 << 7 } else { 0 };
                    areas.descriptors.store_u16(usize::from(slot) * DESCRIPTOR + 14, flags);
                }
            }
        }
        let mut driver = DriverQueue::new(areas, size, features).expect("a good queue");
        driver.start_at(start);
        let mut device = DeviceQueue::new(config, features);
        device.start_at(start);
        Self {
            memory,
            tables: (0..=N as u64).map(|i| TABLES + i * TABLE).collect(),
            size,
            indirect: features & feature::INDIRECT_DESC != 0,
            in_order: features & feature::IN_ORDER != 0,
            driver,
            device,
            available: VecDeque::new(),
            sent: HashMap::new(),
            popped: VecDeque::new(),
            pushed: VecDeque::new(),
            taken: Vec::new(),
            features,
            driver_sleeps: false,
            device_sleeps: false,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Add { buffers, indirect } if !self.driver_sleeps => self.add(buffers, *indirect),
            Step::Kick if !self.driver_sleeps => self.kick(),
            Step::Take if !self.driver_sleeps => self.take(),
            Step::Disarm if !self.driver_sleeps => self.driver.disarm(),
            Step::DriverSleeps if !self.driver_sleeps => {
                self.kick();
                self.driver_sleeps = !self.driver.arm();
                assert_eq!(self.driver_sleeps, self.pushed.is_empty());
            }
            Step::Pop if !self.device_sleeps => self.pop(),
            Step::Push { which, written } if !self.device_sleeps => self.push(*which, *written),
            Step::PushBatch { count, written } if !self.device_sleeps => self.push_batch(*count, *written),
            Step::Notify if !self.device_sleeps => self.notify(),
            Step::DisableKicks if !self.device_sleeps => self.attached(|q| q.disable_kicks()),
            Step::DeviceSleeps if !self.device_sleeps => {
                self.notify();
                self.device_sleeps = !self.attached(|q| q.enable_kicks());
                assert_eq!(self.device_sleeps, self.available.is_empty());
            }
            Step::Resume => self.resume(),
            Step::Reset { polls } => self.reset(*polls),
            _ => {}
        }
    }

    /// Another device goes on where this one is, and takes again what this one has not given back.
    fn resume(&mut self) {
        let last: Vec<_> = self.taken.iter().rev().take(self.popped.len()).copied().collect();
        let in_hand: Vec<_> = self.popped.iter().map(|(_, id)| *id).collect();
        // Those in its hands have to be the last ones it took.
        if in_hand.iter().any(|id| !last.contains(id)) {
            return;
        }
        let mark = self.device.mark();
        let config = *self.device.config();
        self.device = DeviceQueue::resumed(config, self.features, mark).expect("a mark of this queue");
        assert_eq!(self.device.mark(), mark);
        for id in last {
            self.available.push_front(id);
        }
        self.taken.truncate(self.taken.len() - self.popped.len());
        self.popped.clear();
        self.device_sleeps = false;
    }

    /// The driver resets the queue, which takes a while, and goes on in another place.
    fn reset(&mut self, polls: u8) {
        let format = Format::of(self.features);
        let start = if self.device.config().descriptors == 0x100 {
            0x2000
        } else {
            0x100
        };
        let (config, end) = QueueConfig::placed(format, start, self.size);
        assert!(end <= TABLES);
        let areas = Areas::find_as(format, self.memory, &config).expect("a good queue");
        // What the device writes until it has forgotten the queue counts.
        let mut device = core::mem::take(&mut self.device);
        let mut written = None;
        let mut resetting = self.driver.reset(|value| written = Some(value));
        assert_eq!(written, Some(1));
        for _ in 0..polls {
            if let Some((head, id)) = self.popped.pop_front() {
                device.attach(self.memory).expect("a good queue").push(head, 0);
                self.pushed.push_back((id, 0));
            }
            resetting = resetting.poll(|| 1).expect_err("the reset goes on");
        }
        let mut stopped = resetting.poll(|| 0).expect("the reset is over");
        while let Some((head, written)) = stopped.take().expect("our own device") {
            assert_eq!(self.pushed.pop_front(), Some((head, written)));
            self.tables.push(self.sent.remove(&head).expect("a chain in flight").1);
        }
        assert!(self.pushed.is_empty());
        while let Some(head) = stopped.next_left() {
            self.tables.push(self.sent.remove(&head).expect("a chain in flight").1);
        }
        assert!(self.sent.is_empty(), "a chain did not come back");
        stopped.restart(areas, self.size).expect("a good queue");
        assert_eq!((self.driver.size(), self.driver.free()), (self.size, self.size));
        self.device = DeviceQueue::new(config, self.features);
        self.available.clear();
        self.popped.clear();
        self.taken.clear();
        self.driver_sleeps = false;
        self.device_sleeps = false;
    }

    fn attached<R>(&mut self, f: impl FnOnce(&mut super::device::Attached<'_, 'm, Memory>) -> R) -> R {
        f(&mut self.device.attach(self.memory).expect("a good queue"))
    }

    fn add(&mut self, buffers: &[Buffer], indirect: bool) {
        let free = self.driver.free();
        let table = self
            .tables
            .pop()
            .expect("a table for each chain that can be in flight, and one");
        let added = if indirect {
            let window = self.memory.window(table, TABLE as usize).expect("a table in memory");
            self.driver.add_indirect(window, table, buffers)
        } else {
            self.driver.add(buffers)
        };
        let needed = if indirect { 1 } else { buffers.len() };
        match added {
            Ok(head) => {
                assert_eq!(self.driver.free(), free - needed as u16);
                assert!(
                    self.sent.insert(head, (buffers.to_vec(), table)).is_none(),
                    "head {head} was in flight"
                );
                self.available.push_back(head);
                return;
            }
            Err(DriverError::Full) => assert!(needed > usize::from(free)),
            Err(DriverError::Buffers(n)) => {
                let possible = (1..=usize::from(self.size)).contains(&n) && (!indirect || self.indirect);
                assert!(n == buffers.len() && !possible);
            }
            Err(other) => panic!("{other}"),
        }
        self.tables.push(table);
    }

    fn kick(&mut self) {
        // What a kick says is so, and one place further is not.
        let said = self.driver.notification_data(3);
        let next = (said >> 16) as u16;
        let after = match Format::of(self.features) {
            Format::Split => next.wrapping_add(1),
            Format::Packed if (next & 0x7fff) + 1 < self.size => next + 1,
            Format::Packed => (next & 0x8000) ^ 0x8000,
        };
        assert_eq!(said & 0xffff, 3);
        assert!(self.attached(|q| q.has_come_to(next)), "{next:#x}");
        // Of a full packed ring it is where the round before ended.
        let full = self.driver.free() == 0;
        assert!(full || !self.attached(|q| q.has_come_to(after)), "{after:#x}");
        if self.driver.wants_kick() {
            self.device_sleeps = false;
        }
        assert!(
            !self.device_sleeps || self.available.is_empty(),
            "the device sleeps over new chains"
        );
    }

    fn take(&mut self) {
        let free = self.driver.free();
        let taken = self.driver.take().expect("our own device");
        assert_eq!(taken, self.pushed.pop_front());
        if let Some((head, _)) = taken {
            let (_, table) = self.sent.remove(&head).expect("a chain in flight");
            self.tables.push(table);
            assert!(self.driver.free() > free);
        }
        if self.sent.is_empty() {
            assert_eq!(self.driver.free(), self.size);
        }
    }

    fn pop(&mut self) {
        let mut chain = Chain::new();
        let popped = self.attached(|q| q.pop(&mut chain)).expect("our own driver");
        let sent = self.available.pop_front();
        assert_eq!(popped, sent.is_some());
        if let Some(id) = sent {
            assert!(chain.head() < self.size);
            assert!(self.popped.iter().all(|(head, _)| *head != chain.head()));
            assert_eq!([chain.readable(), chain.writable()].concat(), self.sent[&id].0);
            self.popped.push_back((chain.head(), id));
            self.taken.push(id);
        }
    }

    fn push(&mut self, which: usize, written: u32) {
        if self.popped.is_empty() {
            return;
        }
        let which = if self.in_order { 0 } else { which % self.popped.len() };
        let (head, id) = self.popped.remove(which).expect("one of them");
        let written = written % (self.room(id) + 1);
        self.attached(|q| q.push(head, written));
        self.pushed.push_back((id, written));
    }

    fn room(&self, id: u16) -> u32 {
        self.sent[&id].0.iter().filter(|b| b.write).map(|b| b.len).sum()
    }

    /// Gives back the oldest chains as a device may that keeps the order: by one entry, where that of the first would
    /// stand, for the last of them (sections 2.7.9 and 2.8.8).
    fn push_batch(&mut self, count: usize, written: u32) {
        if !self.in_order || self.popped.is_empty() {
            return;
        }
        let count = count.min(self.popped.len());
        let batch: Vec<_> = self.popped.drain(..count).collect();
        let last = batch[count - 1].1;
        let written = written % (self.room(last) + 1);
        let before = self.device.mark().used;
        self.attached(|q| q.push_all(batch.iter().map(|(head, _)| (*head, written))));
        let areas = self.driver.areas();
        match Format::of(self.features) {
            Format::Split => {
                for i in 0..count as u16 {
                    // What stands where nobody may look.
                    let id = if i == 0 { last.into() } else { u32::MAX };
                    let entry = used::ring(before.wrapping_add(i) & (self.size - 1));
                    areas.device.write_u32(entry, id);
                    areas
                        .device
                        .write_u32(entry + 4, if i == 0 { written } else { u32::MAX });
                }
            }
            Format::Packed => {
                let (first, after) = (before & 0x7fff, self.device.mark().used & 0x7fff);
                let mut slot = first;
                loop {
                    let id = if slot == first { last } else { u16::MAX };
                    areas.descriptors.write_u16(usize::from(slot) * DESCRIPTOR + 12, id);
                    slot = (slot + 1) % self.size;
                    if slot == after {
                        break;
                    }
                }
            }
        }
        for (_, id) in &batch {
            // The others were used completely.
            let written = if *id == last { written } else { self.room(*id) };
            self.pushed.push_back((*id, written));
        }
    }

    fn notify(&mut self) {
        if self.attached(|q| q.wants_notification()) {
            self.driver_sleeps = false;
        }
        assert!(
            !self.driver_sleeps || self.pushed.is_empty(),
            "the driver sleeps over used chains"
        );
    }

    /// Lets both sides work until nothing is left, by the protocol alone.
    fn finish(&mut self) {
        for _ in 0..4 * N {
            if self.sent.is_empty() && self.driver_sleeps && self.device_sleeps {
                return;
            }
            for step in [
                Step::Kick,
                Step::Take,
                Step::DriverSleeps,
                Step::Pop,
                Step::Push { which: 0, written: 0 },
            ] {
                self.step(&step);
            }
            self.step(&Step::Notify);
            if self.available.is_empty() {
                self.step(&Step::DeviceSleeps);
            }
            if self.device_sleeps && !self.popped.is_empty() {
                // The device's own work wakes it.
                self.device_sleeps = false;
            }
        }
        panic!("{} chains did not come back", self.sent.len());
    }
}

fn features() -> impl Strategy<Value = u64> {
    let ring = prop::sample::select(vec![0, feature::EVENT_IDX, feature::INDIRECT_DESC, feature::RING]);
    let format = prop::sample::select(vec![0, feature::RING_PACKED]);
    let order = prop::sample::select(vec![0, 0, feature::IN_ORDER]);
    (ring, format, order).prop_map(|(ring, format, order)| ring | format | order)
}

fn start() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), 65_000..=u16::MAX, any::<u16>()]
}

fn config() -> ProptestConfig {
    let cases = if cfg!(miri) { 2 } else { 256 };
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

const STEPS: usize = if cfg!(miri) { 60 } else { 600 };
/// The largest queue: making one takes Miri as long as many steps.
const LARGEST: u32 = if cfg!(miri) { 3 } else { 8 };

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_chain_arrives_once_and_nobody_sleeps_too_long(
        sizes in (0..=LARGEST, 1..=MAX_SIZE),
        features in features(),
        start in start(),
        steps in prop::collection::vec(step(), 1..STEPS),
    ) {
        let memory = memory();
        let size = match Format::of(features) {
            Format::Split => 1 << sizes.0,
            Format::Packed => sizes.1.min(1 << sizes.0),
        };
        let mut pair = Pair::new(&memory, size, features, start);
        for step in &steps {
            pair.step(step);
        }
        pair.finish();
    }
}

#[test]
fn the_index_wraps_with_the_queue_full() {
    for (format, start) in [(0, u16::MAX - 1), (feature::RING_PACKED, 2), (feature::RING_PACKED, 6)] {
        let memory = memory();
        let mut pair = Pair::new(&memory, 4, feature::RING | format, start);
        for round in 0..if cfg!(miri) { 2 } else { 4 } {
            for i in 0..4 {
                pair.add(&[Buffer::readable(i, 1)], false);
            }
            pair.add(&[Buffer::readable(9, 1)], false);
            assert_eq!(pair.available.len(), 4, "round {round}");
            for _ in 0..4 {
                pair.pop();
                pair.push(0, 0);
            }
            for _ in 0..4 {
                pair.take();
            }
        }
        pair.finish();
    }
}
