//! The memory that goes with each request: a table of descriptors, header and status.

use alloc::alloc::{alloc_zeroed, handle_alloc_error};
use core::alloc::Layout;
use core::ptr::NonNull;

use chiton_shared::memory::Window;
use chiton_shared::virtio::block::RequestHeader;
use chiton_shared::virtio::ring::Buffer;
use chiton_shared::virtio::ring::layout::DESCRIPTOR;

/// Buffers of a request at most: header, data, status.
pub(super) const BUFFERS: usize = 3;

/// Offset of the header in a slot, behind the table.
const HEADER: usize = BUFFERS * DESCRIPTOR;
/// Offset of the status.
const STATUS: usize = HEADER + RequestHeader::SIZE;
/// Size of a slot, in bytes.
const SLOT: usize = 128;

const _: () = assert!(STATUS < SLOT && SLOT.is_multiple_of(DESCRIPTOR));

/// A number of slots, each for one request in flight.
#[derive(Clone, Copy, Debug)]
pub struct Slots<'m>(Window<'m>);

impl<'m> Slots<'m> {
    /// So many slots, which are never freed.
    #[must_use]
    pub fn leak(count: usize) -> Slots<'static> {
        let size = count.max(1) * SLOT;
        let Ok(layout) = Layout::from_size_align(size, SLOT) else {
            unreachable!("{count} slots overflow")
        };
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: allocated just now with this size, never freed, and reached through this window
        // only.
        Slots(unsafe { Window::new(start, size) })
    }

    /// The slots in this memory, of which the device reads and writes at its own address.
    #[must_use]
    pub const fn new(memory: Window<'m>) -> Self {
        Self(memory)
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.0.len() / SLOT
    }

    /// Writes the header and a status that no device writes; returns the buffers for both.
    pub(super) fn begin(&self, slot: usize, header: RequestHeader) -> (Buffer, Buffer) {
        self.0.write(slot * SLOT + HEADER, &header.to_bytes());
        self.0.write(slot * SLOT + STATUS, &[u8::MAX]);
        let header = Buffer::readable(self.address(slot, HEADER), RequestHeader::SIZE as u32);
        (header, Buffer::writable(self.address(slot, STATUS), 1))
    }

    /// The slot's table of descriptors, and its address.
    pub(super) fn table(&self, slot: usize) -> (Window<'m>, u64) {
        let table = self.0.part(slot * SLOT, HEADER).expect("a slot that exists");
        (table, self.address(slot, 0))
    }

    /// The status the device wrote.
    pub(super) fn status(&self, slot: usize) -> u8 {
        let mut status = [0];
        self.0.read(slot * SLOT + STATUS, &mut status);
        status[0]
    }

    fn address(&self, slot: usize, offset: usize) -> u64 {
        (self.0.as_ptr().expose_provenance() + slot * SLOT + offset) as u64
    }
}
