//! Each side against another implementation of the same specification: rust-vmm's
//! `virtio-queue`, and a driver written from section 2.7 in a few lines.
#![cfg(not(any(miri, loom)))]

use std::ptr::NonNull;

use chiton_ring::feature::{EVENT_IDX, INDIRECT_DESC};
use chiton_ring::memory::{GuestMemory, Window};
use chiton_ring::{Areas, Buffer, Chain, DeviceQueue, DriverQueue, QueueConfig};
use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

const MEMORY: usize = 0x2_0000;
const TABLES: u64 = 0x8000;

/// Memory that both implementations accept.
struct Ram(GuestMemoryMmap);

impl Ram {
    fn new() -> Self {
        Self(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("a mapping"))
    }

    fn bytes(&self, from: u64, to: u64) -> Vec<u8> {
        let mut bytes = vec![0; (to - from) as usize];
        self.0
            .read_slice(&mut bytes, GuestAddress(from))
            .expect("within memory");
        bytes
    }

    fn put<T: Into<u64>>(&self, address: u64, value: T, len: usize) {
        self.0
            .write_slice(&value.into().to_le_bytes()[..len], GuestAddress(address))
            .expect("within memory");
    }
}

impl GuestMemory for Ram {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        let slice = self.0.get_slice(GuestAddress(address), len).ok()?;
        let start = NonNull::new(slice.ptr_guard_mut().as_ptr())?;
        // SAFETY: a mapping that lives as long as `self` and that nobody refers to.
        Some(unsafe { Window::new(start, len) })
    }
}

fn their_queue(config: &QueueConfig, features: u64) -> Queue {
    let halves = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
    let mut queue = Queue::new(256).expect("a power of two");
    queue.set_size(config.size);
    let (low, high) = halves(config.descriptors);
    queue.set_desc_table_address(low, high);
    let (low, high) = halves(config.driver);
    queue.set_avail_ring_address(low, high);
    let (low, high) = halves(config.device);
    queue.set_used_ring_address(low, high);
    queue.set_event_idx(features & EVENT_IDX != 0);
    queue.set_ready(true);
    queue
}

fn their_pop(queue: &mut Queue, ram: &Ram) -> Option<(u16, Vec<Buffer>)> {
    let chain = queue.pop_descriptor_chain(&ram.0)?;
    let head = chain.head_index();
    let buffer = |d: virtio_queue::desc::split::Descriptor| Buffer {
        address: d.addr().0,
        len: d.len(),
        write: d.is_write_only(),
    };
    Some((head, chain.map(buffer).collect()))
}

fn our_pop(queue: &mut DeviceQueue, ram: &Ram) -> Option<(u16, Vec<Buffer>)> {
    let mut chain = Chain::new();
    let popped = queue
        .attach(ram)
        .expect("a good queue")
        .pop(&mut chain)
        .expect("a good driver");
    popped.then(|| (chain.head(), [chain.readable(), chain.writable()].concat()))
}

#[derive(Clone, Debug)]
enum Step {
    Add {
        readable: Vec<u32>,
        writable: Vec<u32>,
        indirect: bool,
    },
    Kick,
    Take,
    Arm,
    Disarm,
    Pop,
    Push {
        which: usize,
    },
    Notify,
    EnableKicks,
    DisableKicks,
}

