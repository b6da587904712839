//! The receive buffers that a device has taken and not used yet.

use alloc::vec::Vec;

use chiton_shared::memory::GuestMemory;
use chiton_shared::virtio::net::Header;
use chiton_shared::virtio::ring::{Buffer, Chain};

use super::super::DeviceError;
use super::super::buffers::{BATCH, Cursor, Windows};

/// Chains in the order in which they came, at most one more than their [`BATCH`] buffers need.
#[derive(Default)]
pub(super) struct Room {
    chains: Vec<Held>,
    buffers: Vec<Buffer>,
    bytes: usize,
}

struct Held {
    head: u16,
    buffers: usize,
    /// Length of the buffers, in bytes.
    bytes: u32,
}

impl Room {
    /// Whether there is room for `needed` bytes, or for as much as one call can take from `chains`.
    pub(super) fn is_enough(&self, needed: usize, chains: usize) -> bool {
        self.bytes >= needed || self.chains.len() >= chains || self.buffers.len() >= BATCH
    }

    /// Takes a chain's buffers.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoRoom`] if a header does not fit into them.
    pub(super) fn add(&mut self, chain: &Chain) -> Result<(), DeviceError> {
        let bytes = u32::try_from(chain.writable_bytes()).unwrap_or(u32::MAX);
        if (bytes as usize) < Header::SIZE {
            return Err(DeviceError::NoRoom { head: chain.head() });
        }
        let before = self.buffers.len();
        self.buffers.extend(chain.writable().iter().filter(|b| b.len > 0));
        self.chains.push(Held {
            head: chain.head(),
            buffers: self.buffers.len() - before,
            bytes,
        });
        self.bytes = self.bytes.saturating_add(bytes as usize);
        Ok(())
    }

    /// Finds the bytes from `start` up to `end`, as far as there are any.
    pub(super) fn gather<'m>(
        &self,
        start: usize,
        end: usize,
        memory: &'m (dyn GuestMemory + 'm),
        windows: &mut Windows<'m>,
    ) -> Result<(), DeviceError> {
        let mut cursor = Cursor::default();
        cursor.advance(&self.buffers, start);
        cursor.gather(&self.buffers, memory, end - start, windows)
    }

    /// Takes out the chains that the first `bytes` bytes lie in, each with how many of them do.
    pub(super) fn take(&mut self, bytes: usize) -> impl ExactSizeIterator<Item = (u16, u32)> {
        let mut left = bytes;
        let mut count = 0;
        let mut buffers = 0;
        for held in &self.chains {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(held.bytes as usize);
            self.bytes = self.bytes.saturating_sub(held.bytes as usize);
            buffers += held.buffers;
            count += 1;
        }
        self.buffers.drain(..buffers);
        let mut left = bytes;
        self.chains.drain(..count).map(move |held| {
            let written = (held.bytes as usize).min(left);
            left -= written;
            (held.head, written as u32)
        })
    }

    pub(super) fn clear(&mut self) {
        self.chains.clear();
        self.buffers.clear();
        self.bytes = 0;
    }
}
