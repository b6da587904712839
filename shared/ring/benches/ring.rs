//! What a descriptor costs: our device side beside rust-vmm's `virtio-queue`, in the same run and
//! on the same memory, and our packed queues beside our split ones.
//!
//! ```text
//! cargo bench -p chiton-ring --bench ring
//! ```
//!
//! Each measurement is a full queue of chains. The driver's part is done once and left in memory;
//! before each round the device's state is put back, so that a round is the device's work alone:
//! every chain taken, every buffer looked at, every chain given back. Divide by the number of
//! descriptors, which criterion shows as throughput.
#![cfg(not(loom))]
#![allow(missing_docs, reason = "criterion_group makes a function without")]

use std::hint::black_box;
use std::ptr::NonNull;

use chiton_ring::feature::{EVENT_IDX, INDIRECT_DESC, RING_PACKED};
use chiton_ring::memory::{GuestMemory, Window};
use chiton_ring::{Areas, Buffer, Chain, DeviceQueue, DriverQueue, Format, QueueConfig};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

const MEMORY: usize = 0x4_0000;
const QUEUE: u64 = 0x1000;
const TABLES: u64 = 0x1_0000;
const BUFFERS: u64 = 0x3_0000;
const SIZE: u16 = 256;

/// Memory that both implementations accept.
struct Ram(GuestMemoryMmap);

impl Ram {
    fn new() -> Self {
        Self(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("a mapping"))
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

/// How a chain is laid out.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    buffers: usize,
    indirect: bool,
}

const SHAPES: [Shape; 4] = [
    Shape {
        name: "chains of 1",
        buffers: 1,
        indirect: false,
    },
    Shape {
        name: "chains of 2",
        buffers: 2,
        indirect: false,
    },
    Shape {
        name: "chains of 8",
        buffers: 8,
        indirect: false,
    },
    Shape {
        name: "tables of 8",
        buffers: 8,
        indirect: true,
    },
];

impl Shape {
    fn chains(self) -> usize {
        usize::from(SIZE) / if self.indirect { 1 } else { self.buffers }
    }

    fn features(self, format: Format) -> u64 {
        let packed = if format == Format::Packed { RING_PACKED } else { 0 };
        EVENT_IDX | INDIRECT_DESC | packed
    }

    fn chain(self) -> Vec<Buffer> {
        let readable = (0..self.buffers / 2).map(|_| Buffer::readable(BUFFERS, 64));
        readable
            .chain((self.buffers / 2..self.buffers).map(|_| Buffer::writable(BUFFERS + 0x100, 64)))
            .collect()
    }

    fn add_all<'m>(self, ram: &'m Ram, driver: &mut DriverQueue<'m, { SIZE as usize }>) {
        let buffers = self.chain();
        for i in 0..self.chains() as u64 {
            let table = TABLES + i * 0x80;
            if self.indirect {
                let window = ram.window(table, 0x80).expect("within memory");
                driver.add_indirect(window, table, &buffers).expect("room");
            } else {
                driver.add(&buffers).expect("room");
            }
        }
    }

    /// A full queue.
    fn fill(self, ram: &Ram, format: Format) -> QueueConfig {
        let config = QueueConfig::placed(format, QUEUE, SIZE).0;
        let areas = Areas::find_as(format, ram, &config).expect("a good queue");
        let mut driver = DriverQueue::new(areas, SIZE, self.features(format)).expect("a good queue");
        self.add_all(ram, &mut driver);
        config
    }
}

fn ours(queue: &mut DeviceQueue, ram: &Ram, chain: &mut Chain) -> (u64, u32) {
    let (mut bytes, mut chains) = (0, 0);
    let mut queue = queue.attach(ram).expect("a good queue");
    while queue.pop(chain).expect("a good driver") {
        for buffer in chain.readable().iter().chain(chain.writable()) {
            bytes += buffer.address + u64::from(buffer.len);
        }
        queue.push(chain.head(), 64);
        chains += 1;
    }
    (bytes, chains)
}

fn theirs(queue: &mut Queue, ram: &Ram) -> (u64, u32) {
    let (mut bytes, mut chains) = (0, 0);
    while let Some(chain) = queue.pop_descriptor_chain(&ram.0) {
        let head = chain.head_index();
        for descriptor in chain {
            bytes += descriptor.addr().0 + u64::from(descriptor.len());
        }
        queue.add_used(&ram.0, head, 64).expect("a good queue");
        chains += 1;
    }
    (bytes, chains)
}

