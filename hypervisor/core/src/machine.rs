//! The run loop: enter the guest, see why it came back, do what it needs, again.
//!
//! ```text
//!        ┌───────────── Machine::run ─────────────┐
//!        │  vcpu.run() ─▶ Exit ─▶ doorbell?  ─────┼─▶ board.kick / wait / log
//!        │      ▲                 device register?┼─▶ board.mmio_read / mmio_write
//!        │      └───── go on ◀────────┘           │
//!        │                        the end? ───────┼─▶ End
//!        └────────────────────────────────────────┘
//! ```
//!
//! The backend ([`Vcpu`]) knows nothing of devices; the [`Board`] is what the machine is
//! plugged into and knows nothing of processors.

use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

use chiton_shared::doorbell::{self, LogLevel, MAILBOX_TEXT, TrapFrame};
use chiton_shared::map;
use chiton_shared::memory::GuestMemory;

use crate::exits::{Cause, ExitCounter};
use crate::vcpu::{Broken, Exit, Vcpu};

/// What surrounds the processor: memory, devices, time.
pub trait Board {
    /// Guest memory.
    fn memory(&self) -> &dyn GuestMemory;

    /// Address of the mailbox of this processor.
    fn mailbox(&self) -> u64 {
        map::MAILBOX
    }

    /// The guest starts another processor.
    fn start(&mut self, processor: u32);

    /// The guest wakes another processor from its wait.
    fn wake(&mut self, processor: u32);

    /// The guest reads a device register, or an address where nothing is (then all ones).
    fn mmio_read(&mut self, address: u64, data: &mut [u8]);

    /// The guest writes a device register, or an address where nothing is (then it is lost).
    fn mmio_write(&mut self, address: u64, data: &[u8]);

    /// The guest says that a queue of device number `device` has new buffers.
    fn kick(&mut self, device: usize);

    /// Sleeps until a queue has news since the last call, or the time is up; `None` is for ever.
    fn wait(&mut self, timeout: Option<Duration>);

    /// The processor halts: returns when an interrupt may have come for it. False if there are no
    /// interrupts here, so that nothing would ever wake it.
    fn halt(&mut self) -> bool {
        false
    }

    /// A log line of the guest.
    fn log(&mut self, level: LogLevel, text: &str);

    /// Lets the devices finish what the guest has given them, before it ends.
    fn drain(&mut self);

    /// The host has interrupted the processor: returns when it may go on, which is at once unless
    /// the guest is paused.
    fn hold(&mut self) {}

    /// Whether somebody asks for the state of the processor, which has no exit left unfinished now.
    fn asked(&self) -> bool {
        false
    }

    /// Whether somebody asked for the guest to end.
    fn stopped(&self) -> bool;

    /// A clock, in nanoseconds.
    fn now_ns(&self) -> u64;
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It rang [`doorbell::EXIT`] with this code.
    Exit(u32),
    /// It panicked.
    Panic {
        /// What it had to say, with the place.
        message: String,
    },
    /// It met an exception it does not handle.
    Trap(TrapFrame),
    /// It met a triple fault: even the trap stubs could not run.
    TripleFault,
    /// It halted, and nothing is there to wake it.
    Halted,
    /// It rang [`doorbell::PARK`]: this processor may be started again.
    Parked,
    /// It rang [`doorbell::CALL`] with this value: it has replied, and waits for a request. It goes on
    /// when the machine is run again.
    Called(u32),
    /// The host asked it to end.
    Stopped,
    /// It has not ended: somebody asks for the state of the processor, which can be run again after that.
    Asked,
    /// The processor refused to enter it, or would have.
    EntryFailed {
        /// The reason as the hardware names it; none where a check has foreseen it.
        reason: Option<u64>,
    },
    /// The backend could not go on.
    Broken(Broken),
}

/// The statuses for a shell of guests that did not choose theirs.
pub mod status {
    /// The guest panicked.
    pub const PANIC: u8 = 101;
    /// The guest met a fault.
    pub const FAULT: u8 = 102;
    /// Its time was up.
    pub const TIMEOUT: u8 = 124;
    /// The host failed.
    pub const FAILED: u8 = 125;
}

/// A processor on a board.
#[derive(Debug)]
pub struct Machine<V, B> {
    /// The processor.
    pub vcpu: V,
    /// What it is plugged into.
    pub board: B,
    /// Exits so far, for others to look at too.
    pub exits: Arc<ExitCounter>,
    /// Whether to measure the time of each exit, which itself takes time.
    pub timed: bool,
}

impl<V: Vcpu, B: Board> Machine<V, B> {
    /// A machine that has not run yet.
    pub fn new(vcpu: V, board: B) -> Self {
        Self {
            vcpu,
            board,
            exits: Arc::default(),
            timed: false,
        }
    }

    /// Runs the guest to its end, or to a [call](End::Called), after which it may be run on.
    ///
    /// # Errors
    ///
    /// When the backend's own interface fails; whatever a guest does is an [`End`].
    pub fn run(&mut self) -> Result<End, V::Error> {
        if self.timed {
            self.run_timed()
        } else {
            self.run_untimed()
        }
    }

