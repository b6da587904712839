//! Where the parts of a split virtqueue are (section 2.7).

use super::MAX_SIZE;
use crate::memory::{GuestMemory, Window};

/// Size of a descriptor, in bytes.
pub const DESCRIPTOR: usize = 16;

/// Descriptor flag: another one follows, named by `next`.
pub const F_NEXT: u16 = 1;
/// Descriptor flag: the device writes this buffer.
pub const F_WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const F_INDIRECT: u16 = 4;

/// Flag in the available ring: the driver wants no used-buffer notification.
pub const AVAIL_NO_INTERRUPT: u16 = 1;
/// Flag in the used ring: the device wants no available-buffer notification.
pub const USED_NO_NOTIFY: u16 = 1;

/// Offsets in the available ring.
pub(crate) mod avail {
    pub(crate) const FLAGS: usize = 0;
    pub(crate) const IDX: usize = 2;
    pub(crate) const fn ring(slot: u16) -> usize {
        4 + 2 * slot as usize
    }
    pub(crate) const fn used_event(size: u16) -> usize {
        ring(size)
    }
}

/// Offsets in the used ring.
pub(crate) mod used {
    pub(crate) const FLAGS: usize = 0;
    pub(crate) const IDX: usize = 2;
    pub(crate) const fn ring(slot: u16) -> usize {
        4 + 8 * slot as usize
    }
    pub(crate) const fn avail_event(size: u16) -> usize {
        ring(size)
    }
}

/// Bytes of a descriptor table with `size` entries.
#[must_use]
pub const fn descriptor_bytes(size: u16) -> usize {
    DESCRIPTOR * size as usize
}

/// Bytes of an available ring with `size` entries, `used_event` included.
#[must_use]
pub const fn driver_bytes(size: u16) -> usize {
    avail::used_event(size) + 2
}

/// Bytes of a used ring with `size` entries, `avail_event` included.
#[must_use]
pub const fn device_bytes(size: u16) -> usize {
    used::avail_event(size) + 2
}

/// Where a queue is, as the driver set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueConfig {
    /// Number of descriptors.
    pub size: u16,
    /// Guest-physical address of the descriptor table, a multiple of 16.
    pub descriptors: u64,
    /// Guest-physical address of the available ring, a multiple of 2.
    pub driver: u64,
    /// Guest-physical address of the used ring, a multiple of 4.
    pub device: u64,
}

impl QueueConfig {
    /// Puts a queue of `size` descriptors at `start`, its parts one after the other, and returns
    /// it with the first address behind it.
    #[must_use]
    pub const fn packed_at(start: u64, size: u16) -> (Self, u64) {
        let descriptors = start.next_multiple_of(DESCRIPTOR as u64);
        let driver = descriptors + descriptor_bytes(size) as u64;
        let device = (driver + driver_bytes(size) as u64).next_multiple_of(4);
        let end = device + device_bytes(size) as u64;
        (
            Self {
                size,
                descriptors,
                driver,
                device,
            },
            end,
        )
    }

    /// Whether size and alignments are what section 2.7 asks for.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.size.is_power_of_two()
            && self.size <= MAX_SIZE
            && self.descriptors.is_multiple_of(16)
            && self.driver.is_multiple_of(2)
            && self.device.is_multiple_of(4)
    }
}

/// The three parts of a queue, found in memory.
#[derive(Clone, Copy, Debug)]
pub struct Areas<'m> {
    /// The descriptor table.
    pub descriptors: Window<'m>,
    /// The available ring.
    pub driver: Window<'m>,
    /// The used ring.
    pub device: Window<'m>,
}

impl<'m> Areas<'m> {
    /// Finds the parts; `None` if the configuration is not valid, or a part is not memory or not
    /// aligned on the host.
    pub fn find<M: GuestMemory + ?Sized>(memory: &'m M, config: &QueueConfig) -> Option<Self> {
        if !config.is_valid() {
            return None;
        }
        let areas = Self {
            descriptors: memory.window(config.descriptors, descriptor_bytes(config.size))?,
            driver: memory.window(config.driver, driver_bytes(config.size))?,
            device: memory.window(config.device, device_bytes(config.size))?,
        };
        areas.hold(config.size).then_some(areas)
    }

    /// Whether a queue of `size` descriptors can be accessed in these areas: no access panics then.
    pub(super) fn hold(&self, size: u16) -> bool {
        self.descriptors.len() >= descriptor_bytes(size)
            && self.driver.len() >= driver_bytes(size)
            && self.driver.is_aligned(2)
            && self.device.len() >= device_bytes(size)
            && self.device.is_aligned(4)
    }
}
