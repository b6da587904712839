//! TLB shoot-down: for guests in ring 0 that have page tables of their own, and change them.
//!
//! A processor keeps translations that it has used (SDM volume 3A, section 5.10). Who takes a page
//! away, or puts another in its place, has to make every processor forget it:
//!
//! ```text
//!   shoot_down(page) ── vector 0x22 ──▶ each other processor that listens: `invlpg`, and says so
//!     `invlpg`, waits for all  ◀────────────────────────────────┘
//! ```
//!
//! The tables that the host has made never change, so guests in ring 3 have no use for it.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chiton_shared::interrupts::SHOOT_DOWN;
use spin::Mutex;

use crate::interrupts;
use crate::processors::{self, MAX, PerProcessor};

/// The interrupt command register (SDM volume 3A, section 12.12.9).
const ICR: u32 = 0x830;
/// Edge-triggered, fixed, to a physical destination, with the level that this takes.
const MESSAGE: u32 = 1 << 14 | SHOOT_DOWN as u32;

/// One at a time.
static TURN: Mutex<()> = Mutex::new(());
/// What is to be forgotten.
static PAGE: AtomicU64 = AtomicU64::new(0);
/// Who has not forgotten it yet.
static WANTED: PerProcessor<AtomicBool> = PerProcessor::new([const { AtomicBool::new(false) }; MAX]);

/// Has every processor that [listens](interrupts::listen), and this one, forget what it knows of the
/// page with this address. When it returns, none uses the old translation any more.
///
/// Only for ring 0: anywhere else it is a fault. Not with interrupts [masked](interrupts::masked),
/// since two processors may be at it.
pub fn shoot_down(page: u64) {
    let _turn = TURN.lock();
    PAGE.store(page, Ordering::SeqCst);
    let others = || {
        (0..)
            .zip(WANTED.all())
            .filter(|(number, _)| *number != processors::current())
    };
    for (number, wanted) in others().filter(|(number, _)| interrupts::listens(*number)) {
        wanted.store(true, Ordering::SeqCst);
        send(number);
    }
    forget(page);
    for (number, wanted) in others() {
        // One that has stopped meanwhile has forgotten everything when it begins again.
        while wanted.load(Ordering::SeqCst) && interrupts::listens(number) {
            core::hint::spin_loop();
        }
        wanted.store(false, Ordering::SeqCst);
    }
}

/// [`SHOOT_DOWN`] has come.
pub(crate) fn serve() {
    let wanted = WANTED.own();
    if wanted.load(Ordering::SeqCst) {
        forget(PAGE.load(Ordering::SeqCst));
        wanted.store(false, Ordering::SeqCst);
    }
}

fn forget(page: u64) {
    // SAFETY: forgetting a translation is always sound; the processor looks it up again.
    unsafe { asm!("invlpg [{page}]", page = in(reg) page, options(nostack, preserves_flags)) };
}

fn send(processor: u32) {
    // SAFETY: the message interrupts a processor by a vector that has a stub.
    unsafe {
        asm!("wrmsr", in("ecx") ICR, in("eax") MESSAGE, in("edx") processor, options(nostack, preserves_flags));
    }
}
