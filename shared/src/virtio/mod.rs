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
pub mod vsock;

#[doc(inline)]
pub use chiton_ring as ring;
#[doc(inline)]
pub use chiton_ring::feature;

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
