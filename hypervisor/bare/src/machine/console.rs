//! The console's two ends: COM1, and nothing at all where the guest has no input.

use alloc::sync::Arc;
use alloc::vec::Vec;
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

/// The longest line that is kept until its end comes, in bytes.
const LONGEST_LINE: usize = 4096;

/// COM1 as a guest's console.
pub(super) struct SerialPort {
    /// Whether the line is input too, and its end has not come.
    open: bool,
    /// Whether the next byte is input, whatever it is.
    literal: bool,
    sent: Arc<AtomicU64>,
    lines: Option<Lines>,
}

impl SerialPort {
    /// The line, as input too or for output alone. With a processor's number, others use it beside this
    /// one, and lines begin with the number.
    pub(super) fn new(input: bool, processor: Option<usize>) -> Self {
        Self {
            open: input,
            literal: false,
            sent: Arc::default(),
            lines: processor.map(|processor| Lines {
                processor,
                begun: Vec::new(),
            }),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        match &mut self.lines {
            None => serial::send(bytes),
            Some(lines) => lines.send(bytes),
        }
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
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
                self.send(&bytes[..len]);
                at += len;
                done += len;
            }
        }
        Output::Bytes(done)
    }

    fn emergency(&mut self, byte: u8) {
        self.send(&[byte]);
    }
}

/// Output of one of several guests: whole lines, each with its guest's number.
struct Lines {
    processor: usize,
    /// The line that has begun.
    begun: Vec<u8>,
}

impl Lines {
    fn send(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                self.begun.push(*byte);
            }
            if *byte == b'\n' || self.begun.len() >= LONGEST_LINE {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        let mut line = alloc::format!("{}|", self.processor).into_bytes();
        line.append(&mut self.begun);
        line.push(b'\n');
        serial::send(&line);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.begun.is_empty() {
            self.end();
        }
    }
}
