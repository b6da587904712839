//! The hypervisor's own words: port 0xE9, which Bochs and QEMU show, and COM1 as well where a
//! machine has no such port.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use x86_64::instructions::port::Port;

use super::serial;

/// The debug console of Bochs and QEMU.
const PORT: u16 = 0xe9;

/// Whether the words go to COM1 too.
static ALSO_SERIAL: AtomicBool = AtomicBool::new(false);

/// Whoever formats into it prints.
pub(super) struct Words;

impl fmt::Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let also_serial = ALSO_SERIAL.load(Ordering::Relaxed);
        for byte in text.bytes() {
            // SAFETY: OUT (SDM volume 2B; APM volume 3) touches no memory; it is a debug port, or none at all.
            unsafe { Port::new(PORT).write(byte) };
            if also_serial {
                if byte == b'\n' {
                    serial::send(b"\r");
                }
                serial::send(&[byte]);
            }
        }
        Ok(())
    }
}

/// Whether the debug console is there: reading its port gives its number (QEMU's `isa-debugcon`,
/// Bochs' `port_e9_hack`).
pub(super) fn is_there() -> bool {
    // SAFETY: IN (SDM volume 2A; APM volume 3) touches no memory; reading this port changes nothing.
    unsafe { Port::<u8>::new(PORT).read() == 0xe9 }
}

/// From now on the words go to COM1 too.
pub(super) fn use_serial() {
    ALSO_SERIAL.store(true, Ordering::Relaxed);
}

/// Keeps the lines of processors apart.
static LINE: Mutex<()> = Mutex::new(());

/// Prints; what `say!` is made of.
pub(super) fn print(arguments: fmt::Arguments<'_>) {
    let _line = serial::patiently(&LINE);
    // Writing to the ports does not fail.
    let _ = fmt::Write::write_fmt(&mut Words, arguments);
}

/// Prints a line of the hypervisor's own.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::machine::debug::print(format_args!("{}\n", format_args!($($words)*)))
    };
}
pub(super) use say;
