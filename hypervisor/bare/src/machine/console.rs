//! The console's two ends: COM1, and nothing at all where the guest has no input.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use chiton_core::devices::{Input, Output, Port};
use chiton_shared::memory::Window;

use super::serial;

/// Ends the input, as it does on a terminal: a serial line has no end of its own (Control-D).
const END_OF_TRANSMISSION: u8 = 4;
/// The next byte is input, whatever it is, as on a terminal (Control-V).
const LITERAL: u8 = 0x16;
/// How many bytes one call sends, so that the line holds up nobody for long.
const BYTES_PER_CALL: usize = 4096;

/// COM1 as a guest's console.
pub(super) struct SerialPort {
    /// Whether the line is input too, and its end has not come.
    open: bool,
    /// Whether the next byte is input, whatever it is.
    literal: bool,
    sent: Arc<AtomicU64>,
}

impl SerialPort {
    /// The line, as input too or for output alone.
    pub(super) fn new(input: bool) -> Self {
        Self {
            open: input,
            literal: false,
            sent: Arc::default(),
        }
    }

    /// How many bytes have been sent, for others to look at too.
    pub(super) fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }
}

impl Port for SerialPort {
    fn read(&mut self, to: &[Window<'_>]) -> Input {
        if !self.open {
            return Input::End;
        }
        let mut bytes = 0;
        for window in to {
            let mut at = 0;
            while at < window.len() {
                match (serial::receive(), core::mem::take(&mut self.literal)) {
                    (None, literal) => {
                        self.literal = literal;
                        return if bytes == 0 { Input::Empty } else { Input::Bytes(bytes) };
                    }
                    (Some(END_OF_TRANSMISSION), false) => {
                        self.open = false;
                        return if bytes == 0 { Input::End } else { Input::Bytes(bytes) };
                    }
                    (Some(LITERAL), false) => self.literal = true,
                    (Some(byte), _) => {
                        window.write(at, &[byte]);
                        at += 1;
                        bytes += 1;
                    }
                }
            }
        }
        Input::Bytes(bytes)
    }

    fn write(&mut self, from: &[Window<'_>]) -> Output {
        let mut done = 0;
        let mut bytes = [0; 64];
        for window in from {
            let mut at = 0;
            while at < window.len() && done < BYTES_PER_CALL {
                let len = (window.len() - at).min(bytes.len());
                window.read(at, &mut bytes[..len]);
                serial::send(&bytes[..len]);
                at += len;
                done += len;
            }
        }
        self.sent.fetch_add(done as u64, Ordering::Relaxed);
        Output::Bytes(done)
    }

    fn emergency(&mut self, byte: u8) {
        serial::send(&[byte]);
        self.sent.fetch_add(1, Ordering::Relaxed);
    }
}
