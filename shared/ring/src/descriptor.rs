//! A descriptor, copied (sections 2.7.5 and 2.8.13).

use super::layout::{DESCRIPTOR, F_WRITE};
use super::{Buffer, Chain, QueueError};
use crate::memory::Window;

/// What both formats have, and the two 16-bit fields whose meaning depends on the format.
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    /// `flags` of a split queue's descriptor, `id` of a packed queue's.
    pub(super) third: u16,
    /// `next` of a split queue's descriptor, `flags` of a packed queue's.
    pub(super) fourth: u16,
}

impl Descriptor {
    /// Reads entry `index` of a table, which may lie anywhere: a table needs no alignment.
    #[inline]
    pub(super) fn read(table: &Window<'_>, index: usize) -> Self {
        let bytes = table.read_array::<DESCRIPTOR>(index * DESCRIPTOR);
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, c0, c1, d0, d1] = bytes;
        Self {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            third: u16::from_le_bytes([c0, c1]),
            fourth: u16::from_le_bytes([d0, d1]),
        }
    }

    /// Writes entry `index` of a table.
    pub(super) fn write(&self, table: &Window<'_>, index: usize) {
        let mut bytes = [0; DESCRIPTOR];
        bytes[0..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.third.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.fourth.to_le_bytes());
        table.write(index * DESCRIPTOR, &bytes);
    }
}

/// Appends a buffer to a chain that may have `limit` of them.
#[inline]
pub(super) fn append(chain: &mut Chain, limit: u16, address: u64, len: u32, flags: u16) -> Result<(), QueueError> {
    if chain.len() >= limit {
        return Err(QueueError::ChainLength);
    }
    let write = flags & F_WRITE != 0;
    if chain.append(Buffer { address, len, write }) {
        Ok(())
    } else {
        Err(QueueError::Order)
    }
}
