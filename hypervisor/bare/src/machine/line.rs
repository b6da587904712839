//! The serial port that the line is at.

use core::time::Duration;

use chiton_bare::command::LinePort;
use chiton_bare::line::Wire;

use super::time;
use super::uart::Uart;

/// How long a byte may take to come: what was sent is out by then, and the other end has had its time to think.
const PATIENCE: Duration = Duration::from_millis(250);

/// A serial port, which is the line's alone.
pub(super) struct SerialLine(Uart);

impl SerialLine {
    /// That port; `None` if the machine has no such one.
    pub(super) fn open(port: LinePort) -> Option<Self> {
        let uart = Uart::at(port.base());
        uart.init(true);
        uart.is_there().then_some(Self(uart))
    }
}

impl Wire for SerialLine {
    fn send(&mut self, bytes: &[u8]) {
        self.0.send(bytes);
    }

    fn receive(&mut self) -> Option<u8> {
        let until = time::ticks().saturating_add(time::in_ticks(PATIENCE));
        loop {
            if let byte @ Some(_) = self.0.receive() {
                return byte;
            }
            if time::ticks() >= until {
                return None;
            }
            // In an emulator it is others' turn: who brings the byte, for one.
            core::hint::spin_loop();
        }
    }

    fn now_ns(&self) -> u64 {
        time::now_ns()
    }
}
