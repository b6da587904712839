//! Why a world cannot be built.

use chiton_shared::boot::QUEUE_MAX;
use chiton_shared::{map, processor};
use thiserror::Error;

use super::MAX_MEMORY;

/// Bytes as MiB, rounded up: what to type after `--memory`.
const fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// Why a world cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BootError {
    /// Not enough memory for image, stack and heap.
    #[error(
        "{memory} bytes of memory are too little: this guest needs at least {} MiB (--memory {}M)",
        mib(*.needs), mib(*.needs)
    )]
    MemoryTooSmall {
        /// What it has, in bytes.
        memory: u64,
        /// What it needs, in bytes.
        needs: u64,
    },
    /// Image, stack and heap are larger than any memory.
    #[error("this guest needs {} MiB of memory, more than the {} MiB there can be: ask for less stack or heap", mib(*.0), MAX_MEMORY >> 20)]
    NeedsTooMuch(u64),
    /// More memory than the page tables can map.
    #[error("{0} bytes of memory are too much: the most is {max} MiB (--memory {max}M)", max = MAX_MEMORY >> 20)]
    MemoryTooLarge(u64),
    /// Not a whole number of pages.
    #[error("{0} bytes of memory are not a whole number of {page}-byte pages: choose a multiple with --memory", page = map::PAGE)]
    MemoryUnaligned(u64),
    /// A fixed segment where there is no memory.
    #[error(
        "the segment at {start:#x} to {end:#x} lies outside the guest's {} MiB of memory: \
         raise --memory, link it lower, or link it as a PIE", .memory >> 20
    )]
    SegmentOutside {
        /// First address.
        start: u64,
        /// The address after the last.
        end: u64,
        /// What the guest has, in bytes.
        memory: u64,
    },
    /// Arguments and environment are too long.
    #[error(
        "arguments and environment take {needs} bytes, and there is room for {room}: pass long input on the console or a disk"
    )]
    StringsTooLong {
        /// Bytes with their NULs.
        needs: usize,
        /// Size of the area.
        room: usize,
    },
    /// A string that would end early.
    #[error("{what} number {index} contains a NUL byte, which ends strings: leave it out")]
    Nul {
        /// Argument or environment variable.
        what: &'static str,
        /// Which one, from 0.
        index: usize,
    },
    /// An environment variable without a name or a value.
    #[error("the environment variable {0:?} is not of the form KEY=VALUE")]
    Environment(alloc::string::String),
    /// More devices than register blocks.
    #[error("{0} devices are too many: the most is {max}", max = map::DEVICE_MAX)]
    TooManyDevices(usize),
    /// More queues than the boot page describes.
    #[error("{0} queues of all devices are too many: the most is {max}", max = QUEUE_MAX)]
    TooManyQueues(usize),
    /// No processor, or too many.
    #[error("a guest cannot have {0} processors: choose 1 to {max}", max = processor::MAX)]
    Processors(u32),
    /// The blocks of the other processors do not end below 3 GiB.
    #[error("the stacks of all processors end at {0:#x}, above 3 GiB: use fewer processors, or a smaller stack")]
    ProcessorsTooHigh(u64),
    /// The area for page tables is full.
    #[error("the page tables take more than the {} KiB there are for them: use less memory, fewer processors or fewer segments", (map::PAGE_TABLES_END - map::PAGE_TABLES) >> 10)]
    TablesFull,
    /// The memory given is not the memory the world was built for.
    #[error("guest memory has no {len} bytes at {address:#x}: give the world the memory it was built for")]
    NoMemory {
        /// Where.
        address: u64,
        /// How many bytes.
        len: usize,
    },
}
