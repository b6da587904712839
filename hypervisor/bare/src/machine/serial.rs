//! COM1, the guest's console.

use spin::{Mutex, MutexGuard};

use super::sleep;
use super::uart::Uart;

/// COM1.
const COM1: Uart = Uart::at(0x3f8);

/// Sets speed and format.
pub(super) fn init(emulated: bool) {
    // Without FIFOs an emulator leaves a byte on the line until the one before is read, and with them Bochs drops what
    // the FIFO has no room for.
    COM1.init(!emulated);
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
    COM1.send(bytes);
}

/// A byte that has come in, if any.
pub(super) fn receive() -> Option<u8> {
    COM1.receive().inspect(|_| sleep::heard_byte())
}
