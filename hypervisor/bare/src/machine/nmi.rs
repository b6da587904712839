//! NMIs of the machine, which come at any time, and what of them is known: that they came.
//!
//! One that comes while a guest runs makes it exit, and is taken here then: VMX has it taken by `int 2`, since the exit
//! has acknowledged it; with SVM it is still pending. Whoever sends them (a watchdog, a memory controller, somebody at
//! a button) tells no program that does not know this machine. So they are counted, and the machine goes on.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use chiton_core::local_apic::Message;

use super::debug::say;
use super::smp::{Team, Work, pause};
use super::time;

/// How many have come, to any processor.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The example sends so many,
const SENT: u64 = 20;
/// so long one after the other,
const BETWEEN: Duration = Duration::from_millis(2);
/// and waits so long for each to be taken, and for a guest to begin.
const PATIENCE: Duration = Duration::from_secs(60);

/// The handler. Until its `iretq` no other comes to this processor. It has a stack of its own, since it may interrupt
/// code that is about to change stacks.
#[unsafe(naked)]
pub(super) extern "C" fn handler() {
    naked_asm!("lock inc qword ptr [rip + {count}]", "iretq", count = sym COUNT)
}

/// Says how many there were, if any.
pub(super) fn say_count() {
    let count = COUNT.load(Ordering::Relaxed);
    if count > 0 {
        say!("warning: {count} NMIs of the machine came meanwhile, and nothing here knows what for");
    }
}

/// An example, for any processor but the first: sends NMIs to the first, which runs a guest. Whether each was taken.
pub(super) fn send_to_first<W: Work>(team: &Team<W>) -> bool {
    let taken_before = COUNT.load(Ordering::Relaxed);
    let taken = || COUNT.load(Ordering::Relaxed) - taken_before;
    let good = comes(time::guest_began)
        && (1..=SENT).all(|number| {
            time::sleep(BETWEEN);
            team.send_to_first(Message::Nmi) && comes(|| taken() == number)
        });
    say!(
        "machine-nmi: {SENT} NMIs for the first processor, and {} were taken",
        taken()
    );
    good
}

/// Waits for something, for a while; whether it has come.
pub(super) fn comes(what: impl Fn() -> bool) -> bool {
    let until = time::ticks().saturating_add(time::in_ticks(PATIENCE));
    while !what() {
        if time::ticks() >= until {
            return false;
        }
        pause();
    }
    true
}
