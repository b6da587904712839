//! The heap: all memory that image and stack leave.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use chiton_shared::map;
use chiton_shared::virtio::block::SECTOR;
use spin::Mutex;

/// The allocator that [`entry!`](crate::entry!) makes the program's: a free list under a spin
/// lock.
pub struct Heap(Mutex<linked_list_allocator::Heap>);

static HEAP: Mutex<Option<&'static Heap>> = Mutex::new(None);
static RAN_OUT: AtomicBool = AtomicBool::new(false);

impl Heap {
    /// A heap without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(linked_list_allocator::Heap::empty()))
    }

    /// Gives the heap its memory.
    ///
    /// # Safety
    ///
    /// `start` must point to `size` bytes that nobody else uses, for ever, and this may be called
    /// once.
    pub(crate) unsafe fn init(&'static self, start: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.0.lock().init(start, size) };
        *HEAP.lock() = Some(self);
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

/// What a layout is taken for: whole sectors are aligned to a sector, so that a disk opened with
/// `direct` can move them past the host's page cache, and whole pages to a page, of which the
/// medium then takes fewer pieces.
fn aligned(layout: Layout) -> Layout {
    let wanted = [map::PAGE as usize, SECTOR as usize];
    let align = wanted.into_iter().find(|unit| layout.size().is_multiple_of(*unit));
    align.and_then(|align| layout.align_to(align).ok()).unwrap_or(layout)
}

// SAFETY: the free list hands out each byte once, aligned as asked, and takes it back from
// `dealloc` only; the lock keeps callers apart.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        loop {
            // The lock is held for this call alone.
            let allocated = self.0.lock().allocate_first_fit(aligned(layout));
            if let Ok(block) = allocated {
                return block.as_ptr();
            }
            if !crate::balloon::rescue() {
                RAN_OUT.store(true, Ordering::Relaxed);
                return ptr::null_mut();
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = ptr::NonNull::new(block) {
            // SAFETY: the block was handed out by `alloc` with this layout, aligned in the same way.
            unsafe { self.0.lock().deallocate(block, aligned(layout)) };
        }
    }
}

/// A free piece of the heap, if there is one: nothing is taken back from the balloon for it.
pub(crate) fn try_allocate(layout: Layout) -> Option<ptr::NonNull<u8>> {
    let heap = (*HEAP.lock())?;
    heap.0.lock().allocate_first_fit(aligned(layout)).ok()
}

/// Gives a piece back.
///
/// # Safety
///
/// It is of [`try_allocate`] with this layout, and nobody uses it any more.
pub(crate) unsafe fn give_back(block: ptr::NonNull<u8>, layout: Layout) {
    if let Some(heap) = *HEAP.lock() {
        // SAFETY: the caller's promise; layouts are aligned in the same way.
        unsafe { heap.0.lock().deallocate(block, aligned(layout)) };
    }
}

/// How full the heap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Size of the heap, in bytes.
    pub size: usize,
    /// Bytes in use, with what alignment costs.
    pub used: usize,
}

impl Usage {
    /// Bytes not in use; not necessarily in one piece.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.size - self.used
    }
}

/// How full the heap is; `None` before it has memory, and while somebody allocates.
#[must_use]
pub fn usage() -> Option<Usage> {
    let heap = (*HEAP.try_lock()?)?;
    let heap = heap.0.try_lock()?;
    Some(Usage {
        size: heap.size(),
        used: heap.used(),
    })
}

/// Whether an allocation ever failed.
pub(crate) fn ran_out() -> bool {
    RAN_OUT.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heap_gives_until_it_has_nothing_left_and_takes_back() {
        static HEAP: Heap = Heap::new();
        let memory: &'static mut [u64] = Box::leak(vec![0; 1024].into_boxed_slice());
        // SAFETY: leaked memory of this size, given away once.
        unsafe { HEAP.init(memory.as_mut_ptr().cast(), 8192) };
        // Two of them do not fit, wherever the memory begins.
        let layout = Layout::from_size_align(4160, 64).unwrap();
        // SAFETY: the layout has a size.
        let block = unsafe { HEAP.alloc(layout) };
        assert!(!block.is_null() && block.is_aligned());
        assert!(usage().is_some_and(|usage| usage.used >= 4160 && usage.size == 8192));
        // SAFETY: as above.
        assert!(unsafe { HEAP.alloc(layout) }.is_null() && ran_out());
        // SAFETY: allocated above with this layout.
        unsafe { HEAP.dealloc(block, layout) };
        assert!(usage().is_some_and(|usage| usage.used == 0));
        let sector = Layout::from_size_align(1024, 1).unwrap();
        // SAFETY: the layout has a size.
        let block = unsafe { HEAP.alloc(sector) };
        assert!(!block.is_null() && block.addr().is_multiple_of(512));
        // SAFETY: allocated above with this layout.
        unsafe { HEAP.dealloc(block, sector) };
    }
}
