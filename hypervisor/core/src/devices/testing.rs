//! Guest memory and a driver for the tests of this folder.

use std::boxed::Box;
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::vec::Vec;

use chiton_shared::boot::{DeviceEntry, QueueEntry};
use chiton_shared::map;
use chiton_shared::memory::{GuestMemory, Window};
use chiton_shared::virtio::feature;
use chiton_shared::virtio::ring::{Areas, Buffer, DriverQueue, MAX_SIZE, QueueConfig};

use super::{Device, Outcome, Transport, preset_all};

/// How many cases a property test runs; Miri is a thousand times slower.
pub(crate) const CASES: u32 = if cfg!(miri) { 1 } else { 512 };

/// The configuration of every property test here.
pub(crate) fn config() -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        cases: CASES,
        failure_persistence: None,
        ..Default::default()
    }
}

#[repr(align(4096))]
struct Page {
    _bytes: UnsafeCell<[u8; 4096]>,
}

/// Pages of guest memory from `start` on.
struct Region {
    start: u64,
    pages: Box<[Page]>,
}

/// Guest memory: one page of the host's world, then queues and buffers.
pub(crate) struct Memory {
    regions: [Region; 2],
}

/// The page of the host's world, which devices may read and not write.
pub(crate) const WORLD: u64 = map::BOOT_STRINGS;
/// Where the tests put buffers.
pub(crate) const BUFFERS: u64 = map::QUEUES + 0x4000;
/// End of the memory that the tests have.
pub(crate) const END: u64 = map::QUEUES + 0xc000;

impl Memory {
    pub(crate) fn new() -> Self {
        Self::up_to(END)
    }

    pub(crate) fn up_to(end: u64) -> Self {
        let region = |start, end: u64| Region {
            start,
            pages: (start..end)
                .step_by(4096)
                .map(|_| Page {
                    _bytes: UnsafeCell::new([0; 4096]),
                })
                .collect(),
        };
        Self {
            regions: [region(WORLD, WORLD + 4096), region(map::QUEUES, end)],
        }
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        self.window(address, bytes.len())
            .expect("memory of the test")
            .write(0, bytes);
    }

    pub(crate) fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.window(address, len)
            .expect("memory of the test")
            .read(0, &mut bytes);
        bytes
    }
}

impl GuestMemory for Memory {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        self.regions.iter().find_map(|region| {
            let offset = usize::try_from(address.checked_sub(region.start)?).ok()?;
            let start = NonNull::from(&*region.pages).cast();
            // SAFETY: the pages live as long as `self`, nobody holds a reference into their
            // cells, and all access is through windows.
            let all = unsafe { Window::new(start, region.pages.len() * 4096) };
            all.part(offset, len)
        })
    }
}

/// A device made ready by the host, and the shared crate's driver side of its queues.
pub(crate) struct Rig<'m> {
    pub(crate) memory: &'m Memory,
    pub(crate) transport: Transport,
    pub(crate) entry: DeviceEntry,
    /// The queues as the boot page has them.
    pub(crate) table: Vec<QueueEntry>,
    pub(crate) queues: Vec<DriverQueue<'m, { MAX_SIZE as usize }>>,
    next_buffer: u64,
}

impl<'m> Rig<'m> {
    pub(crate) fn new(memory: &'m Memory, device: impl Device + 'static) -> Self {
        Self::with_features(memory, device, u64::MAX)
    }

    /// With these of the features that the device offers, and split queues.
    pub(crate) fn with_features(memory: &'m Memory, device: impl Device + 'static, features: u64) -> Self {
        let mut transports = [Transport::new(Box::new(device))];
        let preset = preset_all(&mut transports).expect("one device fits");
        let (mut entry, table) = (preset.devices[0], preset.queues);
        let [mut transport] = transports;
        let configs: Vec<_> = table.iter().map(queue_config).collect();
        if features != u64::MAX {
            entry = transport
                .preset(0, features & !feature::RING_PACKED, &configs, &mut Vec::new())
                .expect("the same queues");
        }
        let queues = configs
            .iter()
            .map(|config| attach(memory, config, entry.features))
            .collect();
        Self {
            memory,
            transport,
            entry,
            table,
            queues,
            next_buffer: BUFFERS,
        }
    }

    /// Fresh memory for a buffer.
    pub(crate) fn place(&mut self, len: usize) -> u64 {
        let at = self.next_buffer;
        self.next_buffer += len as u64;
        assert!(self.next_buffer <= END, "the test uses more memory than there is");
        at
    }

    /// A buffer that holds `bytes`, for the device to read.
    pub(crate) fn readable(&mut self, bytes: &[u8]) -> Buffer {
        let at = self.place(bytes.len());
        self.memory.write(at, bytes);
        Buffer::readable(at, bytes.len() as u32)
    }

    /// A buffer for the device to write.
    pub(crate) fn writable(&mut self, len: usize) -> Buffer {
        Buffer::writable(self.place(len), len as u32)
    }

    /// What is in a buffer.
    pub(crate) fn bytes(&self, buffer: Buffer) -> Vec<u8> {
        self.memory.read(buffer.address, buffer.len as usize)
    }

    /// Makes buffers available, and has the device work once.
    pub(crate) fn submit(&mut self, queue: usize, buffers: &[Buffer]) -> Outcome {
        self.queues[queue].add(buffers).expect("room in the queue");
        self.process()
    }

    pub(crate) fn process(&mut self) -> Outcome {
        self.transport.process(self.memory)
    }

    /// Has the device work until it says that there is no more to do.
    pub(crate) fn process_all(&mut self) {
        for _ in 0..10_000 {
            if !self.process().more {
                return;
            }
        }
        panic!("the device never comes to an end");
    }

    /// How many bytes the device wrote into the next chain it gave back, if there is one.
    pub(crate) fn take(&mut self, queue: usize) -> Option<u32> {
        self.queues[queue]
            .take()
            .expect("a device that keeps the rules")
            .map(|(_, written)| written)
    }
}

pub(crate) fn attach<'m>(
    memory: &'m Memory,
    config: &QueueConfig,
    features: u64,
) -> DriverQueue<'m, { MAX_SIZE as usize }> {
    let areas = Areas::find(memory, config).expect("queues in memory");
    DriverQueue::new(areas, config.size, features).expect("a valid queue")
}

pub(crate) fn queue_config(queue: &QueueEntry) -> QueueConfig {
    QueueConfig {
        size: queue.size as u16,
        descriptors: queue.descriptors,
        driver: queue.driver,
        device: queue.device,
    }
}
