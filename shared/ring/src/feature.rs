//! Feature bits that do not depend on the device (section 6), as masks.

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

/// What both sides of this crate do whenever they may: all devices of Chiton offer it, and its guests use it.
pub const RING: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1;

/// What all devices of Chiton offer besides. Guests have packed queues if they are started so, notification data if they
/// negotiate by registers, and resets always.
pub const BY_REGISTERS: u64 = RING_PACKED | NOTIFICATION_DATA | RING_RESET;
