//! Processors beyond the first: how many, and where each has what it does not share.
//!
//! Processor 0 runs the guest from its entry on. The others wait at the host, without a single
//! instruction, until a guest [starts](crate::doorbell::START) one: it then begins at the function
//! that the guest left in its mailbox, on its own stack, in the guest's ring.
//!
//! All processors share memory, page tables, GDT, IDT and devices. What ring 0 needs of each is in
//! the host's part of the [map]. For the guest each has a block of its own, one after the other
//! between the stack and the heap:
//!
//! ```text
//! +0         mailbox           user, read-write
//! +1 page    guard page        not mapped
//! +2 pages   stack             user, read-write, as long as that of processor 0
//!            guard page        not mapped
//! ```
//!
//! `GS` has the address of its own mailbox as its base on every processor, so that
//! `mov rax, gs:[16]` reads [`Mailbox::processor`](crate::doorbell::Mailbox::processor).

use crate::map::{self, PAGE};

/// The greatest number of processors.
pub const MAX: u32 = 32;

/// Where the mailbox of a block is.
pub const MAILBOX: u64 = 0;
/// Where the stack of a block begins.
pub const STACK: u64 = 2 * PAGE;

/// Distance from one task state segment to the next, in bytes.
pub const TSS_STRIDE: u64 = 512;
/// Size of a trap stack, in bytes: nothing but a [`TrapFrame`](crate::doorbell::TrapFrame) comes onto
/// it.
pub const TRAP_STACK_SIZE: u64 = 512;
/// How many trap stacks each has: one for `RSP0` and one for each IST entry in use.
pub const TRAP_STACKS: u64 = map::TRAP_STACK_COUNT;

/// Distance from one block to the next, for stacks of this size in bytes.
#[must_use]
pub const fn stride(stack: u64) -> u64 {
    STACK + stack + PAGE
}

/// The task state segment of processor `n`, 1 or more.
///
/// # Panics
///
/// If there can be no such processor.
#[must_use]
pub const fn tss(n: u32) -> u64 {
    assert!(0 < n && n < MAX);
    map::PROCESSOR_TSS + (n as u64 - 1) * TSS_STRIDE
}

/// Where the trap stacks of processor `n`, 1 or more, begin: one behind the other.
///
/// # Panics
///
/// If there can be no such processor.
#[must_use]
pub const fn trap_stacks(n: u32) -> u64 {
    assert!(0 < n && n < MAX);
    map::PROCESSOR_TRAP_STACKS + (n as u64 - 1) * TRAP_STACKS * TRAP_STACK_SIZE
}

const _: () = {
    assert!(tss(MAX - 1) + TSS_STRIDE <= map::PROCESSOR_TRAP_STACKS);
    assert!(trap_stacks(MAX - 1) + TRAP_STACKS * TRAP_STACK_SIZE <= map::MAILBOX);
    assert!(TRAP_STACK_SIZE as usize >= crate::doorbell::TrapFrame::SIZE + 64);
};
