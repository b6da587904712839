//! The heap's free memory, held for as long as it takes to tell the host of it.

use core::alloc::Layout;
use core::ptr::NonNull;

use chiton_shared::virtio::balloon::PAGE;

use crate::heap;

/// How many pieces are held at most.
const MOST: usize = 32;

/// Smaller pieces are not worth an exit, in bytes.
const LEAST: usize = 64 << 10;

/// What of the free memory is left, for who allocates meanwhile: one part of so many.
const LEFT: usize = 8;

/// Free pieces of the heap that nobody else can have until this is dropped.
pub(super) struct Held {
    blocks: [Option<(NonNull<u8>, Layout)>; MOST],
}

impl Held {
    /// Takes what there is, the largest pieces first.
    pub(super) fn take() -> Self {
        let mut held = Self { blocks: [None; MOST] };
        let free = heap::usage().map_or(0, |usage| usage.free());
        let mut left = free - free / LEFT;
        let mut size = left.checked_ilog2().map_or(0, |bits| 1 << bits);
        for block in &mut held.blocks {
            while size >= LEAST && block.is_none() {
                let layout = Layout::from_size_align(size, PAGE as usize).ok();
                let taken = layout.filter(|_| size <= left).and_then(heap::try_allocate);
                *block = taken.zip(layout);
                if block.is_some() {
                    left -= size;
                } else {
                    size /= 2;
                }
            }
        }
        held
    }

    /// The pieces.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (NonNull<u8>, usize)> {
        self.blocks
            .iter()
            .flatten()
            .map(|(start, layout)| (*start, layout.size()))
    }

    /// How many bytes they have together.
    pub(super) fn bytes(&self) -> usize {
        self.blocks().map(|(_, size)| size).sum()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for (start, layout) in self.blocks.iter().flatten() {
            // SAFETY: allocated with this layout in `take`, and nobody else knows of it.
            unsafe { heap::give_back(*start, *layout) };
        }
    }
}
