//! The register block of virtio over MMIO, version 2 (section 4.2.2).

/// What [`Register::MagicValue`] reads as: "virt".
pub const MAGIC: u32 = 0x7472_6976;
/// What [`Register::Version`] reads as.
pub const VERSION: u32 = 2;
/// What [`Register::VendorId`] reads as: "CHIT".
pub const VENDOR: u32 = u32::from_le_bytes(*b"CHIT");
/// Offset of the device's configuration space.
pub const CONFIG: u64 = 0x100;

/// Bits of [`Register::InterruptStatus`].
pub mod interrupt {
    /// The device has used a buffer.
    pub const USED_BUFFER: u32 = 1;
    /// The configuration has changed.
    pub const CONFIGURATION: u32 = 2;
}

/// What is written to [`Register::QueueProcessor`] so that the interrupt of a queue of the device goes to
/// a processor from then on. It stays so when the device is reset.
#[must_use]
pub const fn aim(queue: u16, processor: u16) -> u32 {
    queue as u32 | (processor as u32) << 16
}

macro_rules! registers {
    ($($(#[$doc:meta])* $name:ident = $offset:literal,)*) => {
        /// A register, by its offset in the block (table 4.1 of section 4.2.2).
        #[repr(u64)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Register {
            $($(#[$doc])* $name = $offset,)*
        }

        impl Register {
            /// Every register, in order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The register at this offset, if there is one.
            #[must_use]
            pub const fn at(offset: u64) -> Option<Self> {
                match offset {
                    $($offset => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

registers! {
    /// Read: [`MAGIC`].
    MagicValue = 0x000,
    /// Read: [`VERSION`].
    Version = 0x004,
    /// Read: the device ID.
    DeviceId = 0x008,
    /// Read: [`VENDOR`].
    VendorId = 0x00c,
    /// Read: 32 of the features the device offers.
    DeviceFeatures = 0x010,
    /// Write: which 32.
    DeviceFeaturesSel = 0x014,
    /// Write: 32 of the features the driver accepts.
    DriverFeatures = 0x020,
    /// Write: which 32.
    DriverFeaturesSel = 0x024,
    /// Write: the queue that the queue registers are about.
    QueueSel = 0x030,
    /// Read: the greatest size of the queue; 0 if there is no such queue.
    QueueSizeMax = 0x034,
    /// Write: the size of the queue.
    QueueSize = 0x038,
    /// Read and write: whether the queue is in use.
    QueueReady = 0x044,
    /// Write: the index of a queue that has new buffers.
    QueueNotify = 0x050,
    /// Read: why the device interrupts.
    InterruptStatus = 0x060,
    /// Write: the reasons that have been handled.
    InterruptAck = 0x064,
    /// Read and write: the device status; writing 0 resets.
    Status = 0x070,
    /// Write: address of the descriptor table.
    QueueDescLow = 0x080,
    /// Its high half.
    QueueDescHigh = 0x084,
    /// Write: address of the driver area.
    QueueDriverLow = 0x090,
    /// Its high half.
    QueueDriverHigh = 0x094,
    /// Write: address of the device area.
    QueueDeviceLow = 0x0a0,
    /// Its high half.
    QueueDeviceHigh = 0x0a4,
    /// Write: the shared memory region that the next registers are about.
    ShmSel = 0x0ac,
    /// Read: its length; all ones if there is no such region.
    ShmLenLow = 0x0b0,
    /// Its high half.
    ShmLenHigh = 0x0b4,
    /// Read: its address; all ones if there is no such region.
    ShmBaseLow = 0x0b8,
    /// Its high half.
    ShmBaseHigh = 0x0bc,
    /// Read and write: reset of one queue, with `VIRTIO_F_RING_RESET`.
    QueueReset = 0x0c0,
    /// Chiton's own, at a place that the specification leaves free. Read: how many processors the
    /// interrupts of queues can go to; 0 without [interrupts](crate::interrupts). Write:
    /// [`aim`], at any time.
    QueueProcessor = 0x0d0,
    /// Read: changes whenever the configuration does.
    ConfigGeneration = 0x0fc,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
    fn every_register_is_found_at_its_offset_and_nothing_between() {
        for offset in 0..CONFIG {
            let found = Register::at(offset);
            assert_eq!(found.is_some(), Register::ALL.iter().any(|r| *r as u64 == offset));
            assert!(found.is_none_or(|r| r as u64 == offset));
        }
    }
}
