//! From the buffers of a chain to windows of memory, a bounded number at a time.

use core::ptr::NonNull;

use chiton_shared::map;
use chiton_shared::memory::{GuestMemory, Window};
use chiton_shared::virtio::ring::Buffer;

use super::DeviceError;

/// How many windows one call of a backend gets at most.
pub(crate) const BATCH: usize = 64;

/// A list of windows that lives on the stack and is filled again and again.
pub(crate) struct Windows<'m> {
    list: [Window<'m>; BATCH],
    len: usize,
    bytes: usize,
}

impl<'m> Windows<'m> {
    /// An empty list.
    pub(crate) fn new() -> Self {
        // SAFETY: a window of no bytes allows no access.
        let none = unsafe { Window::new(NonNull::dangling(), 0) };
        Self {
            list: [none; BATCH],
            len: 0,
            bytes: 0,
        }
    }

    /// The windows, none of them empty.
    pub(crate) fn as_slice(&self) -> &[Window<'m>] {
        &self.list[..self.len]
    }

    /// Length of all of them, in bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies the windows' bytes out, as many as `to` has room for, and returns how many.
    pub(crate) fn read(&self, to: &mut [u8]) -> usize {
        let mut done = 0;
        for window in self.as_slice() {
            let len = window.len().min(to.len() - done);
            window.read(0, &mut to[done..done + len]);
            done += len;
        }
        done
    }

    /// Copies bytes into the windows, as many as fit, and returns how many.
    pub(crate) fn write(&self, from: &[u8]) -> usize {
        let mut done = 0;
        for window in self.as_slice() {
            let len = window.len().min(from.len() - done);
            window.write(0, &from[done..done + len]);
            done += len;
        }
        done
    }
}

/// A place in a list of buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    index: usize,
    offset: u32,
}

impl Cursor {
    /// Fills `windows` with what follows this place: at most `limit` bytes in at most [`BATCH`]
    /// windows. The cursor stays. An empty list means that no bytes follow.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Buffer`] if a buffer needed for that is not usable.
    pub(crate) fn gather<'m>(
        &self,
        buffers: &[Buffer],
        memory: &'m (dyn GuestMemory + 'm),
        limit: usize,
        windows: &mut Windows<'m>,
    ) -> Result<(), DeviceError> {
        (windows.len, windows.bytes) = (0, 0);
        let mut offset = self.offset;
        for buffer in buffers.get(self.index..).unwrap_or_default() {
            let room = limit - windows.bytes;
            if room == 0 || windows.len == BATCH {
                break;
            }
            let len = ((buffer.len - offset) as usize).min(room);
            if len > 0 {
                windows.list[windows.len] = window(buffer, offset, len, memory)?;
                windows.len += 1;
                windows.bytes += len;
            }
            offset = 0;
        }
        Ok(())
    }

    /// Copies what follows this place, as much as `to` has room for, and moves behind it; returns how
    /// much that is.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Buffer`] if a buffer needed for that is not usable.
    pub(crate) fn read(
        &mut self,
        buffers: &[Buffer],
        memory: &dyn GuestMemory,
        to: &mut [u8],
    ) -> Result<usize, DeviceError> {
        let mut windows = Windows::new();
        let mut len = 0;
        while len < to.len() {
            self.gather(buffers, memory, to.len() - len, &mut windows)?;
            if windows.bytes() == 0 {
                break;
            }
            windows.read(&mut to[len..]);
            self.advance(buffers, windows.bytes());
            len += windows.bytes();
        }
        Ok(len)
    }

    /// Whether no bytes of `buffers` follow, once the cursor was moved.
    pub(crate) const fn is_at_end(&self, buffers: &[Buffer]) -> bool {
        self.index >= buffers.len()
    }

    /// How many bytes of `buffers` are before this place.
    pub(crate) fn done(&self, buffers: &[Buffer]) -> u64 {
        let before = buffers.iter().take(self.index).map(|buffer| u64::from(buffer.len));
        before.sum::<u64>() + u64::from(self.offset)
    }

    /// Moves on by `bytes`, or to the end.
    pub(crate) fn advance(&mut self, buffers: &[Buffer], mut bytes: usize) {
        while let Some(buffer) = buffers.get(self.index) {
            let left = (buffer.len - self.offset) as usize;
            if bytes < left {
                self.offset += bytes as u32;
                return;
            }
            bytes -= left;
            self.index += 1;
            self.offset = 0;
        }
    }
}

/// The part of a buffer from `offset` on, `len` bytes long.
pub(crate) fn window<'m>(
    buffer: &Buffer,
    offset: u32,
    len: usize,
    memory: &'m (dyn GuestMemory + 'm),
) -> Result<Window<'m>, DeviceError> {
    let unusable = DeviceError::Buffer {
        address: buffer.address,
        len: buffer.len,
    };
    let address = buffer.address.checked_add(u64::from(offset)).ok_or(unusable)?;
    if buffer.write && !is_writable(address) {
        return Err(unusable);
    }
    memory.window(address, len).ok_or(unusable)
}

/// Whether a device may write at this address. What the host built below the queues (tables,
/// trap stubs) is out of a ring-3 guest's reach, and so it is out of its devices' reach too.
pub(crate) const fn is_writable(address: u64) -> bool {
    address >= map::QUEUES
}
