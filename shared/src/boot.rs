//! The boot page: what a guest knows of its world before its first instruction.
//!
//! The host writes it at [`map::BOOT_PAGE`], read-only for the guest, and
//! passes its address in `RDI` (the first argument of the System V calling convention).

use crate::map;

/// The first field of the boot page: `CHITON` and the ABI's letter.
pub const MAGIC: u64 = u64::from_le_bytes(*b"CHITON\0\x01");

/// How many queues of all devices together the boot page describes.
pub const QUEUE_MAX: usize = 64;

/// Offset in the page of the one word that the host writes while the guest runs, behind the
/// structure: a `u32` that is not 0 once the guest has been asked to end. Waits end then.
pub const STOP_REQUESTED: usize = map::PAGE as usize - 4;

/// Offset in the page of the [`Generation`], which lies behind the structure because it is not the same for ever.
pub const GENERATION: usize = map::PAGE as usize - 128;

/// Which of the guests that went on from the same snapshot this is, and what differs for each. It is written before a
/// processor runs, and so changes between two instructions of the guest: who needs several values of it looks at
/// `count` before and after.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// How many times the guest has gone on from a snapshot; 0 if it never has.
    pub count: u32,
    /// Zero.
    pub reserved: u32,
    /// Another one at each start, and each time the guest goes on from a snapshot.
    pub id: [u8; 16],
    /// Random bytes, which are nobody else's, of the last time that the guest went on from a snapshot.
    pub seed: [u8; 32],
    /// What added to the time-stamp counter makes it go on where it was.
    pub ticks: u64,
    /// Wall-clock time when the guest went on, in nanoseconds since 1970-01-01 00:00 UTC.
    pub wall_clock_ns: u64,
    /// The time-stamp counter then, with `ticks` added.
    pub at: u64,
}

impl Generation {
    /// Size of the structure, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// The bytes that go into guest memory.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let parts: [&[u8]; 7] = [
            &self.count.to_le_bytes(),
            &self.reserved.to_le_bytes(),
            &self.id,
            &self.seed,
            &self.ticks.to_le_bytes(),
            &self.wall_clock_ns.to_le_bytes(),
            &self.at.to_le_bytes(),
        ];
        let mut at = 0;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        bytes
    }

    /// What these bytes are.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let word = |at: usize| u64::from_le_bytes(core::array::from_fn(|i| bytes[at + i]));
        Self {
            count: word(0) as u32,
            reserved: (word(0) >> 32) as u32,
            id: core::array::from_fn(|i| bytes[8 + i]),
            seed: core::array::from_fn(|i| bytes[24 + i]),
            ticks: word(56),
            wall_clock_ns: word(64),
            at: word(72),
        }
    }
}

/// How many bytes of a device's configuration the boot page shows.
pub const CONFIG_BYTES: usize = 64;

