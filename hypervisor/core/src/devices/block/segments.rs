//! The ranges of a discard or of a fill with zeros (virtio 1.3 section 5.2.6).

use chiton_shared::virtio::block::{RequestType, SECTOR, SEGMENT_SECTORS, SEGMENTS, Segment, status};

use super::request::{FAILED, Refused};

/// Checked segments, and how far they are done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segments {
    list: [Segment; SEGMENTS],
    /// How many there are; none of them is empty.
    count: usize,
    /// Index of the first that is not done.
    next: usize,
}

impl Default for Segments {
    fn default() -> Self {
        Self {
            list: [Segment::default(); SEGMENTS],
            count: 0,
            next: 0,
        }
    }
}

/// A part of a segment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) unmap: bool,
}

impl Segments {
    /// Checks all segments, so that nothing is done if one is wrong. `bytes` holds at most
    /// [`SEGMENTS`] of them.
    pub(super) fn parse(bytes: &[u8], kind: RequestType, sectors: u64) -> Result<Self, Refused> {
        let allowed = if kind == RequestType::WriteZeroes {
            Segment::UNMAP
        } else {
            0
        };
        let mut all = Self::default();
        let (segments, _) = bytes.as_chunks();
        for bytes in segments {
            let segment = Segment::from_bytes(bytes);
            if segment.flags & !allowed != 0 {
                return Err(Refused(status::UNSUPP));
            }
            let end = segment.sector.checked_add(segment.count.into());
            if segment.count > SEGMENT_SECTORS || end.is_none_or(|end| end > sectors) {
                return Err(FAILED);
            }
            if segment.count > 0
                && let Some(to) = all.list.get_mut(all.count)
            {
                *to = segment;
                all.count += 1;
            }
        }
        Ok(all)
    }

    /// How many segments are not done.
    pub(super) const fn left(&self) -> u32 {
        (self.count - self.next) as u32
    }

    /// Length of what is left of the next segment, in bytes.
    pub(super) fn len_of_next(&self) -> u64 {
        let next = self.list[..self.count].get(self.next);
        next.map_or(0, |segment| u64::from(segment.count) * SECTOR)
    }

    /// The next piece of at most `limit` bytes, or one sector; it counts as done.
    pub(super) fn next(&mut self, limit: u64) -> Option<Piece> {
        let segment = self.list[..self.count].get_mut(self.next)?;
        let sectors = u64::from(segment.count).min((limit / SECTOR).max(1));
        let piece = Piece {
            offset: segment.sector * SECTOR,
            len: sectors * SECTOR,
            unmap: segment.flags & Segment::UNMAP != 0,
        };
        segment.sector += sectors;
        segment.count -= sectors as u32;
        if segment.count == 0 {
            self.next += 1;
        }
        Some(piece)
    }
}
