//! How a record is written down.

use chiton_shared::virtio::block::SECTOR;

/// What every record begins with.
const MAGIC: [u8; 8] = *b"CHITJRN1";

/// The start of a record; its data follow, then zeros up to the end of the sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Number of the record, from 0 on.
    pub(super) number: u64,
    /// Length of the data, in bytes.
    pub(super) len: u32,
    /// CRC-32 of the checksum of the record before (0 for the first), of the fields above and of
    /// the data.
    pub(super) checksum: u32,
}

impl Header {
    /// Size of the header, in bytes.
    pub(super) const SIZE: usize = 24;

    /// The header for these data.
    pub(super) fn new(number: u64, data: &[u8], chain: u32) -> Self {
        let len = data.len() as u32;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&chain.to_le_bytes());
        crc.update(&number.to_le_bytes());
        crc.update(&len.to_le_bytes());
        crc.update(data);
        Self {
            number,
            len,
            checksum: crc.finalize(),
        }
    }

    /// The header as it is on the disk.
    pub(super) fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.len.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    /// The header at the start of a sector, if there is one.
    pub(super) fn parse(sector: &[u8; SECTOR as usize]) -> Option<Self> {
        let (head, _) = sector.split_first_chunk::<{ Self::SIZE }>()?;
        let [magic @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *head;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        (magic == MAGIC).then(|| Self {
            number: u64::from(word(8)) | u64::from(word(12)) << 32,
            len: word(16),
            checksum: word(20),
        })
    }

    /// How many sectors a record with so many bytes of data takes.
    pub(super) const fn sectors(len: usize) -> usize {
        (Self::SIZE + len).div_ceil(SECTOR as usize)
    }
}
