//! Network device (section 5.1).

/// Feature: the device finishes checksums of frames that the driver sends.
pub const F_CSUM: u64 = 1 << 0;
/// Feature: the driver takes frames whose checksum is not finished.
pub const F_GUEST_CSUM: u64 = 1 << 1;
/// Feature: the configuration has the device's greatest MTU.
pub const F_MTU: u64 = 1 << 3;
/// Feature: the configuration has the device's address.
pub const F_MAC: u64 = 1 << 5;
/// Feature: the driver takes TCP segments over IPv4 that are larger than the MTU.
pub const F_GUEST_TSO4: u64 = 1 << 7;
/// Feature: the same over IPv6.
pub const F_GUEST_TSO6: u64 = 1 << 8;
/// Feature: the device cuts TCP segments over IPv4.
pub const F_HOST_TSO4: u64 = 1 << 11;
/// Feature: the same over IPv6.
pub const F_HOST_TSO6: u64 = 1 << 12;
/// Feature: a received frame may take several buffers.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// Feature: the configuration has the link's status.
pub const F_STATUS: u64 = 1 << 16;
/// Feature: there is a control queue.
pub const F_CTRL_VQ: u64 = 1 << 17;
/// Feature: there are several pairs of queues.
pub const F_MQ: u64 = 1 << 22;
/// Feature: the driver takes UDP datagrams over IPv4 that are not cut yet.
pub const F_GUEST_USO4: u64 = 1 << 54;
/// Feature: the same over IPv6.
pub const F_GUEST_USO6: u64 = 1 << 55;
/// Feature: the device cuts UDP datagrams.
pub const F_HOST_USO: u64 = 1 << 56;

/// Index of the queue for frames to the driver, `receiveq1`.
pub const RECEIVE: usize = 0;
/// Index of the queue for frames from the driver, `transmitq1`.
pub const TRANSMIT: usize = 1;

/// The most pairs of queues that a device can have (section 5.1.4.1).
pub const MAX_PAIRS: u16 = 0x8000;

/// Index of the control queue (section 5.1.2) of a device whose configuration says `pairs`.
#[must_use]
pub const fn control_queue(features: u64, pairs: u16) -> Option<usize> {
    match (features & F_CTRL_VQ != 0, features & F_MQ != 0) {
        (false, _) => None,
        (true, false) => Some(2),
        (true, true) => Some(2 * pairs as usize),
    }
}

/// Bit of [`Config::status`]: the link is up.
pub const S_LINK_UP: u16 = 1;

/// Length of an Ethernet header, in bytes.
pub const ETHERNET: usize = 14;

/// The longest frame with an offload, in bytes: an IP packet of 65535 bytes, an Ethernet header,
/// and a VLAN tag.
pub const MAX_FRAME: usize = 65535 + ETHERNET + 4;

/// The start of the configuration (section 5.1.4), as far as Chiton has features for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The driver's Ethernet address, with [`F_MAC`].
    pub mac: [u8; 6],
    /// [`S_LINK_UP`] or nothing, with [`F_STATUS`].
    pub status: u16,
    /// The most pairs of queues, with [`F_MQ`].
    pub max_virtqueue_pairs: u16,
    /// The greatest MTU of the driver, in bytes, with [`F_MTU`].
    pub mtu: u16,
}

impl Config {
    /// Size of the part of the configuration described here, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// The bytes of the configuration space.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..6].copy_from_slice(&self.mac);
        bytes[6..8].copy_from_slice(&self.status.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.max_virtqueue_pairs.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.mtu.to_le_bytes());
        bytes
    }

    /// Reads a configuration; `None` if it is cut short.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        Some(Self {
            mac: bytes.get(..6)?.try_into().ok()?,
            status: half(6)?,
            max_virtqueue_pairs: half(8)?,
            mtu: half(10)?,
        })
    }
}

/// Bits of [`Header::flags`] (section 5.1.6).
pub mod flags {
    /// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is not finished.
    pub const NEEDS_CSUM: u8 = 1;
    /// `VIRTIO_NET_HDR_F_DATA_VALID`: the checksum has been looked at, and is right.
    pub const DATA_VALID: u8 = 2;
}

