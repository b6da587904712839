//! The end of the machine: a line by which whoever started it knows the status, and how many ticks of the time-stamp
//! counter it took from the hypervisor's begin, and from its first guest's; then the switch.

use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

use super::debug::{self, say};
use super::time;

/// QEMU's `isa-debug-exit`: the process ends with twice the value, plus one.
const QEMU_EXIT: u16 = 0xf4;
/// Bochs ends when these words come to this port.
const BOCHS_SHUTDOWN: u16 = 0x8900;

/// Says the status and switches the machine off; halts where no emulator listens.
pub(super) fn end(status: u8) -> ! {
    let [hypervisor, guest] = time::passed();
    say!("chiton: end status={status} ticks={hypervisor} guest={guest}");
    // SAFETY: OUT (SDM volume 2B; APM volume 3) touches no memory. On a machine ports 0xf0 to 0xff were those of a
    // coprocessor, and are nobody's. Nothing runs after this.
    unsafe { Port::new(QEMU_EXIT).write(u32::from(status)) };
    if debug::is_there() {
        for byte in b"Shutdown" {
            // SAFETY: as above. On a machine a device may have been given this port, which an emulator's firmware does
            // not: and this is an emulator.
            unsafe { Port::new(BOCHS_SHUTDOWN).write(*byte) };
        }
    }
    loop {
        interrupts::disable();
        hlt();
    }
}
