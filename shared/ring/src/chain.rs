//! A descriptor chain, copied out of guest memory and checked.

use super::MAX_SIZE;

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffer {
    /// Guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub len: u32,
    /// Whether the device writes it (otherwise it reads it).
    pub write: bool,
}

impl Buffer {
    /// A buffer the device reads.
    #[must_use]
    pub const fn readable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            write: false,
        }
    }

    /// A buffer the device writes.
    #[must_use]
    pub const fn writable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            write: true,
        }
    }
}

/// A descriptor chain: first the buffers the device reads, then those it writes
/// (section 2.7.4.2).
///
/// It is large (4 KiB); a device keeps one and has it filled again and again.
#[derive(Clone, Debug)]
pub struct Chain {
    head: u16,
    readable: u16,
    len: u16,
    /// Bytes of all buffers together.
    bytes: u64,
    buffers: [Buffer; MAX_SIZE as usize],
}

impl Chain {
    /// An empty chain, to be filled by [`pop`](super::device::Attached::pop).
    #[must_use]
    pub const fn new() -> Self {
        let none = Buffer {
            address: 0,
            len: 0,
            write: false,
        };
        Self {
            head: 0,
            readable: 0,
            len: 0,
            bytes: 0,
            buffers: [none; MAX_SIZE as usize],
        }
    }

    /// The number by which the chain is given back, below the queue's size: index of the first
    /// descriptor in a split queue, a number of the device's own in a packed one.
    #[must_use]
    pub const fn head(&self) -> u16 {
        self.head
    }

    /// The buffers the device reads.
    #[must_use]
    pub fn readable(&self) -> &[Buffer] {
        &self.buffers[..usize::from(self.readable)]
    }

    /// The buffers the device writes.
    #[must_use]
    pub fn writable(&self) -> &[Buffer] {
        &self.buffers[usize::from(self.readable)..usize::from(self.len)]
    }

    /// How many bytes the device may read.
    #[must_use]
    pub fn readable_bytes(&self) -> u64 {
        self.readable().iter().map(|b| u64::from(b.len)).sum()
    }

    /// How many bytes the device may write.
    #[must_use]
    pub fn writable_bytes(&self) -> u64 {
        self.writable().iter().map(|b| u64::from(b.len)).sum()
    }

    pub(super) fn start(&mut self, head: u16) {
        self.head = head;
        self.readable = 0;
        self.len = 0;
        self.bytes = 0;
    }

    /// How many bytes the buffers have together.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn len(&self) -> u16 {
        self.len
    }

    /// Appends a buffer; false if it comes in the wrong order or there is no room.
    #[inline]
    pub(super) fn append(&mut self, buffer: Buffer) -> bool {
        if !buffer.write && self.readable != self.len {
            return false;
        }
        let Some(slot) = self.buffers.get_mut(usize::from(self.len)) else {
            return false;
        };
        *slot = buffer;
        self.len += 1;
        self.bytes += u64::from(buffer.len);
        self.readable += u16::from(!buffer.write);
        true
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}