/// Values of [`Header::gso_type`] (section 5.1.6).
pub mod gso {
    /// `VIRTIO_NET_HDR_GSO_NONE`: one packet.
    pub const NONE: u8 = 0;
    /// `VIRTIO_NET_HDR_GSO_TCPV4`: TCP over IPv4.
    pub const TCPV4: u8 = 1;
    /// `VIRTIO_NET_HDR_GSO_TCPV6`: TCP over IPv6.
    pub const TCPV6: u8 = 4;
    /// `VIRTIO_NET_HDR_GSO_UDP_L4`: UDP datagrams.
    pub const UDP_L4: u8 = 5;
    /// `VIRTIO_NET_HDR_GSO_ECN`: a bit beside the others; no feature of Chiton's allows it.
    pub const ECN: u8 = 0x80;
}

/// A command on the control queue (section 5.1.6.5): class, command, what belongs to it; the device
/// answers with a byte.
pub mod control {
    /// Class `VIRTIO_NET_CTRL_MQ`.
    pub const MQ: u8 = 4;
    /// Command `VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET`: use so many pairs, a `le16`.
    pub const MQ_VQ_PAIRS_SET: u8 = 0;
    /// Answer `VIRTIO_NET_OK`.
    pub const OK: u8 = 0;
    /// Answer `VIRTIO_NET_ERR`.
    pub const ERR: u8 = 1;

    /// The command to use so many pairs of queues.
    #[must_use]
    pub const fn set_pairs(pairs: u16) -> [u8; 4] {
        let [low, high] = pairs.to_le_bytes();
        [MQ, MQ_VQ_PAIRS_SET, low, high]
    }
}

/// What comes before each frame: `struct virtio_net_hdr` (section 5.1.6).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Of [`flags`].
    pub flags: u8,
    /// Of [`gso`].
    pub gso_type: u8,
    /// Length of all headers of a frame to be cut, in bytes; a hint.
    pub hdr_len: u16,
    /// The most payload of each packet that a frame is cut into, in bytes.
    pub gso_size: u16,
    /// Where the checksummed part of the frame begins, in bytes.
    pub csum_start: u16,
    /// Where the checksum is, in bytes from there.
    pub csum_offset: u16,
    /// How many buffers a received frame takes; sent frames have zero here.
    pub num_buffers: u16,
}

impl Header {
    /// Size of the header, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// The bytes before a frame.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::SIZE] {
        let [l0, l1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        let [n0, n1] = self.num_buffers.to_le_bytes();
        [self.flags, self.gso_type, l0, l1, g0, g1, s0, s1, o0, o1, n0, n1]
    }

    /// Reads a header.
    #[must_use]
    pub const fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let [flags, gso_type, l0, l1, g0, g1, s0, s1, o0, o1, n0, n1] = *bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([l0, l1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
            num_buffers: u16::from_le_bytes([n0, n1]),
        }
    }
}

const _: () = {
    use core::mem::offset_of;
    assert!(Header::SIZE == 12 && offset_of!(Header, csum_start) == 6 && offset_of!(Header, num_buffers) == 10);
    assert!(Config::SIZE == 12 && offset_of!(Config, status) == 6 && offset_of!(Config, mtu) == 10);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_queue_is_behind_the_queues_that_were_negotiated() {
        assert_eq!(control_queue(F_MQ, 4), None);
        assert_eq!(control_queue(F_CTRL_VQ, 4), Some(2));
        assert_eq!(control_queue(F_CTRL_VQ | F_MQ, 4), Some(8));
        assert_eq!(control::set_pairs(0x0102), [4, 0, 2, 1]);
    }

    #[test]
    fn header_and_configuration_read_back() {
        let header = Header {
            flags: flags::NEEDS_CSUM,
            gso_type: gso::TCPV6,
            hdr_len: 0x0102,
            gso_size: 0x0304,
            csum_start: 0x0506,
            csum_offset: 0x0708,
            num_buffers: 0x090a,
        };
        assert_eq!(
            header.to_bytes(),
            [1, 4, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9],
            "little-endian, in this order"
        );
        assert_eq!(Header::from_bytes(&header.to_bytes()), header);
        let config = Config {
            mac: [2, 0, 0, 0, 0, 9],
            status: S_LINK_UP,
            max_virtqueue_pairs: 0,
            mtu: 1500,
        };
        assert_eq!(Config::from_bytes(&config.to_bytes()), Some(config));
        assert_eq!(Config::from_bytes(&config.to_bytes()[..11]), None);
    }
}
