//! Memory that a jailed guest's start writes, asked for at once.
//!
//! The process is a copy of its supervisor: each page that it writes is copied, or made, when it is touched. One by one
//! they take the kernel longer. Without (Linux before 5.14), that is how they come.

use crate::ARENA;

/// How much of the stack the rest of a start takes, in bytes.
const STACK: usize = 52 << 10;

/// How much of the arena it takes, in bytes: most of it is the guest's file.
const HEAP: usize = 68 << 10;

const PAGE: usize = 4096;

/// Brings the pages of the stack and of the arena that are written next.
pub(crate) fn write_soon() {
    let here = 0_u8;
    let stack = (&raw const here).addr() & !(PAGE - 1);
    populate(stack - STACK, STACK);
    populate(ARENA.next().addr() & !(PAGE - 1), HEAP);
}

fn populate(start: usize, length: usize) {
    // SAFETY: MADV_POPULATE_WRITE leaves what is in memory as it is, and refuses what is not mapped to be written.
    let _ = unsafe {
        libc::madvise(
            std::ptr::without_provenance_mut(start),
            length,
            libc::MADV_POPULATE_WRITE,
        )
    };
}
