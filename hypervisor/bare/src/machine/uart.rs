//! A serial port: a 16550 UART, 115200 baud, 8N1, without interrupts.

use core::sync::atomic::{AtomicU16, Ordering};

use x86_64::instructions::port::Port;

/// Line status: a received byte waits.
const RECEIVED: u8 = 1;
/// Line status: the transmitter's buffer is empty.
const EMPTY: u8 = 1 << 5;
/// A UART that is not there reads so.
const NOTHING: u8 = 0xff;
/// How often to look whether the transmitter is free before a byte is given up: far more than a
/// byte takes at 115200 baud, so that only a UART that is broken loses any. On a machine that is a second.
const PATIENCE: u32 = 1 << 20;

/// The UART that was given up last: it is looked at once for each byte, until it takes one.
static GIVEN_UP: AtomicU16 = AtomicU16::new(0);

/// The UART whose first port this is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uart(u16);

impl Uart {
    /// That at these eight ports.
    pub(super) const fn at(port: u16) -> Self {
        Self(port)
    }

    /// Register `offset`.
    const fn register(self, offset: u16) -> Port<u8> {
        Port::new(self.0 + offset)
    }

    /// Sets speed and format, with FIFOs or without. On a machine a byte comes each 87 us, whether or not somebody
    /// waits for it, and a FIFO has room for 16.
    pub(super) fn init(self, fifos: bool) {
        let fifos = if fifos { 0xc7 } else { 0 };
        // Interrupts off; divisor latch on; divisor 1; 8N1, latch off; FIFOs, cleared; DTR, RTS.
        for (offset, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, fifos), (4, 3)] {
            // SAFETY: OUT (SDM volume 2B; APM volume 3) touches no memory; the UART's registers are nobody else's.
            unsafe { self.register(offset).write(value) };
        }
    }

    /// Whether there is one.
    pub(super) fn is_there(self) -> bool {
        self.status() != NOTHING
    }

    fn status(self) -> u8 {
        // SAFETY: IN (SDM volume 2A; APM volume 3) touches no memory; reading the line status clears error bits, which
        // nobody looks at.
        unsafe { self.register(5).read() }
    }

    /// Sends bytes, waiting for the line.
    pub(super) fn send(self, bytes: &[u8]) {
        for byte in bytes {
            let given_up = GIVEN_UP.load(Ordering::Relaxed) == self.0;
            if !(0..if given_up { 1 } else { PATIENCE }).any(|_| self.status() & EMPTY != 0) {
                GIVEN_UP.store(self.0, Ordering::Relaxed);
                continue;
            }
            if given_up {
                GIVEN_UP.store(0, Ordering::Relaxed);
            }
            // SAFETY: OUT (SDM volume 2B; APM volume 3) to the transmitter's register touches no memory.
            unsafe { self.register(0).write(*byte) };
        }
    }

    /// A byte that has come in, if any.
    pub(super) fn receive(self) -> Option<u8> {
        let status = self.status();
        // SAFETY: IN (SDM volume 2A; APM volume 3) touches no memory; the receiver's register holds a byte, as the
        // status says.
        (status != NOTHING && status & RECEIVED != 0).then(|| unsafe { self.register(0).read() })
    }
}