/// The same with the available index read once for all chains.
fn theirs_at_once(queue: &mut Queue, ram: &Ram, heads: &mut Vec<u16>) -> (u64, u32) {
    let mut bytes = 0;
    heads.clear();
    for chain in queue.iter(&ram.0).expect("a good queue") {
        heads.push(chain.head_index());
        for descriptor in chain {
            bytes += descriptor.addr().0 + u64::from(descriptor.len());
        }
    }
    for head in &*heads {
        queue.add_used(&ram.0, *head, 64).expect("a good queue");
    }
    (bytes, heads.len() as u32)
}

fn their_queue(config: &QueueConfig) -> Queue {
    let mut queue = Queue::new(SIZE).expect("a power of two");
    queue.set_desc_table_address(Some(config.descriptors as u32), Some(0));
    queue.set_avail_ring_address(Some(config.driver as u32), Some(0));
    queue.set_used_ring_address(Some(config.device as u32), Some(0));
    queue.set_event_idx(true);
    queue.set_ready(true);
    queue
}

/// The device's work on a full queue.
fn device(criterion: &mut Criterion) {
    for shape in SHAPES {
        let mut group = criterion.benchmark_group(format!("device, {}", shape.name));
        group.throughput(Throughput::Elements((shape.chains() * shape.buffers) as u64));
        let ram = Ram::new();
        let config = shape.fill(&ram, Format::Split);
        let features = shape.features(Format::Split);
        let mut chain = Chain::new();
        let expected = theirs(&mut their_queue(&config), &ram);
        assert_eq!(
            expected,
            ours(&mut DeviceQueue::new(config, features), &ram, &mut chain)
        );
        assert_eq!(expected.1 as usize, shape.chains());
        group.bench_function("virtio-queue", |b| {
            b.iter_batched_ref(
                || their_queue(&config),
                |q| black_box(theirs(q, &ram)),
                BatchSize::SmallInput,
            );
        });
        let mut heads = Vec::with_capacity(SIZE.into());
        assert_eq!(expected, theirs_at_once(&mut their_queue(&config), &ram, &mut heads));
        group.bench_function("virtio-queue, at once", |b| {
            let new = || their_queue(&config);
            b.iter_batched_ref(
                new,
                |q| black_box(theirs_at_once(q, &ram, &mut heads)),
                BatchSize::SmallInput,
            );
        });
        group.bench_function("split", |b| {
            let new = || DeviceQueue::new(config, features);
            b.iter_batched_ref(new, |q| black_box(ours(q, &ram, &mut chain)), BatchSize::SmallInput);
        });
        // The device overwrites a packed ring, so the driver is part of the setup.
        let features = shape.features(Format::Packed);
        group.bench_function("packed", |b| {
            let new = || {
                ram.window(QUEUE, 0x2000).expect("within memory").write(0, &[0; 0x2000]);
                DeviceQueue::new(shape.fill(&ram, Format::Packed), features)
            };
            b.iter_batched_ref(new, |q| black_box(ours(q, &ram, &mut chain)), BatchSize::PerIteration);
        });
        group.finish();
    }
}

/// Both sides in turn: a queue is filled, emptied, and taken back.
fn round(criterion: &mut Criterion) {
    for shape in SHAPES {
        let mut group = criterion.benchmark_group(format!("both sides, {}", shape.name));
        group.throughput(Throughput::Elements((shape.chains() * shape.buffers) as u64));
        for (name, format) in [("split", Format::Split), ("packed", Format::Packed)] {
            let ram = Ram::new();
            let features = shape.features(format);
            let config = QueueConfig::placed(format, QUEUE, SIZE).0;
            let areas = Areas::find_as(format, &ram, &config).expect("a good queue");
            let mut driver = DriverQueue::new(areas, SIZE, features).expect("a good queue");
            let (mut queue, mut chain) = (DeviceQueue::new(config, features), Chain::new());
            group.bench_function(name, |b| {
                b.iter(|| {
                    shape.add_all(&ram, &mut driver);
                    black_box(ours(&mut queue, &ram, &mut chain));
                    while let Some(taken) = driver.take().expect("our own device") {
                        black_box(taken);
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, device, round);
criterion_main!(benches);