    fn run_untimed(&mut self) -> Result<End, V::Error> {
        loop {
            let (cause, end) = step(self.vcpu.run()?, &mut self.board);
            self.exits.count(cause);
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    fn run_timed(&mut self) -> Result<End, V::Error> {
        let mut entered = self.board.now_ns();
        loop {
            let exit = self.vcpu.run()?;
            let left = self.board.now_ns();
            let (cause, end) = step(exit, &mut self.board);
            let handled = self.board.now_ns();
            self.exits.count(cause);
            self.exits.add_time(cause, handled - left);
            self.exits.add_guest_time(left - entered);
            if let Some(end) = end {
                return Ok(end);
            }
            entered = handled;
        }
    }
}

/// Does what one exit asks for.
#[inline]
fn step<B: Board>(exit: Exit<'_>, board: &mut B) -> (Cause, Option<End>) {
    match exit {
        Exit::Out { port, data } => ring(port, data, board),
        Exit::In { data, .. } => {
            data.fill(0xff);
            (Cause::PortIn, None)
        }
        Exit::MmioRead { address, data } => {
            board.mmio_read(address, data);
            (Cause::MmioRead, None)
        }
        Exit::MmioWrite { address, data } => {
            board.mmio_write(address, data);
            (Cause::MmioWrite, None)
        }
        Exit::Halt if board.halt() => (Cause::Halt, board.stopped().then_some(End::Stopped)),
        Exit::Halt => (Cause::Halt, Some(last(board, End::Halted))),
        Exit::Shutdown => (Cause::Shutdown, Some(last(board, End::TripleFault))),
        Exit::Interrupted => {
            board.hold();
            let end = match (board.stopped(), board.asked()) {
                (true, _) => Some(End::Stopped),
                (false, true) => Some(End::Asked),
                (false, false) => None,
            };
            (Cause::Interrupted, end)
        }
        Exit::EntryFailed { reason } => (Cause::Failure, Some(last(board, End::EntryFailed { reason }))),
        Exit::Broken(broken) => (Cause::Failure, Some(last(board, End::Broken(broken)))),
    }
}

/// The end of a guest that did not choose it: what it said before is not lost.
fn last<B: Board>(board: &mut B, end: End) -> End {
    board.drain();
    end
}

/// A write to a port: a doorbell, or nothing.
#[inline]
fn ring<B: Board>(port: u16, data: &[u8], board: &mut B) -> (Cause, Option<End>) {
    let mut value = [0; 4];
    let len = data.len().min(4);
    value[..len].copy_from_slice(&data[..len]);
    let value = u32::from_le_bytes(value);
    match port {
        doorbell::NOP => (Cause::Nop, None),
        doorbell::WAIT => {
            let ns = mailbox_u64(board, 0).unwrap_or(u64::MAX);
            board.wait((ns != u64::MAX).then(|| Duration::from_nanos(ns)));
            (Cause::Wait, board.stopped().then_some(End::Stopped))
        }
        doorbell::EXIT => {
            board.drain();
            // Whoever stopped the guest while its output was under way did not see all of it.
            let end = if board.stopped() {
                End::Stopped
            } else {
                End::Exit(value)
            };
            (Cause::End, Some(end))
        }
        doorbell::PANIC => {
            board.drain();
            (
                Cause::Panic,
                Some(End::Panic {
                    message: mailbox_text(board),
                }),
            )
        }
        doorbell::TRAP => {
            board.drain();
            let frame = trap_frame(board.memory(), u64::from(value));
            (Cause::Trap, Some(frame.map_or(End::TripleFault, End::Trap)))
        }
        doorbell::LOG => {
            let level = mailbox_u32(board, 12)
                .and_then(LogLevel::from_u32)
                .unwrap_or(LogLevel::Info);
            let text = mailbox_text(board);
            board.log(level, &text);
            (Cause::Log, None)
        }
        doorbell::START => {
            board.start(value);
            (Cause::Start, None)
        }
        doorbell::PARK => {
            let end = if board.stopped() { End::Stopped } else { End::Parked };
            (Cause::Park, Some(end))
        }
        doorbell::CALL => {
            board.drain();
            let end = if board.stopped() {
                End::Stopped
            } else {
                End::Called(value)
            };
            (Cause::Call, Some(end))
        }
        doorbell::WAKE => {
            board.wake(value);
            (Cause::Wake, None)
        }
        _ => {
            let device = usize::from(port.wrapping_sub(doorbell::KICK)) / 4;
            if port >= doorbell::KICK && port.is_multiple_of(4) && device < map::DEVICE_MAX {
                board.kick(device);
                (Cause::Kick, None)
            } else {
                (Cause::PortOut, None)
            }
        }
    }
}

fn mailbox_u32(board: &impl Board, offset: usize) -> Option<u32> {
    let window = board.memory().window(board.mailbox(), map::PAGE as usize)?;
    Some(window.read_u32(offset))
}

fn mailbox_u64(board: &impl Board, offset: usize) -> Option<u64> {
    let (low, high) = (mailbox_u32(board, offset)?, mailbox_u32(board, offset + 4)?);
    Some(u64::from(low) | u64::from(high) << 32)
}

fn mailbox_text(board: &impl Board) -> String {
    let mut text = [0; MAILBOX_TEXT];
    let len = (mailbox_u32(board, 8).unwrap_or(0) as usize).min(MAILBOX_TEXT);
    if let Some(window) = board.memory().window(board.mailbox() + 24, len) {
        window.read(0, &mut text[..len]);
    }
    printable(&String::from_utf8_lossy(&text[..len]))
}

/// The text with control characters escaped, so that it does nothing to a terminal; lines stay.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

fn trap_frame(memory: &dyn GuestMemory, address: u64) -> Option<TrapFrame> {
    let mut bytes = [0; TrapFrame::SIZE];
    memory.window(address, TrapFrame::SIZE)?.read(0, &mut bytes);
    Some(TrapFrame::from_bytes(&bytes))
}

#[cfg(test)]
mod tests;
