//! The available and the used ring (sections 2.7.6 and 2.7.8).

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
