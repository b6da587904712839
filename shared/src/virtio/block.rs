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

/// Feature: the configuration has the number of queues, which are all alike.
pub const F_MQ: u64 = 1 << 12;
/// Feature: the device understands [`RequestType::Discard`].
pub const F_DISCARD: u64 = 1 << 13;
/// Feature: the device understands [`RequestType::WriteZeroes`].
pub const F_WRITE_ZEROES: u64 = 1 << 14;

/// The most sectors that a Chiton device takes in one [`Segment`].
pub const SEGMENT_SECTORS: u32 = 1 << 22;
/// The most [`Segment`]s that a Chiton device takes in one request.
pub const SEGMENTS: usize = 32;

/// Index of the first queue, and of the only one without [`F_MQ`].
pub const REQUEST: usize = 0;

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
    /// Physical block, alignment and preferred sizes; unused.
    pub topology: [u32; 2],
    /// Cache mode; unused.
    pub writeback: u16,
    /// How many queues there are, with [`F_MQ`].
    pub num_queues: u16,
    /// The most sectors in a segment to discard, with [`F_DISCARD`].
    pub max_discard_sectors: u32,
    /// The most segments in a request to discard, with [`F_DISCARD`].
    pub max_discard_seg: u32,
    /// What a discard should be aligned to, in sectors, with [`F_DISCARD`].
    pub discard_sector_alignment: u32,
    /// The most sectors in a segment to fill with zeros, with [`F_WRITE_ZEROES`].
    pub max_write_zeroes_sectors: u32,
    /// The most segments in a request to fill with zeros, with [`F_WRITE_ZEROES`].
    pub max_write_zeroes_seg: u32,
    /// 1 if filling with zeros may deallocate, with [`F_WRITE_ZEROES`]; the rest is zero.
    pub write_zeroes_may_unmap: u32,
}

impl Config {
    /// Size of the part of the configuration described here, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// Size of the part that every driver needs, and that the boot page has room for.
    pub const LEAST: usize = 24;

    /// The bytes of the configuration space.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let words = [
            self.size_max,
            self.seg_max,
            self.geometry,
            self.blk_size,
            self.topology[0],
            self.topology[1],
            u32::from(self.writeback) | u32::from(self.num_queues) << 16,
            self.max_discard_sectors,
            self.max_discard_seg,
            self.discard_sector_alignment,
            self.max_write_zeroes_sectors,
            self.max_write_zeroes_seg,
            self.write_zeroes_may_unmap,
        ];
        let mut bytes = [0; Self::SIZE];
        bytes[0..8].copy_from_slice(&self.capacity.to_le_bytes());
        for (to, word) in bytes[8..].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads a configuration: `None` if [`LEAST`](Self::LEAST) bytes are not there; other fields
    /// that are not are zero.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < Self::LEAST {
            return None;
        }
        let word = |at: usize| {
            let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
            u32::from_le_bytes(word.unwrap_or_default())
        };
        Some(Self {
            capacity: u64::from(word(0)) | u64::from(word(4)) << 32,
            size_max: word(8),
            seg_max: word(12),
            geometry: word(16),
            blk_size: word(20),
            topology: [word(24), word(28)],
            writeback: word(32) as u16,
            num_queues: (word(32) >> 16) as u16,
            max_discard_sectors: word(36),
            max_discard_seg: word(40),
            discard_sector_alignment: word(44),
            max_write_zeroes_sectors: word(48),
            max_write_zeroes_seg: word(52),
            write_zeroes_may_unmap: word(56),
        })
    }
}

/// A range of a [`RequestType::Discard`] or [`RequestType::WriteZeroes`], whose data are an array
/// of these (section 5.2.6, `struct virtio_blk_discard_write_zeroes`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// First sector.
    pub sector: u64,
    /// How many.
    pub count: u32,
    /// [`UNMAP`](Self::UNMAP) and nothing else.
    pub flags: u32,
}

impl Segment {
    /// Size of a segment, in bytes.
    pub const SIZE: usize = size_of::<Self>();
    /// Flag: filling with zeros may deallocate.
    pub const UNMAP: u32 = 1;

    /// The segment as the device reads it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..8].copy_from_slice(&self.sector.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }

    /// Reads a segment.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let [sector @ .., c0, c1, c2, c3, f0, f1, f2, f3] = *bytes;
        Self {
            sector: u64::from_le_bytes(sector),
            count: u32::from_le_bytes([c0, c1, c2, c3]),
            flags: u32::from_le_bytes([f0, f1, f2, f3]),
        }
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
    /// `VIRTIO_BLK_T_DISCARD`: the [`Segment`]s' contents are not needed any more.
    Discard = 11,
    /// `VIRTIO_BLK_T_WRITE_ZEROES`: fill the [`Segment`]s with zeros.
    WriteZeroes = 13,
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
            11 => Self::Discard,
            13 => Self::WriteZeroes,
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
    assert!(
        offset_of!(Config, num_queues) == 34
            && offset_of!(Config, max_discard_sectors) == 36
            && offset_of!(Config, write_zeroes_may_unmap) == 56
    );
    assert!(Segment::SIZE == 16);
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
            num_queues: 0x0203,
            max_write_zeroes_sectors: 7,
            write_zeroes_may_unmap: 1,
            ..Config::default()
        };
        let bytes = config.to_bytes();
        assert_eq!(Config::from_bytes(&bytes), Some(config));
        assert_eq!((bytes[34], bytes[35], bytes[48], bytes[56]), (3, 2, 7, 1));
        assert_eq!(Config::from_bytes(&bytes[..23]), None);
        let short = Config::from_bytes(&bytes[..32]).map(|config| (config.capacity, config.max_write_zeroes_sectors));
        assert_eq!(short, Some((1 << 40, 0)));
        let segment = Segment {
            sector: 0x0102_0304_0506_0708,
            count: 9,
            flags: Segment::UNMAP,
        };
        assert_eq!(Segment::from_bytes(&segment.to_bytes()), segment);
    }
}
