//! A request, found in the buffers of a chain (virtio 1.3 section 5.2.6).

use chiton_shared::memory::GuestMemory;
use chiton_shared::virtio::block::{ID_BYTES, RequestHeader, RequestType, SECTOR, SEGMENTS, Segment, status};
use chiton_shared::virtio::ring::{Buffer, Chain};

use super::super::DeviceError;
use super::super::buffers::{Cursor, Windows, window};
use super::segments::Segments;
use super::{Disk, DiskError};

/// A request that ends with this status, which is not OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) u8);

/// A failed request, as the driver sees it.
pub(super) const FAILED: Refused = Refused(status::IOERR);

impl From<DiskError> for Refused {
    fn from(_: DiskError) -> Self {
        FAILED
    }
}

impl From<DeviceError> for Refused {
    /// Data outside memory leave a place for an answer, unlike a status outside memory.
    fn from(_: DeviceError) -> Self {
        FAILED
    }
}

/// A checked request, and how far it is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) kind: RequestType,
    /// Where on the disk the rest begins, in bytes.
    pub(super) offset: u64,
    /// How many bytes are left to move, or segments to do.
    pub(super) left: u32,
    /// Where in the buffers the rest begins.
    pub(super) cursor: Cursor,
    /// How many bytes of the writable buffers the device has written, from the first on.
    pub(super) filled: u32,
}

impl Request {
    /// Reads and checks the request in `chain`.
    pub(super) fn parse<'m>(
        chain: &Chain,
        disk: &impl Disk,
        memory: &'m (dyn GuestMemory + 'm),
        windows: &mut Windows<'m>,
        segments: &mut Segments,
    ) -> Result<Self, Refused> {
        let mut cursor = Cursor::default();
        let mut header = [0; RequestHeader::SIZE];
        read(chain, &mut cursor, memory, windows, &mut header)?;
        let RequestHeader { kind, sector, .. } = RequestHeader::from_bytes(&header);
        let kind = RequestType::from_u32(kind).ok_or(Refused(status::UNSUPP))?;
        let len = match kind {
            RequestType::Read => chain.writable_bytes() - 1,
            RequestType::Write => chain.readable_bytes() - header.len() as u64,
            RequestType::GetId => (chain.writable_bytes() - 1).min(ID_BYTES as u64),
            RequestType::Flush => 0,
            RequestType::Discard | RequestType::WriteZeroes => {
                // Whatever it says, a read-only disk does not do it (section 5.2.6.2).
                if disk.is_read_only() {
                    return Err(FAILED);
                }
                let len = chain.readable_bytes() - header.len() as u64;
                let count = len / Segment::SIZE as u64;
                if count == 0 || count > SEGMENTS as u64 || !len.is_multiple_of(Segment::SIZE as u64) {
                    return Err(FAILED);
                }
                let mut bytes = [0; SEGMENTS * Segment::SIZE];
                let bytes = &mut bytes[..len as usize];
                read(chain, &mut cursor, memory, windows, bytes)?;
                *segments = Segments::parse(bytes, kind, disk.sectors())?;
                u64::from(segments.left())
            }
        };
        let mut offset = 0;
        if matches!(kind, RequestType::Read | RequestType::Write) {
            let inside = len.is_multiple_of(SECTOR)
                && sector
                    .checked_add(len / SECTOR)
                    .is_some_and(|end| end <= disk.sectors());
            if !inside || (kind == RequestType::Write && disk.is_read_only()) {
                return Err(FAILED);
            }
            offset = sector.checked_mul(SECTOR).ok_or(FAILED)?;
        }
        if kind != RequestType::Write {
            cursor = Cursor::default();
        }
        // No chain may have more than 2^32 bytes (section 2.7.5.1).
        let left = u32::try_from(len).map_err(|_| FAILED)?;
        Ok(Self {
            kind,
            offset,
            left,
            cursor,
            filled: 0,
        })
    }

    /// Notes that `bytes` more of `chain` are done.
    pub(super) fn moved(&mut self, chain: &Chain, bytes: usize) {
        if self.kind == RequestType::Write {
            self.cursor.advance(chain.readable(), bytes);
        } else {
            self.cursor.advance(chain.writable(), bytes);
            self.filled += bytes as u32;
        }
        self.offset += bytes as u64;
        self.left -= bytes as u32;
    }
}

/// Copies the chain's next readable bytes out.
fn read<'m>(
    chain: &Chain,
    cursor: &mut Cursor,
    memory: &'m (dyn GuestMemory + 'm),
    windows: &mut Windows<'m>,
    to: &mut [u8],
) -> Result<(), Refused> {
    let mut done = 0;
    while done < to.len() {
        cursor.gather(chain.readable(), memory, to.len() - done, windows)?;
        if windows.bytes() == 0 {
            return Err(FAILED);
        }
        windows.read(&mut to[done..]);
        cursor.advance(chain.readable(), windows.bytes());
        done += windows.bytes();
    }
    Ok(())
}

/// The byte for the status: the last one that the device may write.
///
/// # Errors
///
/// [`DeviceError`] if there is none, or it is not in memory.
pub(super) fn status_buffer<'m>(chain: &Chain, memory: &'m (dyn GuestMemory + 'm)) -> Result<Buffer, DeviceError> {
    let none = DeviceError::NoRoom { head: chain.head() };
    let last = chain.writable().iter().rev().find(|b| b.len > 0).ok_or(none)?;
    window(last, last.len - 1, 1, memory)?;
    Ok(Buffer::writable(last.address + u64::from(last.len - 1), 1))
}