/// The boot page.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BootPage {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`ABI_VERSION`](crate::ABI_VERSION).
    pub abi: u32,
    /// Size of this structure, in bytes.
    pub size: u32,
    /// The ring the guest runs in: 0 or 3.
    pub ring: u32,
    /// The most detailed [level](crate::doorbell::LogLevel) the host wants to hear; 0 for none.
    pub log_level: u32,
    /// Size of guest memory, in bytes.
    pub memory: u64,
    /// What was added to the addresses of a position-independent image.
    pub load_bias: u64,
    /// First address of the heap.
    pub heap_start: u64,
    /// Size of the heap, in bytes.
    pub heap_size: u64,
    /// Lowest address of the stack.
    pub stack_start: u64,
    /// Size of the stack, in bytes; it grows down from its end.
    pub stack_size: u64,
    /// Arguments: see [`Strings`]. The first is the guest's name.
    pub args: Strings,
    /// Environment, as `KEY=VALUE` strings.
    pub env: Strings,
    /// Frequency of the time-stamp counter, in kHz.
    pub tsc_khz: u64,
    /// Wall-clock time at start, in nanoseconds since 1970-01-01 00:00 UTC.
    pub wall_clock_ns: u64,
    /// Random bytes, different at each start.
    pub seed: [u8; 32],
    /// How many entries of `devices` are in use.
    pub device_count: u32,
    /// How many [processors](crate::processor) there are, this one included.
    pub processors: u32,
    /// The devices.
    pub devices: [DeviceEntry; map::DEVICE_MAX],
    /// The block of processor 1, if there is one.
    pub processor_blocks: u64,
    /// Distance from one processor's block to the next, in bytes.
    pub processor_stride: u64,
    /// The queues of all devices, each device's in one piece: see [`queues_of`](Self::queues_of).
    pub queues: [QueueEntry; QUEUE_MAX],
    /// 1 if there are [interrupts](crate::interrupts).
    pub interrupts: u32,
    /// How to wait where there are: an [`Idle`](crate::interrupts::Idle).
    pub idle: u32,
    /// For how many nanoseconds to look whether a disk is done before sleeping for it: another thread serves it
    /// meanwhile. 0 where none does.
    pub look_ns: u64,
}

/// A list of strings: `count` of them, one after the other from `start`, each ended by a NUL.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    /// Address of the first byte.
    pub start: u64,
    /// Length of all of them with their NULs, in bytes.
    pub len: u32,
    /// How many.
    pub count: u32,
}

/// A device that is ready for use: status, features and queues are set as if a driver had gone
/// through the initialization of virtio 1.3 section 3.1 up to DRIVER_OK.
///
/// A driver that would rather do that itself resets the device through its registers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceEntry {
    /// The virtio device ID (virtio 1.3 section 5); 0 for none.
    pub id: u32,
    /// How many queues it has.
    pub queue_count: u16,
    /// The [doorbell](crate::doorbell::KICK) of this device.
    pub kick: u16,
    /// The register block.
    pub registers: u64,
    /// The features that are negotiated.
    pub features: u64,
    /// Address of its first [`QueueEntry`], which is in [`BootPage::queues`]; the others follow.
    pub queues: u64,
    /// The first bytes of the device's configuration space, as at start.
    pub config: [u8; CONFIG_BYTES],
}

impl Default for DeviceEntry {
    fn default() -> Self {
        Self {
            id: 0,
            queue_count: 0,
            kick: 0,
            registers: 0,
            features: 0,
            queues: 0,
            config: [0; CONFIG_BYTES],
        }
    }
}

/// A virtqueue that is ready for use: split, unless the features of its device have RING_PACKED.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueEntry {
    /// Number of descriptors; a power of two.
    pub size: u32,
    /// The queue's interrupt; 0 without [interrupts](crate::interrupts).
    pub vector: u32,
    /// Address of the descriptor table.
    pub descriptors: u64,
    /// Address of the driver area (the available ring).
    pub driver: u64,
    /// Address of the device area (the used ring).
    pub device: u64,
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<QueueEntry>() == 32);
    assert!(size_of::<DeviceEntry>() == 96);
    assert!(offset_of!(BootPage, memory) == 24);
    assert!(offset_of!(BootPage, args) == 72);
    assert!(offset_of!(BootPage, seed) == 120);
    assert!(offset_of!(BootPage, devices) == 160);
    assert!(offset_of!(BootPage, processor_blocks) == 160 + 96 * map::DEVICE_MAX);
    assert!(offset_of!(BootPage, queues) == offset_of!(BootPage, processor_blocks) + 16);
    assert!(size_of::<BootPage>() == offset_of!(BootPage, queues) + 32 * QUEUE_MAX + 16);
    assert!(size_of::<BootPage>() <= GENERATION);
    assert!(size_of::<Generation>() == 80 && offset_of!(Generation, at) == 72);
    assert!(GENERATION + size_of::<Generation>() <= STOP_REQUESTED);
};

