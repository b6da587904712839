//! The descriptor ring (section 2.8.13).

use crate::layout::DESCRIPTOR;

/// Descriptor flag: with [`F_USED`], whether the descriptor is available or used.
pub(super) const F_AVAIL: u16 = 1 << 7;
/// Descriptor flag: with [`F_AVAIL`], whether the descriptor is available or used.
pub(super) const F_USED: u16 = 1 << 15;

/// Offset of a descriptor's address in the ring.
pub(super) const fn address(slot: u16) -> usize {
    DESCRIPTOR * slot as usize
}

/// Offset of a descriptor's length.
pub(super) const fn len(slot: u16) -> usize {
    address(slot) + 8
}

/// Offset of a descriptor's buffer ID.
pub(super) const fn id(slot: u16) -> usize {
    address(slot) + 12
}

/// Offset of a descriptor's flags.
pub(super) const fn flags(slot: u16) -> usize {
    address(slot) + 14
}
