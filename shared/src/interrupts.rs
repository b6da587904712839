//! Interrupts: the vectors, the gates, and where a processor keeps what it must not miss.
//!
//! A guest has them only if its manifest says so ([`Feature::INTERRUPTS`](crate::manifest::Feature)).
//! Each processor then has a local APIC in x2APIC mode (SDM volume 3A, section 12.12), ready for
//! use, and runs with interrupts on. A small stub of the host's, in ring 0, takes each interrupt:
//!
//! ```text
//!   interrupt ─▶ stub: pending[vector] = 1, news = deferred = 1, end of interrupt
//!                  ├─ no handler, or masked: goes on where it was
//!                  └─ else: leaves RIP, RFLAGS and RSP in the area, masks, goes on at the handler
//! ```
//!
//! The [`Area`] is the end of the processor's [mailbox](crate::doorbell::Mailbox), which `GS` leads
//! to. What needs ring 0 is behind [gates](GATE).

use crate::boot::QUEUE_MAX;
use crate::map;

/// The timer has reached its deadline.
pub const TIMER: u8 = 0x20;
/// Another processor has [called](CALL).
pub const IPI: u8 = 0x21;
/// For a guest in ring 0, which can send it by itself: forget a page (*TLB shoot-down*). What is left
/// below [`QUEUES`] is for such guests, too.
pub const SHOOT_DOWN: u8 = 0x22;
/// The vector of the first queue in the boot page's table; each has one of its own.
pub const QUEUES: u8 = 0x30;
/// The vector of the last queue there can be.
pub const QUEUES_LAST: u8 = QUEUES + (QUEUE_MAX - 1) as u8;
/// The spurious interrupt (SDM volume 3A, section 12.9): nobody is told.
pub const SPURIOUS: u8 = 0xFF;

/// A gate is called by `int3` with this and the number of the gate in `RCX`, from any ring. No
/// register is changed. (A software KVM knows no other `int` of ring 3. With anything else in `RCX` it
/// is a breakpoint, which ends the guest as ever.)
pub const GATE: u64 = u64::from_le_bytes(*b"\0chito\0\0");
/// Gate: sets this processor's timer. `RAX` is the time-stamp at which [`TIMER`] is due; 0 disarms
/// it (SDM volume 3A, section 12.5.4.1).
pub const SET_TIMER: u64 = GATE;
/// Gate: interrupts the processor whose number is `EAX`, by [`IPI`]. A number that is nobody's is
/// lost; all ones is everybody's.
pub const CALL: u64 = GATE + 1;
/// Gate: stops the processor until there is [news](Area::news), and forgets it. What came since the
/// last time it was forgotten counts, so a guest that looks and then halts misses nothing. The
/// handler is not called for what ends it: look at [`Area::pending`].
pub const HALT: u64 = GATE + 2;

/// How a processor that has nothing to do waits.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// By the doorbell [`WAIT`](crate::doorbell::WAIT), in the host.
    Doorbell = 0,
    /// By `hlt` ([`HALT`]), in the kernel.
    Halt = 1,
}

/// Where the area is in a mailbox, in bytes.
pub const AREA: usize = map::PAGE as usize - size_of::<Area>();

/// What the stubs write for the guest, and read of it: the end of each processor's mailbox.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// Where to go on when an interrupt has come; 0 for nowhere.
    pub handler: u64,
    /// If not 0, the handler is not called. Set whenever it is.
    pub masked: u32,
    /// Set by each interrupt; cleared by [`HALT`].
    pub news: u32,
    /// Where the interrupted code goes on.
    pub rip: u64,
    /// Its flags.
    pub rflags: u64,
    /// Its stack pointer; the 128 bytes below are in use, too.
    pub rsp: u64,
    /// Set by each interrupt, like `news`; for whoever masks, to see whether one has come meanwhile.
    pub deferred: u32,
    /// Reserved.
    pub reserved: [u32; 5],
    /// A byte for each vector, 1 if it has come. The guest clears it.
    pub pending: [u8; 256],
}

/// The vector of the queue with this number in the boot page's table.
///
/// # Panics
///
/// If `number` is not below [`QUEUE_MAX`].
#[must_use]
pub const fn queue_vector(number: usize) -> u8 {
    assert!(number < QUEUE_MAX);
    QUEUES + number as u8
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Area>() == 320);
    assert!(offset_of!(Area, news) == 12);
    assert!(offset_of!(Area, pending) == 64);
    assert!(QUEUES_LAST < SPURIOUS && IPI < QUEUES);
};
