//! Where the first allocations of a process go: one behind the other.
//!
//! A general allocator keeps books, which pays off for blocks that are used again. During a start few
//! are, so here a block costs an addition. Most that are freed are the last that was given away, and come
//! back by a subtraction. Others are not used again; that is bounded, because once the arena is full
//! everything comes from the system's allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A command with many options takes 200 KiB.
const SIZE: usize = 256 << 10;

/// A start of a small guest takes as much.
#[cfg(own_entry)]
pub(crate) const USED: usize = 112 << 10;

/// The allocator: `N` bytes, then the system's.
#[repr(C, align(4096))]
pub(crate) struct Arena<const N: usize = SIZE> {
    bytes: UnsafeCell<[u8; N]>,
    /// How many bytes have been given away.
    used: AtomicUsize,
    /// How far those reached that came back: beyond that, what is given away is still zero.
    touched: AtomicUsize,
}

// SAFETY: a byte belongs to the one block that took it from `used`, which is atomic; the arena itself
// never reads or writes one.
unsafe impl<const N: usize> Sync for Arena<N> {}

impl<const N: usize> Arena<N> {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: UnsafeCell::new([0; N]),
            used: AtomicUsize::new(0),
            touched: AtomicUsize::new(0),
        }
    }

    /// Where the next block begins, or the end.
    pub(crate) fn next(&self) -> *const u8 {
        let used = self.used.load(Ordering::Relaxed);
        self.bytes.get().cast::<u8>().wrapping_add(used)
    }

    /// Takes a block, if there is room for it.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let base = self.bytes.get().cast::<u8>();
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let start = (base.addr() + used).checked_next_multiple_of(layout.align())? - base.addr();
            let end = start.checked_add(layout.size()).filter(|end| *end <= N)?;
            match self
                .used
                .compare_exchange_weak(used, end, Ordering::Acquire, Ordering::Relaxed)
            {
                // SAFETY: `start` is at most `end`, which is at most `N`.
                Ok(_) => return Some(unsafe { base.add(start) }),
                Err(now) => used = now,
            }
        }
    }

    /// Takes the end of a block back, from `keep` of its `size` bytes on, if it is the last block.
    fn give_back(&self, block: *mut u8, size: usize, keep: usize) {
        let start = block.addr() - self.bytes.get().addr();
        let end = start + size;
        // Whoever gets these bytes next has to know first that they are no longer zero.
        self.touched.fetch_max(end, Ordering::Relaxed);
        // If others are behind it, it stays.
        let _ = self
            .used
            .compare_exchange(end, start + keep, Ordering::Release, Ordering::Relaxed);
    }

    fn holds(&self, block: *mut u8) -> bool {
        let base = self.bytes.get().addr();
        (base..base + N).contains(&block.addr())
    }
}

