//! The PC's two interrupt controllers (Intel 8259A), silenced.
//!
//! The firmware leaves them with timer and keyboard on, at vectors that are exceptions of a processor
//! in protected mode: the timer would be a double fault. Under a guest each of their interrupts is an
//! exit, after which the hypervisor takes it.

use x86_64::instructions::port::Port;

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
