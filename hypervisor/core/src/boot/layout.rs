//! Where image, stack and heap lie.
//!
//! ```text
//!   image │ guard page │ stack │ guard page │ blocks of other processors │ heap … end of memory
//! ```
//!
//! Memory beyond 3 GiB continues at 4 GiB ([`map::HIGH_MEMORY`]); nothing spans the hole. The heap
//! is one piece: the larger of what is left below the hole and what is above it.

use core::ops::Range;

use chiton_shared::{map, processor};

use super::BootError;
use crate::loader::{Image, Kind, MAX_SEGMENTS};

/// Page tables that every world needs: the PML4, one PDPT, the directory of the device window's
/// GiB, and a table each for the device window and the first 2 MiB.
const TABLES_ALWAYS: u64 = 5;
/// Tables of 4 KiB pages for the two ragged ends of each segment, of the stack, the heap, and of
/// RELRO, which cuts a segment.
const TABLES_AT_ENDS: u64 = 2 * (MAX_SEGMENTS as u64 + 3);

/// The most memory a guest can have, in bytes: one page directory maps 1 GiB, and the area for
/// page tables holds so many beside the tables that are needed anyway.
pub const MAX_MEMORY: u64 =
    ((map::PAGE_TABLES_END - map::PAGE_TABLES) / map::PAGE - TABLES_ALWAYS - TABLES_AT_ENDS) << 30;

const _: () = {
    assert!(MAX_MEMORY >= 64 << 30, "enough for any guest we know of");
    assert!(MAX_MEMORY + map::HIGH_MEMORY <= 512 << 30, "one PDPT maps it");
};

/// Where image, stack and heap lie. All ranges are whole pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Size of guest memory, in bytes.
    pub memory: u64,
    /// The image, with the gaps between its segments.
    pub image: Range<u64>,
    /// The stack.
    pub stack: Range<u64>,
    /// The [blocks](processor) of the processors beyond the first; empty if there are none.
    pub processors: Range<u64>,
    /// The heap.
    pub heap: Range<u64>,
}

impl Layout {
    pub(super) fn new(image: &Image<'_>, memory: u64, processors: u32) -> Result<Self, BootError> {
        if !(1..=processor::MAX).contains(&processors) {
            return Err(BootError::Processors(processors));
        }
        if memory > MAX_MEMORY {
            return Err(BootError::MemoryTooLarge(memory));
        }
        if !memory.is_multiple_of(map::PAGE) {
            return Err(BootError::MemoryUnaligned(memory));
        }
        let needs = minimum_memory(image, processors);
        let too_small = if needs > MAX_MEMORY {
            BootError::NeedsTooMuch(needs)
        } else {
            BootError::MemoryTooSmall { memory, needs }
        };
        for segment in image.segments() {
            if !is_memory(segment.pages(), memory) {
                return Err(match image.kind() {
                    Kind::PositionIndependent => too_small,
                    Kind::Fixed => BootError::SegmentOutside {
                        start: segment.address,
                        end: segment.end(),
                        memory,
                    },
                });
            }
        }
        if memory < needs {
            return Err(too_small);
        }
        let stack = stack(image);
        let blocks = blocks(&stack, processors);
        if blocks.end > map::LOW_MEMORY_END && !blocks.is_empty() {
            return Err(BootError::ProcessorsTooHigh(blocks.end));
        }
        let behind = blocks.end..end_of_memory(stack.end, memory);
        let above = map::HIGH_MEMORY..end_of_memory(map::HIGH_MEMORY, memory).max(map::HIGH_MEMORY);
        let size = |range: &Range<u64>| range.end.saturating_sub(range.start);
        let heap = if stack.end <= map::LOW_MEMORY_END && size(&above) > size(&behind) {
            above
        } else {
            behind
        };
        if heap.end <= heap.start || size(&heap) < heap_size(image) {
            return Err(too_small);
        }
        Ok(Self {
            memory,
            image: image.pages(),
            stack,
            processors: blocks,
            heap,
        })
    }

    /// Where the blocks of the processors beyond the first begin, in their order.
    pub fn blocks(&self) -> impl Iterator<Item = u64> + use<> {
        let stride = processor::stride(self.stack.end - self.stack.start);
        let Range { start, end } = self.processors;
        (0..(end - start) / stride).map(move |n| start + n * stride)
    }
}

/// The least memory an image runs in on so many processors, in bytes.
pub(super) fn minimum_memory(image: &Image<'_>, processors: u32) -> u64 {
    let heap = place(blocks(&stack(image), processors).end, heap_size(image));
    let end = heap.end;
    if end <= map::LOW_MEMORY_END {
        end
    } else {
        end - (map::HIGH_MEMORY - map::LOW_MEMORY_END)
    }
}

/// The end of the piece of memory that an address lies in, or in whose end it is.
fn end_of_memory(address: u64, memory: u64) -> u64 {
    if address <= map::LOW_MEMORY_END {
        memory.min(map::LOW_MEMORY_END)
    } else {
        map::HIGH_MEMORY + memory.saturating_sub(map::LOW_MEMORY_END)
    }
}

/// Whether a range is memory as a whole, in one piece.
pub(super) fn is_memory(range: Range<u64>, memory: u64) -> bool {
    let low = range.end <= memory.min(map::LOW_MEMORY_END);
    low || (range.start >= map::HIGH_MEMORY && range.end <= end_of_memory(map::HIGH_MEMORY, memory))
}

fn stack(image: &Image<'_>) -> Range<u64> {
    let size = image.manifest().stack.max(1).next_multiple_of(map::PAGE);
    // Its upper guard page has to fit too.
    let with_guard = place(image.pages().end + map::PAGE, size + map::PAGE);
    with_guard.start..with_guard.end - map::PAGE
}

/// The blocks of all processors but the first.
fn blocks(stack: &Range<u64>, processors: u32) -> Range<u64> {
    let start = stack.end + map::PAGE;
    let size = processor::stride(stack.end - stack.start) * u64::from(processors.saturating_sub(1));
    start..start + size
}

fn heap_size(image: &Image<'_>) -> u64 {
    image.manifest().heap.max(1).next_multiple_of(map::PAGE)
}

/// `size` bytes from `start` on, or above the hole if they would reach into it.
const fn place(start: u64, size: u64) -> Range<u64> {
    let start = if start < map::HIGH_MEMORY && start + size > map::LOW_MEMORY_END {
        map::HIGH_MEMORY
    } else {
        start
    };
    start..start + size
}
