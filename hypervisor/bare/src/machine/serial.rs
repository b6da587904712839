//! COM1, the guest's console: a 16550 UART at its usual ports, 115200 baud, 8N1.

use spin::{Mutex, MutexGuard};
use x86_64::instructions::port::Port;

use super::sleep;

/// The ports of COM1.
const COM1: u16 = 0x3f8;

/// Line status: a received byte waits.
const RECEIVED: u8 = 1;
/// Line status: the transmitter's buffer is empty.
const EMPTY: u8 = 1 << 5;
/// A UART that is not there reads so.
const NOTHING: u8 = 0xff;
/// How often to look whether the transmitter is free before a byte is given up: far more than a
/// byte takes at 115200 baud, so that only a UART that is broken loses any.
const PATIENCE: u32 = 1 << 20;

/// Register `offset` of COM1.
const fn register(offset: u16) -> Port<u8> {
    Port::new(COM1 + offset)
}

/// Sets speed and format, without interrupts. On a machine the FIFOs are on: a byte comes each 87 us, whether or not
/// somebody waits for it. In an emulator they are off: without them it leaves a byte on the line until the one
/// before is read, and with them Bochs drops what the FIFO has no room for.
pub(super) fn init(emulated: bool) {
    let fifos = if emulated { 0 } else { 0xc7 };
    // Interrupts off; divisor latch on; divisor 1; 8N1, latch off; FIFOs, cleared; DTR, RTS.
    for (offset, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, fifos), (4, 3)] {
        // SAFETY: registers of the UART, which nobody else uses and which touch no memory.
        unsafe { register(offset).write(value) };
    }
}

fn status() -> u8 {
    // SAFETY: reading the line status clears error bits, which nobody looks at.
    unsafe { register(5).read() }
}

/// Has the lock for oneself; without it in the end, for whoever holds it may have met a fault while it
/// did, and then wants to say so.
pub(super) fn patiently(lock: &Mutex<()>) -> Option<MutexGuard<'_, ()>> {
    const PATIENCE: u32 = 100_000_000;
    (0..PATIENCE).find_map(|_| {
        core::hint::spin_loop();
        lock.try_lock()
    })
}

/// Keeps what processors send apart.
static LINE: Mutex<()> = Mutex::new(());

/// Sends bytes, waiting for the line; those of one call are not torn apart.
pub(super) fn send(bytes: &[u8]) {
    let _line = patiently(&LINE);
    for byte in bytes {
        if (0..PATIENCE).any(|_| status() & EMPTY != 0) {
            // SAFETY: the transmitter's register, which touches no memory.
            unsafe { register(0).write(*byte) };
        }
    }
}

/// A byte that has come in, if any.
pub(super) fn receive() -> Option<u8> {
    let status = status();
    (status != NOTHING && status & RECEIVED != 0).then(|| {
        sleep::heard_byte();
        // SAFETY: the receiver's register holds a byte, as the status says.
        unsafe { register(0).read() }
    })
}
