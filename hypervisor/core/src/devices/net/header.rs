//! What a driver writes before a frame, checked (section 5.1.6.2).

use chiton_shared::virtio::net::{
    ETHERNET, F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_USO4, F_GUEST_USO6, F_HOST_TSO4, F_HOST_TSO6,
    F_HOST_USO, Header, MAX_FRAME, flags, gso,
};

/// The offloads of frames to the driver.
pub(super) const LARGE_RECEIVE: u64 = F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_USO4 | F_GUEST_USO6;

/// The offloads of frames from the driver.
const LARGE_SEND: u64 = F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_USO;

/// Drops what was negotiated without what it builds on (section 5.1.3.1).
pub(super) const fn consistent(features: u64) -> u64 {
    let mut features = features;
    if features & F_CSUM == 0 {
        features &= !LARGE_SEND;
    }
    if features & F_GUEST_CSUM == 0 {
        features &= !LARGE_RECEIVE;
    }
    features
}

/// The header of a frame of `len` bytes as the link gets it; `None` if it asks for what is not
/// negotiated or makes no sense. `packet` is the longest frame without an offload.
pub(super) fn check(given: &Header, len: u64, features: u64, packet: usize) -> Option<Header> {
    let has = |feature| features & feature != 0;
    let needs_csum = given.flags & flags::NEEDS_CSUM != 0;
    let checksum_end = u64::from(given.csum_start) + u64::from(given.csum_offset) + 2;
    if needs_csum && (!has(F_CSUM) || checksum_end > len) {
        return None;
    }
    let needed = match given.gso_type {
        gso::NONE => 0,
        gso::TCPV4 => F_HOST_TSO4,
        gso::TCPV6 => F_HOST_TSO6,
        gso::UDP_L4 => F_HOST_USO,
        _ => return None,
    };
    let segmented = needed != 0;
    if segmented && (!has(needed) || !needs_csum || given.gso_size == 0) {
        return None;
    }
    let longest = if segmented { MAX_FRAME } else { packet };
    if len < ETHERNET as u64 || len > longest as u64 {
        return None;
    }
    let mut header = Header::default();
    if needs_csum {
        header.flags = flags::NEEDS_CSUM;
        header.csum_start = given.csum_start;
        header.csum_offset = given.csum_offset;
    }
    if segmented {
        header.gso_type = given.gso_type;
        header.gso_size = given.gso_size;
        header.hdr_len = given.hdr_len.min(u16::try_from(len).unwrap_or(u16::MAX));
    }
    Some(header)
}