/// Where entry number `index` of [`BootPage::queues`] lies.
#[must_use]
pub const fn queue_address(index: usize) -> u64 {
    map::BOOT_PAGE + (core::mem::offset_of!(BootPage, queues) + size_of::<QueueEntry>() * index) as u64
}

impl BootPage {
    /// Size of the structure, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// A page with its header filled in and everything else zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            magic: MAGIC,
            abi: crate::ABI_VERSION,
            size: Self::SIZE as u32,
            ring: 0,
            log_level: 0,
            memory: 0,
            load_bias: 0,
            heap_start: 0,
            heap_size: 0,
            stack_start: 0,
            stack_size: 0,
            args: Strings::default(),
            env: Strings::default(),
            tsc_khz: 0,
            wall_clock_ns: 0,
            seed: [0; 32],
            device_count: 0,
            processors: 1,
            devices: [DeviceEntry::default(); map::DEVICE_MAX],
            processor_blocks: 0,
            processor_stride: 0,
            queues: [QueueEntry::default(); QUEUE_MAX],
            interrupts: 0,
            idle: 0,
            look_ns: 0,
        }
    }

    /// The page as the bytes that go into guest memory.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::SIZE] {
        // SAFETY: `repr(C)` with no padding between or after the fields (every field is aligned
        // where the one before it ends, asserted above by offsets and size), so each byte is
        // initialized; the length is the structure's own.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }

    /// The devices in use.
    #[must_use]
    pub fn devices(&self) -> &[DeviceEntry] {
        let count = (self.device_count as usize).min(self.devices.len());
        &self.devices[..count]
    }

    /// The queues of a device of this page; none if its entry leads out of the table.
    #[must_use]
    pub fn queues_of(&self, device: &DeviceEntry) -> &[QueueEntry] {
        let offset = device.queues.wrapping_sub(queue_address(0));
        let first = usize::try_from(offset / size_of::<QueueEntry>() as u64).unwrap_or(usize::MAX);
        let end = first.saturating_add(device.queue_count.into());
        self.queues.get(first..end).unwrap_or_default()
    }
}

impl Default for BootPage {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_where_a_reader_in_another_language_looks_for_it() {
        let page = BootPage::new();
        let bytes = page.as_bytes();
        assert_eq!(&bytes[..6], b"CHITON");
        assert_eq!(bytes[8..12], crate::ABI_VERSION.to_le_bytes());
    }

    #[test]
    fn a_generation_reads_back() {
        let generation = Generation {
            count: 1,
            reserved: 2,
            id: [3; 16],
            seed: [4; 32],
            ticks: u64::MAX - 5,
            wall_clock_ns: 6,
            at: 7,
        };
        assert_eq!(Generation::from_bytes(&generation.to_bytes()), generation);
    }

    #[test]
    fn a_device_count_that_lies_is_cut_to_the_table() {
        let page = BootPage {
            device_count: 1000,
            ..BootPage::new()
        };
        assert_eq!(page.devices().len(), map::DEVICE_MAX);
    }

    #[test]
    fn a_device_finds_its_queues_in_the_table_of_all() {
        let mut page = BootPage::new();
        for (index, queue) in page.queues.iter_mut().enumerate() {
            queue.size = index as u32;
        }
        let mut device = DeviceEntry {
            queue_count: 3,
            queues: queue_address(5),
            ..DeviceEntry::default()
        };
        let sizes = |device: &DeviceEntry| page.queues_of(device).iter().map(|queue| queue.size).collect();
        let found: Vec<u32> = sizes(&device);
        assert_eq!(found, [5, 6, 7]);
        for queues in [0, queue_address(QUEUE_MAX - 2), queue_address(QUEUE_MAX), u64::MAX] {
            device.queues = queues;
            let found: Vec<u32> = sizes(&device);
            assert_eq!(found, [], "{queues:#x}");
        }
    }
}
