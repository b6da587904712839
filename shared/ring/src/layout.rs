//! Where the parts of a virtqueue are (sections 2.7 and 2.8).

pub use super::split::layout::{AVAIL_NO_INTERRUPT, USED_NO_NOTIFY, device_bytes, driver_bytes};
use super::{MAX_SIZE, packed};
use crate::feature;
use crate::memory::{GuestMemory, Window};

/// Size of a descriptor, in bytes.
pub const DESCRIPTOR: usize = 16;

/// Descriptor flag: another one follows.
pub const F_NEXT: u16 = 1;
/// Descriptor flag: the device writes this buffer.
pub const F_WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const F_INDIRECT: u16 = 4;

/// Bytes of a descriptor table with `size` entries.
#[must_use]
pub const fn descriptor_bytes(size: u16) -> usize {
    DESCRIPTOR * size as usize
}

/// How the two sides of a queue hand chains over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Two rings of indices beside a table of descriptors (section 2.7).
    #[default]
    Split,
    /// One ring of descriptors (section 2.8).
    Packed,
}

impl Format {
    /// The format that these negotiated features mean.
    #[must_use]
    pub const fn of(features: u64) -> Self {
        if features & feature::RING_PACKED == 0 {
            Self::Split
        } else {
            Self::Packed
        }
    }

    /// Bytes of the driver area of a queue with `size` descriptors.
    #[must_use]
    pub const fn driver_bytes(self, size: u16) -> usize {
        match self {
            Self::Split => driver_bytes(size),
            Self::Packed => packed::event::BYTES,
        }
    }

    /// Bytes of the device area of a queue with `size` descriptors.
    #[must_use]
    pub const fn device_bytes(self, size: u16) -> usize {
        match self {
            Self::Split => device_bytes(size),
            Self::Packed => packed::event::BYTES,
        }
    }

    /// Whether a queue may have `size` descriptors: a power of two if it is split (section 2.7),
    /// any number if it is packed (section 2.8.10.1), and at most [`MAX_SIZE`].
    #[must_use]
    pub const fn allows(self, size: u16) -> bool {
        match self {
            Self::Split => size.is_power_of_two() && size <= MAX_SIZE,
            Self::Packed => size != 0 && size <= MAX_SIZE,
        }
    }
}

/// Where a queue is, as the driver set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueConfig {
    /// Number of descriptors.
    pub size: u16,
    /// Guest-physical address of the descriptor area, a multiple of 16: the descriptor table, or
    /// the descriptor ring of a packed queue.
    pub descriptors: u64,
    /// Guest-physical address of the driver area: the available ring, a multiple of 2, or the
    /// event suppression structure of a packed queue, a multiple of 4.
    pub driver: u64,
    /// Guest-physical address of the device area, a multiple of 4: the used ring, or the event
    /// suppression structure of a packed queue.
    pub device: u64,
}

impl QueueConfig {
    /// Puts a split queue of `size` descriptors at `start`, its parts one after the other, and
    /// returns it with the first address behind it.
    #[must_use]
    pub const fn packed_at(start: u64, size: u16) -> (Self, u64) {
        Self::placed(Format::Split, start, size)
    }

    /// Puts a queue of `size` descriptors at `start`, its parts one after the other, and returns
    /// it with the first address behind it.
    #[must_use]
    pub const fn placed(format: Format, start: u64, size: u16) -> (Self, u64) {
        let descriptors = start.next_multiple_of(DESCRIPTOR as u64);
        let driver = descriptors + descriptor_bytes(size) as u64;
        let device = (driver + format.driver_bytes(size) as u64).next_multiple_of(4);
        let end = device + format.device_bytes(size) as u64;
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

    /// Whether size and alignments are what section 2.7 asks of a split queue.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.fits(Format::Split)
    }

    /// Whether size and alignments are what section 2.7 or 2.8.10.1 asks for.
    #[must_use]
    pub const fn fits(&self, format: Format) -> bool {
        let driver = match format {
            Format::Split => 2,
            Format::Packed => 4,
        };
        format.allows(self.size)
            && self.descriptors.is_multiple_of(16)
            && self.driver.is_multiple_of(driver)
            && self.device.is_multiple_of(4)
    }
}

/// The three parts of a queue, found in memory.
#[derive(Clone, Copy, Debug)]
pub struct Areas<'m> {
    /// The descriptor table, or the descriptor ring of a packed queue.
    pub descriptors: Window<'m>,
    /// The available ring, or what the driver wants to hear of.
    pub driver: Window<'m>,
    /// The used ring, or what the device wants to hear of.
    pub device: Window<'m>,
}

impl<'m> Areas<'m> {
    /// Finds the parts of a split queue; `None` if the configuration is not valid, or a part is
    /// not memory or not aligned on the host.
    pub fn find<M: GuestMemory + ?Sized>(memory: &'m M, config: &QueueConfig) -> Option<Self> {
        Self::find_as(Format::Split, memory, config)
    }

    /// Finds the parts of a queue of this format; `None` as for [`find`](Self::find).
    pub fn find_as<M: GuestMemory + ?Sized>(format: Format, memory: &'m M, config: &QueueConfig) -> Option<Self> {
        if !config.fits(format) {
            return None;
        }
        let areas = Self {
            descriptors: memory.window(config.descriptors, descriptor_bytes(config.size))?,
            driver: memory.window(config.driver, format.driver_bytes(config.size))?,
            device: memory.window(config.device, format.device_bytes(config.size))?,
        };
        areas.hold(format, config.size).then_some(areas)
    }

    /// Zeroes what a queue of `size` descriptors has of these areas.
    ///
    /// # Panics
    ///
    /// If they are smaller.
    pub fn clear(&self, format: Format, size: u16) {
        let parts = [
            (&self.descriptors, descriptor_bytes(size)),
            (&self.driver, format.driver_bytes(size)),
            (&self.device, format.device_bytes(size)),
        ];
        for (part, bytes) in parts {
            for offset in (0..bytes).step_by(64) {
                part.write(offset, &[0; 64][..(bytes - offset).min(64)]);
            }
        }
    }

    /// Whether a queue of `size` descriptors can be accessed in these areas: no access panics then.
    pub(super) fn hold(&self, format: Format, size: u16) -> bool {
        let aligned = match format {
            Format::Split => self.driver.is_aligned(2) && self.device.is_aligned(4),
            Format::Packed => self.descriptors.is_aligned(8) && self.driver.is_aligned(2) && self.device.is_aligned(2),
        };
        aligned
            && self.descriptors.len() >= descriptor_bytes(size)
            && self.driver.len() >= format.driver_bytes(size)
            && self.device.len() >= format.device_bytes(size)
    }
}
