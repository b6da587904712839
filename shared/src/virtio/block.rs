//! Block device (section 5.2).

/// Size of a sector, the unit of every address and length here, in bytes.
pub const SECTOR: u64 = 512;

/// Feature: the configuration has the greatest number of segments a request may have.
pub const F_SEG_MAX: u64 = 1 << 2;
/// Feature: the device is read-only.
pub const F_RO: u64 = 1 << 5;
/// Feature: the configuration has the block size.
pub const F_BLK_SIZE: u64 = 1 << 6;
/// Feature: the device understands [`RequestType::Flush`].
pub const F_FLUSH: u64 = 1 << 9;

/// Index of the only queue without `VIRTIO_BLK_F_MQ`.
pub const REQUEST: usize = 0;
/// How many queues there are.
pub const QUEUES: usize = 1;

/// The start of the configuration (section 5.2.4), as far as Chiton has features for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Size of the disk, in sectors.
    pub capacity: u64,
    /// Greatest segment; unused.
    pub size_max: u32,
    /// Greatest number of data segments in a request, with [`F_SEG_MAX`].
    pub seg_max: u32,
    /// Cylinders, heads and sectors; unused.
    pub geometry: u32,
    /// Block size in bytes, with [`F_BLK_SIZE`].
    pub blk_size: u32,
}

impl Config {
    /// Size of the part of the configuration described here, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// The bytes of the configuration space.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..8].copy_from_slice(&self.capacity.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.size_max.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.seg_max.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.geometry.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.blk_size.to_le_bytes());
        bytes
    }

    /// Reads a configuration; `None` if it is cut short.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some(Self {
            capacity: u64::from(word(0)?) | u64::from(word(4)?) << 32,
            size_max: word(8)?,
            seg_max: word(12)?,
            geometry: word(16)?,
            blk_size: word(20)?,
        })
    }
}

/// What a request asks for (section 5.2.6).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestType {
    /// `VIRTIO_BLK_T_IN`: read.
    Read = 0,
    /// `VIRTIO_BLK_T_OUT`: write.
    Write = 1,
    /// `VIRTIO_BLK_T_FLUSH`: make what was written durable.
    Flush = 4,
    /// `VIRTIO_BLK_T_GET_ID`: the device's name, up to [`ID_BYTES`].
    GetId = 8,
}

impl RequestType {
    /// The type with this number, if Chiton has it.
    #[must_use]
    pub const fn from_u32(value: u32) -> Option<Self> {
        Some(match value {
            0 => Self::Read,
            1 => Self::Write,
            4 => Self::Flush,
            8 => Self::GetId,
            _ => return None,
        })
    }
}

/// Length of the answer to [`RequestType::GetId`], in bytes.
pub const ID_BYTES: usize = 20;

/// The first 16 bytes of a request, which the device reads (section 5.2.6). Data follow; the
/// last byte, which the device writes, is the status.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestHeader {
    /// A [`RequestType`].
    pub kind: u32,
    /// Reserved, zero.
    pub reserved: u32,
    /// First sector.
    pub sector: u64,
}

impl RequestHeader {
    /// Size of the header, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// The header as the device reads it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&self.kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sector.to_le_bytes());
        bytes
    }

    /// Reads a header.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let [a, b, c, d, _, _, _, _, sector @ ..] = *bytes;
        Self {
            kind: u32::from_le_bytes([a, b, c, d]),
            reserved: 0,
            sector: u64::from_le_bytes(sector),
        }
    }
}

/// The last byte of a request (section 5.2.6).
pub mod status {
    /// `VIRTIO_BLK_S_OK`: done.
    pub const OK: u8 = 0;
    /// `VIRTIO_BLK_S_IOERR`: failed.
    pub const IOERR: u8 = 1;
    /// `VIRTIO_BLK_S_UNSUPP`: no such request.
    pub const UNSUPP: u8 = 2;
}

const _: () = {
    use core::mem::offset_of;
    assert!(RequestHeader::SIZE == 16 && offset_of!(RequestHeader, sector) == 8);
    assert!(offset_of!(Config, seg_max) == 12 && offset_of!(Config, blk_size) == 20);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_configuration_read_back() {
        let header = RequestHeader {
            kind: 4,
            reserved: 0,
            sector: 0x0102_0304_0506_0708,
        };
        assert_eq!(RequestHeader::from_bytes(&header.to_bytes()), header);
        let config = Config {
            capacity: 1 << 40,
            size_max: 0,
            seg_max: 254,
            geometry: 0,
            blk_size: 512,
        };
        assert_eq!(Config::from_bytes(&config.to_bytes()), Some(config));
        assert_eq!(Config::from_bytes(&config.to_bytes()[..23]), None);
    }
}
