//! Interrupts of the machine's devices, of which nobody here wants any.
//!
//! The firmware leaves the PC's two controllers (Intel 8259A) with timer and keyboard on, at vectors that are exceptions
//! of a processor in protected mode: the timer would be a double fault. They are silenced. What else it has left on, an
//! I/O APIC's input or an entry of a local APIC, comes with a vector that nobody knows: under a guest that is an
//! exit, after which the hypervisor takes it, tells the local APIC, and counts it.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use chiton_core::local_apic::Message;
use x86_64::instructions::port::Port;

use super::debug::say;
use super::nmi;
use super::smp::{Team, Work};

/// How many have come that nobody asked for, to any processor.
static STRAY: AtomicU64 = AtomicU64::new(0);
/// The vector that the example has one come with.
const EXAMPLE: u8 = 0x40;

/// Command and data port of the first controller, and of the second.
const CONTROLLERS: [(u16, u16); 2] = [(0x20, 0x21), (0xa0, 0xa1)];
/// The vectors that they get, eight each: the first that are no exceptions.
const VECTORS: [u8; 2] = [0x20, 0x28];
/// How the two are joined: by line 2 of the first.
const JOINED: [u8; 2] = [1 << 2, 2];

/// Moves both off the exceptions, and masks every line.
pub(super) fn silence() {
    for (((command, data), vector), joined) in CONTROLLERS.into_iter().zip(VECTORS).zip(JOINED) {
        // ICW1: edge-triggered, joined, ICW4 follows; ICW2: vectors; ICW3; ICW4: 8086 mode; then the
        // mask (data sheet 231468, "Initialization command words").
        for (port, value) in [(command, 0x11), (data, vector), (data, joined), (data, 1), (data, 0xff)] {
            // SAFETY: OUT (SDM volume 2B; APM volume 3) touches no memory; these are the controllers of every PC.
            // Interrupts are off, and nobody waits for one.
            unsafe { Port::<u8>::new(port).write(value) };
        }
    }
}

/// The handler of every vector that is nobody's. The APIC is told later, where Rust can do it, as of the vectors that are
/// somebody's.
#[unsafe(naked)]
pub(super) extern "C" fn stray() {
    naked_asm!("lock inc qword ptr [rip + {count}]", "iretq", count = sym STRAY)
}

/// Says how many there were, if any.
pub(super) fn say_count() {
    let count = STRAY.load(Ordering::Relaxed);
    if count > 0 {
        say!("warning: interrupts of devices came meanwhile, which the firmware has left on: {count}");
    }
}

/// An example, for any processor but the first: sends the first one an interrupt as such a device would. Whether it was
/// taken.
pub(super) fn send_to_first<W: Work>(team: &Team<W>) -> bool {
    let before = STRAY.load(Ordering::Relaxed);
    team.send_to_first(Message::Interrupt(EXAMPLE)) && nmi::comes(|| STRAY.load(Ordering::Relaxed) == before + 1)
}
