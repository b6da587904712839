//! Guest memory from address 0 on, for tests.

use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use chiton_shared::map;
use chiton_shared::memory::{GuestMemory, Window};

/// Zeroed memory, held by a raw pointer so that no reference to any of it ever exists.
pub(crate) struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    pub(crate) fn new(bytes: u64) -> Self {
        let layout = Layout::from_size_align(bytes as usize, map::PAGE as usize).expect("a size");
        assert_ne!(bytes, 0);
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        Self {
            start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)),
            layout,
        }
    }

    pub(crate) fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.window(address, len).expect("in memory").read(0, &mut bytes);
        bytes
    }

    pub(crate) fn u64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.bytes(address, 8).try_into().expect("8 bytes"))
    }

    pub(crate) fn put(&self, address: u64, value: u64) {
        self.window(address, 8)
            .expect("in memory")
            .write(0, &value.to_le_bytes());
    }
}

impl GuestMemory for Memory {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        let start = usize::try_from(address).ok()?;
        if start.checked_add(len)? > self.layout.size() {
            return None;
        }
        // SAFETY: in bounds (checked), allocated for as long as the borrow, and nobody holds
        // references to it.
        Some(unsafe { Window::new(self.start.add(start), len) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`, and no window outlives the borrow.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