fn step() -> impl Strategy<Value = Step> {
    let lens = || prop::collection::vec(0..5000u32, 0..4);
    prop_oneof![
        5 => (lens(), lens(), any::<bool>()).prop_map(|(readable, writable, indirect)| Step::Add { readable, writable, indirect }),
        2 => Just(Step::Kick),
        4 => Just(Step::Take),
        1 => Just(Step::Arm),
        1 => Just(Step::Disarm),
        5 => Just(Step::Pop),
        5 => any::<usize>().prop_map(|which| Step::Push { which }),
        2 => Just(Step::Notify),
        1 => Just(Step::EnableKicks),
        1 => Just(Step::DisableKicks),
    ]
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Our driver twice, once with their device and once with ours.
struct Twins<'m> {
    features: u64,
    ram: [&'m Ram; 2],
    drivers: [DriverQueue<'m, 256>; 2],
    theirs: Queue,
    ours: DeviceQueue,
    popped: Vec<(u16, Vec<Buffer>)>,
    tables: u64,
}

impl<'m> Twins<'m> {
    fn new(ram: [&'m Ram; 2], size: u16, features: u64) -> Self {
        let (config, _) = QueueConfig::packed_at(0x1000, size);
        Self {
            features,
            ram,
            drivers: ram.map(|ram| {
                let areas = Areas::find(ram, &config).expect("a good queue");
                DriverQueue::new(areas, size, features).expect("a good queue")
            }),
            theirs: their_queue(&config, features),
            ours: DeviceQueue::new(config, features),
            popped: Vec::new(),
            tables: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        let [ram_theirs, ram_ours] = self.ram;
        let memory = &ram_theirs.0;
        match step {
            Step::Add {
                readable,
                writable,
                indirect,
            } => self.add(readable, writable, *indirect),
            Step::Kick => self.both(|d| d.wants_kick()),
            Step::Take => self.both(|d| d.take()),
            Step::Arm => self.both(|d| d.arm()),
            Step::Disarm => self.both(|d| d.disarm()),
            Step::Pop => {
                let chain = our_pop(&mut self.ours, ram_ours);
                assert_eq!(chain, their_pop(&mut self.theirs, ram_theirs));
                self.popped.extend(chain);
            }
            Step::Push { which } => {
                if !self.popped.is_empty() {
                    let (head, buffers) = self.popped.swap_remove(which % self.popped.len());
                    let written = buffers.iter().filter(|b| b.write).map(|b| b.len).sum();
                    self.theirs.add_used(memory, head, written).expect("a good queue");
                    self.ours.attach(ram_ours).expect("a good queue").push(head, written);
                }
            }
            Step::Notify => {
                let theirs = self.theirs.needs_notification(memory).expect("a good queue");
                let ours = self.ours.attach(ram_ours).expect("a good queue").wants_notification();
                // Without event index theirs always notifies.
                assert!(if self.features & EVENT_IDX == 0 {
                    theirs
                } else {
                    theirs == ours
                });
            }
            Step::EnableKicks => {
                let theirs = self.theirs.enable_notification(memory).expect("a good queue");
                assert_eq!(theirs, self.ours.attach(ram_ours).expect("a good queue").enable_kicks());
            }
            Step::DisableKicks => {
                self.theirs.disable_notification(memory).expect("a good queue");
                self.ours.attach(ram_ours).expect("a good queue").disable_kicks();
            }
        }
        assert!(
            ram_theirs.bytes(0x1000, TABLES) == ram_ours.bytes(0x1000, TABLES),
            "the rings differ after {step:?}"
        );
    }

    fn both<R: PartialEq + std::fmt::Debug>(&mut self, f: impl Fn(&mut DriverQueue<'m, 256>) -> R) {
        let [theirs, ours] = &mut self.drivers;
        assert_eq!(f(theirs), f(ours));
    }

    fn add(&mut self, readable: &[u32], writable: &[u32], indirect: bool) {
        let mut buffers: Vec<_> = readable.iter().map(|len| Buffer::readable(0x1_0000, *len)).collect();
        buffers.extend(writable.iter().map(|len| Buffer::writable(0x1_8000, *len)));
        // Odd on purpose: a table needs no alignment. 300 tables are more than can be in flight.
        let table = TABLES + 1 + self.tables % 300 * 96;
        self.tables += u64::from(indirect);
        let mut heads = Vec::new();
        for (driver, ram) in self.drivers.iter_mut().zip(self.ram) {
            heads.push(if indirect {
                driver.add_indirect(ram.window(table, 96).expect("within memory"), table, &buffers)
            } else {
                driver.add(&buffers)
            });
        }
        assert_eq!(heads[0], heads[1]);
    }
}

fn features() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![0, EVENT_IDX, INDIRECT_DESC, EVENT_IDX | INDIRECT_DESC])
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn our_device_does_to_memory_what_theirs_does(
        log2 in 0..=8u32,
        features in features(),
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let (theirs, ours) = (Ram::new(), Ram::new());
        let mut twins = Twins::new([&theirs, &ours], 1 << log2, features);
        steps.iter().for_each(|step| twins.step(step));
    }
}

#[test]
fn they_agree_while_the_indices_go_round() {
    for features in [0, EVENT_IDX] {
        let (theirs, ours) = (Ram::new(), Ram::new());
        let mut twins = Twins::new([&theirs, &ours], 4, features);
        let add = Step::Add {
            readable: vec![1],
            writable: vec![2],
            indirect: false,
        };
        for round in 0..70_000 {
            let [kicks, notifications] = [round % 3 == 0, round % 5 == 0];
            let mut steps = vec![&add, &Step::Pop, &Step::Push { which: 0 }, &Step::Take];
            steps.extend(kicks.then_some([&Step::EnableKicks, &Step::Kick]).into_iter().flatten());
            steps.extend(
                notifications
                    .then_some([&Step::Arm, &Step::Notify])
                    .into_iter()
                    .flatten(),
            );
            steps.into_iter().for_each(|step| twins.step(step));
        }
        assert!(our_pop(&mut twins.ours, twins.ram[1]).is_none());
    }
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A descriptor at `index` of the table at `table`, as figure 2.7.5 has it.
fn put_descriptor(ram: &Ram, table: u64, index: u16, (address, len): (u64, u32), flags: u16, next: u16) {
    let at = table + 16 * u64::from(index);
    ram.put(at, address, 8);
    ram.put(at + 8, len, 4);
    ram.put(at + 12, flags, 2);
    ram.put(at + 14, next, 2);
}

/// Puts a chain at the given places of a table, in their order.
fn put_chain(ram: &Ram, table: u64, places: &[u16], buffers: &[Buffer], tail: Option<(u64, u32, u16)>) {
    for (i, buffer) in buffers.iter().enumerate() {
        let last = i + 1 == buffers.len() && tail.is_none();
        let flags = if last { 0 } else { NEXT } | if buffer.write { WRITE } else { 0 };
        // What `next` holds in the last descriptor does not matter.
        let next = if last { 0xDEAD } else { places[i + 1] };
        put_descriptor(ram, table, places[i], (buffer.address, buffer.len), flags, next);
    }
    if let Some((address, len, flags)) = tail {
        put_descriptor(
            ram,
            table,
            places[buffers.len()],
            (address, len),
            INDIRECT | flags,
            0xDEAD,
        );
    }
}

fn shuffled(entries: u16) -> impl Strategy<Value = Vec<u16>> {
    Just((0..entries).collect::<Vec<_>>()).prop_shuffle()
}

proptest! {
    #![proptest_config(config())]

    /// Descriptors in any order, indirect tables after any number of plain descriptors, in tables
    /// longer than needed, at odd addresses, with a write flag that is to be ignored.
    #[test]
    fn our_device_reads_any_chain_the_specification_allows(
        places in shuffled(16),
        table_places in shuffled(40),
        plain in 0..8usize,
        in_table in 0..9usize,
        first_writable in 0..16usize,
        extra_entries in 0..24u32,
        lens in prop::collection::vec(any::<u16>(), 16),
        write_flag in any::<bool>(),
        table_at in 0..64u64,
    ) {
        prop_assume!(plain + in_table > 0);
        let ram = Ram::new();
        let (config, _) = QueueConfig::packed_at(0x1000, 16);
        let buffers: Vec<_> = (0..plain + in_table)
            .map(|i| Buffer { address: 0x1_0000 + i as u64, len: u32::from(lens[i]), write: i >= first_writable })
            .collect();
        let table = TABLES + table_at;
        let entries = 9 + extra_entries;
        // The first entry of a table is its number 0; the rest may be anywhere.
        let mut inside: Vec<_> = table_places.into_iter().filter(|p| *p != 0 && u32::from(*p) < entries).collect();
        inside.insert(0, 0);
        let tail = (table, entries * 16, if write_flag { WRITE } else { 0 });
        put_chain(&ram, config.descriptors, &places, &buffers[..plain], (in_table > 0).then_some(tail));
        put_chain(&ram, table, &inside, &buffers[plain..], None);
        ram.put(config.driver + 4, places[0], 2);
        ram.put(config.driver + 2, 1u16, 2);

        let ours = our_pop(&mut DeviceQueue::new(config, INDIRECT_DESC), &ram);
        prop_assert_eq!(&ours, &Some((places[0], buffers)));
        prop_assert_eq!(&ours, &their_pop(&mut their_queue(&config, INDIRECT_DESC), &ram));
    }

    /// Whatever is in memory: what our device takes for a chain, theirs takes for the same.
    #[test]
    fn our_device_takes_for_a_chain_only_what_theirs_does(
        descriptors in prop::collection::vec((prop_oneof![Just(TABLES), any::<u64>()], 0..200u32, 0..8u16, 0..9u16), 8),
        table in prop::collection::vec((any::<u64>(), any::<u32>(), 0..8u16, 0..13u16), 12),
        heads in prop::collection::vec(0..9u16, 8),
        index in 0..9u16,
    ) {
        let ram = Ram::new();
        let (config, _) = QueueConfig::packed_at(0x1000, 8);
        for (i, (address, len, flags, next)) in descriptors.into_iter().enumerate() {
            let len = if flags & INDIRECT == 0 { len } else { len / 16 * 16 };
            put_descriptor(&ram, config.descriptors, i as u16, (address, len), flags, next);
        }
        for (i, (address, len, flags, next)) in table.into_iter().enumerate() {
            put_descriptor(&ram, TABLES, i as u16, (address, len), flags, next);
        }
        for (i, head) in heads.into_iter().enumerate() {
            ram.put(config.driver + 4 + 2 * i as u64, head, 2);
        }
        ram.put(config.driver + 2, index, 2);
        let (mut ours, mut theirs) = (DeviceQueue::new(config, INDIRECT_DESC), their_queue(&config, 0));
        let mut chain = Chain::new();
        while ours.attach(&ram).expect("a good queue").pop(&mut chain) == Ok(true) {
            let buffers = [chain.readable(), chain.writable()].concat();
            prop_assert_eq!(their_pop(&mut theirs, &ram), Some((chain.head(), buffers)));
        }
    }
}
