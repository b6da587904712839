//! Devices of the other kind: a disk and a network interface that are driven by registers alone, as
//! real ones are. Every access to a register is an exit.
//!
//! They stand beside the virtio devices in the boot page, each with an [`id`] that virtio does not
//! use, a register block in the place of its number, and no queues. Both are modelled on hardware
//! that has been sold, so that a driver makes as many accesses here as there; what is left out is
//! said in the module of each.

pub mod disk;
pub mod nic;

/// What a [`DeviceEntry`](crate::boot::DeviceEntry) calls them: virtio's device IDs are small
/// numbers (virtio 1.3 section 5).
pub mod id {
    /// The [disk](super::disk).
    pub const DISK: u32 = 0x8000_0001;
    /// The [network interface](super::nic).
    pub const NIC: u32 = 0x8000_0002;
}