// SAFETY: blocks of the arena are disjoint, aligned, and stay what they are; all others are the
// system allocator's, which gets back exactly those.
unsafe impl<const N: usize> GlobalAlloc for Arena<N> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout).unwrap_or_else(|| {
            // SAFETY: as promised to us.
            unsafe { System.alloc(layout) }
        })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(block) = self.take(layout) else {
            // SAFETY: as promised to us.
            return unsafe { System.alloc_zeroed(layout) };
        };
        let start = block.addr() - self.bytes.get().addr();
        let touched = self.touched.load(Ordering::Relaxed).saturating_sub(start);
        // SAFETY: the block is ours alone, and has so many bytes.
        unsafe { block.write_bytes(0, touched.min(layout.size())) };
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.holds(block) {
            self.give_back(block, layout.size(), 0);
        } else {
            // SAFETY: as promised to us, and no block of ours.
            unsafe { System.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.holds(block) {
            // SAFETY: as promised to us, and no block of ours.
            return unsafe { System.realloc(block, layout, size) };
        }
        if size <= layout.size() {
            self.give_back(block, layout.size(), size);
            return block;
        }
        // The last block grows where it is.
        let start = block.addr() - self.bytes.get().addr();
        let (end, new_end) = (start + layout.size(), start.saturating_add(size));
        if new_end <= N
            && self
                .used
                .compare_exchange(end, new_end, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        {
            return block;
        }
        // SAFETY: `size` is in range for this alignment, as promised to us.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: the old block has its whole length, the new one is longer, and they are apart.
            unsafe { new.copy_from_nonoverlapping(block, layout.size()) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("a layout")
    }

    #[test]
    fn blocks_are_aligned_and_follow_each_other() {
        let arena = Arena::<4096>::new();
        // SAFETY: the layouts are not empty.
        let [a, b, c] = unsafe {
            [
                arena.alloc(layout(3, 1)),
                arena.alloc(layout(8, 8)),
                arena.alloc_zeroed(layout(64, 64)),
            ]
        };
        assert_eq!(
            [a, b, c].map(|block| block.addr() - arena.bytes.get().addr()),
            [0, 8, 64]
        );
    }

    #[test]
    fn what_does_not_fit_is_the_systems() {
        let arena = Arena::<4096>::new();
        // SAFETY: the layouts are not empty; each block is freed once, as it was allocated.
        unsafe {
            let large = arena.alloc(layout(4097, 1));
            assert!(!arena.holds(large));
            large.write_bytes(1, 4097);
            let larger = arena.realloc(large, layout(4097, 1), 8192);
            assert_eq!(larger.add(4096).read(), 1);
            arena.dealloc(larger, layout(8192, 1));
            assert!(
                arena.holds(arena.alloc(layout(4096, 1))),
                "and took nothing from the arena"
            );
            let zeroed = arena.alloc_zeroed(layout(1, 1));
            assert_eq!((arena.holds(zeroed), zeroed.read()), (false, 0));
            arena.dealloc(zeroed, layout(1, 1));
        }
    }

    #[test]
    fn the_last_block_grows_in_place_and_others_move_with_their_bytes() {
        let arena = Arena::<64>::new();
        // SAFETY: as above.
        unsafe {
            let first = arena.alloc(layout(4, 1));
            first.write_bytes(7, 4);
            let first = arena.realloc(first, layout(4, 1), 16);
            assert_eq!(first.addr(), arena.bytes.get().addr());
            arena.alloc(layout(1, 1));
            let moved = arena.realloc(first, layout(16, 1), 20);
            assert_eq!((arena.holds(moved), moved.add(3).read()), (true, 7));
            assert_eq!(arena.realloc(moved, layout(20, 1), 2), moved, "less is still there");
            let out = arena.realloc(moved, layout(20, 1), 100);
            assert_eq!((arena.holds(out), out.read()), (false, 7));
            arena.dealloc(out, layout(100, 1));
        }
    }

    #[test]
    fn the_last_block_is_used_again_and_is_zero_where_it_has_to_be() {
        let arena = Arena::<64>::new();
        // SAFETY: as above.
        unsafe {
            let first = arena.alloc(layout(8, 1));
            let second = arena.alloc(layout(16, 1));
            second.write_bytes(7, 16);
            // What is cut off is free, and so is the rest then.
            assert_eq!(arena.realloc(second, layout(16, 1), 4), second);
            let third = arena.alloc_zeroed(layout(20, 1));
            assert_eq!(third, second.add(4));
            assert_eq!(std::slice::from_raw_parts(third, 20), [0; 20]);
            // With others behind it a block stays.
            arena.dealloc(second, layout(4, 1));
            arena.dealloc(third, layout(20, 1));
            assert_eq!(arena.alloc(layout(1, 1)), third);
            arena.dealloc(first, layout(8, 1));
            assert_eq!(arena.alloc(layout(1, 1)), third.add(1));
        }
    }

    #[test]
    fn what_threads_give_back_is_nobody_elses() {
        let arena = Arena::<{ 1 << 12 }>::new();
        let work = |mark: u8| {
            for turn in 0..2000_usize {
                let size = 1 + (turn * 7 + usize::from(mark)) % 60;
                // SAFETY: the layout is not empty; the block is freed once, as it was allocated.
                unsafe {
                    let block = arena.alloc_zeroed(layout(size, 1));
                    let bytes = std::slice::from_raw_parts_mut(block, size);
                    assert!(bytes.iter().all(|byte| *byte == 0));
                    bytes.fill(mark);
                    std::hint::spin_loop();
                    assert!(bytes.iter().all(|byte| *byte == mark));
                    arena.dealloc(block, layout(size, 1));
                }
            }
        };
        std::thread::scope(|scope| {
            for mark in 1..=4 {
                scope.spawn(move || work(mark));
            }
        });
    }

    #[test]
    fn threads_get_blocks_of_their_own() {
        let arena = Arena::<{ 1 << 16 }>::new();
        let take = || -> Vec<usize> {
            // SAFETY: the layout is not empty.
            (0..1000)
                .map(|_| unsafe { arena.alloc(layout(16, 16)) }.addr())
                .collect()
        };
        let mut all = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(take));
            threads.map(|thread| thread.join().expect("it does not panic")).concat()
        });
        all.sort_unstable();
        assert!(all.array_windows().all(|[one, next]| next - one >= 16));
    }
}
