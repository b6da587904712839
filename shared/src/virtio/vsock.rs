//! Socket device (section 5.10): streams of bytes between guest and host, without a network.

/// Feature: streams.
pub const F_STREAM: u64 = 1 << 0;
/// Feature: sequenced packets. Not offered yet.
pub const F_SEQPACKET: u64 = 1 << 1;

/// Index of the queue that brings packets to the guest.
pub const RECEIVE: usize = 0;
/// Index of the queue that takes the guest's packets.
pub const TRANSMIT: usize = 1;
/// Index of the queue that brings events.
pub const EVENT: usize = 2;
/// How many queues there are.
pub const QUEUES: usize = 3;

/// The host's context ID (section 5.10.4).
pub const HOST_CID: u64 = 2;
/// The least context ID a guest may have: those below have a meaning of their own.
pub const MIN_GUEST_CID: u64 = 3;
/// The greatest context ID a guest may have; the one above means "any".
pub const MAX_GUEST_CID: u64 = 0xffff_fffe;

/// [`Header::kind`] of a stream, `VIRTIO_VSOCK_TYPE_STREAM`.
pub const TYPE_STREAM: u16 = 1;

/// What a packet is for (section 5.10.6).
pub mod op {
    /// Not valid.
    pub const INVALID: u16 = 0;
    /// Asks for a connection.
    pub const REQUEST: u16 = 1;
    /// Accepts it.
    pub const RESPONSE: u16 = 2;
    /// Refuses a connection, or ends it at once.
    pub const RST: u16 = 3;
    /// Will not receive, or not send, any more: see [`shutdown`](super::shutdown).
    pub const SHUTDOWN: u16 = 4;
    /// Carries bytes.
    pub const RW: u16 = 5;
    /// Tells how much room there is.
    pub const CREDIT_UPDATE: u16 = 6;
    /// Asks how much room there is.
    pub const CREDIT_REQUEST: u16 = 7;
}

/// The flags of [`op::SHUTDOWN`] (section 5.10.6.5).
pub mod shutdown {
    /// Who sends this will receive no more.
    pub const RECEIVE: u32 = 1;
    /// Who sends this will send no more.
    pub const SEND: u32 = 2;
    /// Both.
    pub const BOTH: u32 = RECEIVE | SEND;
}

/// The configuration (section 5.10.4).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The guest's context ID; the upper 32 bits are zero.
    pub guest_cid: u64,
}

impl Config {
    /// Size of the configuration, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// The bytes of the configuration space.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::SIZE] {
        self.guest_cid.to_le_bytes()
    }

    /// Reads a configuration; `None` if it is cut short.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..Self::SIZE)?.try_into().ok()?;
        Some(Self {
            guest_cid: u64::from_le_bytes(bytes),
        })
    }
}

/// An event (section 5.10.6.7).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub id: u32,
}

/// [`Event::id`]: all connections are gone, and the context ID may have changed.
pub const EVENT_TRANSPORT_RESET: u32 = 0;

/// What every packet begins with (section 5.10.6): `struct virtio_vsock_hdr`, in native order of
/// the processor here, in little-endian order and without gaps in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Context ID of the sender.
    pub src_cid: u64,
    /// Context ID of the receiver.
    pub dst_cid: u64,
    /// Port of the sender.
    pub src_port: u32,
    /// Port of the receiver.
    pub dst_port: u32,
    /// How many bytes follow the header.
    pub len: u32,
    /// Kind of socket: [`TYPE_STREAM`] (`type` in the specification).
    pub kind: u16,
    /// One of [`op`].
    pub op: u16,
    /// For [`op::SHUTDOWN`], of [`shutdown`].
    pub flags: u32,
    /// How many bytes the sender has room for in all.
    pub buf_alloc: u32,
    /// How many bytes of this connection the sender has passed on so far, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// Size of a header in memory, in bytes.
    pub const SIZE: usize = 44;

    /// The header as it is in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// Reads a header; any bytes are one.
    #[must_use]
    pub const fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        const fn word(b: &[u8; Header::SIZE], at: usize) -> u32 {
            u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
        }
        const fn long(b: &[u8; Header::SIZE], at: usize) -> u64 {
            word(b, at) as u64 | (word(b, at + 4) as u64) << 32
        }
        Self {
            src_cid: long(bytes, 0),
            dst_cid: long(bytes, 8),
            src_port: word(bytes, 16),
            dst_port: word(bytes, 20),
            len: word(bytes, 24),
            kind: u16::from_le_bytes([bytes[28], bytes[29]]),
            op: u16::from_le_bytes([bytes[30], bytes[31]]),
            flags: word(bytes, 32),
            buf_alloc: word(bytes, 36),
            fwd_cnt: word(bytes, 40),
        }
    }
}

const _: () = {
    assert!(size_of::<Config>() == 8);
    assert!(size_of::<Event>() == 4);
    // Every field, once, without gaps.
    assert!(Header::SIZE == 2 * 8 + 3 * 4 + 2 * 2 + 3 * 4);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_where_the_specification_has_it() {
        let bytes: [u8; Header::SIZE] = core::array::from_fn(|i| i as u8 + 1);
        let header = Header::from_bytes(&bytes);
        assert_eq!(header.src_cid, 0x0807_0605_0403_0201);
        assert_eq!(header.dst_cid, 0x100f_0e0d_0c0b_0a09);
        assert_eq!((header.src_port, header.dst_port), (0x1413_1211, 0x1817_1615));
        assert_eq!(header.len, 0x1c1b_1a19);
        assert_eq!((header.kind, header.op), (0x1e1d, 0x201f));
        assert_eq!(header.flags, 0x2423_2221);
        assert_eq!((header.buf_alloc, header.fwd_cnt), (0x2827_2625, 0x2c2b_2a29));
        assert_eq!(header.to_bytes(), bytes);
    }

    #[test]
    fn a_configuration_there_and_back() {
        let config = Config { guest_cid: 3 };
        assert_eq!(Config::from_bytes(&config.to_bytes()), Some(config));
        assert_eq!(Config::from_bytes(&[0; 7]), None);
    }
}
