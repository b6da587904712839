//! Guest memory for tests: page-aligned, zeroed, from guest-physical address 0 on.
#![allow(dead_code, unreachable_pub, reason = "each user takes what it needs")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::{GuestMemory, Window};

/// Memory of a test's guest.
pub struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it gives access through windows only, which may be used from any thread.
unsafe impl Send for Memory {}
// SAFETY: as for `Send`.
unsafe impl Sync for Memory {}

impl Memory {
    /// Zeroed memory of `len` bytes.
    pub fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len.max(1), 4096).expect("a length a test can have");
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        Self {
            start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)),
            layout,
        }
    }

    /// Memory that holds `bytes` from address 0 on.
    pub fn filled(bytes: &[u8]) -> Self {
        let memory = Self::new(bytes.len());
        // Not through a window: Miri cannot follow atomic accesses of different widths to the same
        // bytes, as the queues will make of theirs.
        // SAFETY: the allocation is as long, and nobody else knows of it yet.
        unsafe {
            memory
                .start
                .as_ptr()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
        memory
    }

    /// All of it.
    pub fn all(&self) -> Window<'_> {
        // SAFETY: the allocation lives as long as `self`, and is reached through windows only.
        unsafe { Window::new(self.start, self.layout.size()) }
    }

    /// The bytes from `address` on.
    pub fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.all().read(address as usize, &mut bytes);
        bytes
    }
}

impl GuestMemory for Memory {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        self.all().part(usize::try_from(address).ok()?, len)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}
