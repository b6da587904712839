//! Virtio 1.3: what device and driver share.
//!
//! Section numbers are those of the OASIS specification "Virtual I/O Device (VIRTIO) Version 1.3".

pub mod balloon;
pub mod block;
pub mod console;
pub mod entropy;
pub mod mmio;
pub mod net;
pub mod p9;
pub mod ring;
pub mod vsock;

/// The device IDs of section 5 that Chiton has.
pub mod id {
    /// Network device (section 5.1).
    pub const NET: u32 = 1;
    /// Block device (section 5.2).
    pub const BLOCK: u32 = 2;
    /// Console device (section 5.3).
    pub const CONSOLE: u32 = 3;
    /// Entropy device (section 5.4).
    pub const ENTROPY: u32 = 4;
    /// Socket device (section 5.10).
    pub const VSOCK: u32 = 19;
    /// Memory balloon device (section 5.5).
    pub const BALLOON: u32 = 5;
    /// 9P transport.
    pub const P9: u32 = 9;
}

/// The bits of the device status field (section 2.1).
pub mod status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// The guest has a driver for it.
    pub const DRIVER: u32 = 2;
    /// The driver is ready: the device is live.
    pub const DRIVER_OK: u32 = 4;
    /// Feature negotiation is complete.
    pub const FEATURES_OK: u32 = 8;
    /// The device has met an error it cannot recover from without a reset.
    pub const DEVICE_NEEDS_RESET: u32 = 64;
    /// The driver has given up.
    pub const FAILED: u32 = 128;
}

/// Feature bits that do not depend on the device (section 6), as masks.
pub mod feature {
    /// `VIRTIO_F_INDIRECT_DESC` (28): descriptors that point to tables of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// `VIRTIO_F_EVENT_IDX` (29): notifications wanted from a given index on.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// `VIRTIO_F_VERSION_1` (32): a device of version 1.0 or later. Chiton has no other.
    pub const VERSION_1: u64 = 1 << 32;
    /// `VIRTIO_F_RING_PACKED` (34): queues of the packed format.
    pub const RING_PACKED: u64 = 1 << 34;
    /// `VIRTIO_F_IN_ORDER` (35): buffers are used in the order in which they were made available.
    pub const IN_ORDER: u64 = 1 << 35;
    /// `VIRTIO_F_NOTIFICATION_DATA` (38): a kick says how far the driver has come.
    pub const NOTIFICATION_DATA: u64 = 1 << 38;
    /// `VIRTIO_F_RING_RESET` (40): a queue can be reset alone.
    pub const RING_RESET: u64 = 1 << 40;

    /// What every Chiton device offers and the guest library uses.
    pub const RING: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1;

    /// What every Chiton device offers besides to a driver that negotiates by registers.
    pub const BY_REGISTERS: u64 = RING_PACKED | NOTIFICATION_DATA | RING_RESET;
}
