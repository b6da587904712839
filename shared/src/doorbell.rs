//! Doorbells: I/O ports that a guest writes to get the host's attention, one exit each.
//!
//! The TSS opens these ports to ring 3, and no others; where a processor goes by IOPL instead, the
//! others lead nowhere. Every doorbell is a 32-bit write; what does not fit into 32 bits stands in
//! the [`Mailbox`].

use crate::{interrupts, map};

/// End the guest. Value: the exit code, of which the low 8 bits reach the caller's shell.
///
/// Before a guest ends, here or by [`PANIC`], the host works on every queue, kicked or not: output
/// that is in a queue is not lost.
pub const EXIT: u16 = 0xC00;

/// Sleep until a virtqueue the guest watches has news, or until [`Mailbox::wait_ns`] have passed.
///
/// "News" is a used-buffer notification by the rules of virtio (flags or event index) since the
/// previous wait returned; so a guest that arms a queue, looks at it once more and then waits
/// cannot miss a completion.
///
/// Before it sleeps, the host works on every queue that has buffers, kicked or not: a guest that
/// is about to wait need not kick. Value: ignored.
pub const WAIT: u16 = 0xC04;

/// The guest panicked: [`Mailbox::text`] has the message, [`Mailbox::detail`] the line number of
/// the place. The guest does not run on. Value: ignored.
pub const PANIC: u16 = 0xC08;

/// A trap stub reports an exception. Value: guest-physical address of the
/// [`TrapFrame`]. The guest does not run on.
pub const TRAP: u16 = 0xC0C;

/// One log line: [`Mailbox::text`] is the message, [`Mailbox::detail`] its [`LogLevel`].
/// Value: ignored.
pub const LOG: u16 = 0xC10;

/// Do nothing, and come back: the cost of one exit to the host. Value: ignored.
pub const NOP: u16 = 0xC14;

/// Start a [processor](crate::processor): value is its number, 1 or more. Its mailbox has the address
/// of the first instruction in [`Mailbox::text`], 8 bytes, then 8 bytes for `RDI`; `RSP` is the end
/// of its stack less 8, as after a call. A processor that still runs starts when it has
/// [parked](PARK), once; what else cannot be has no effect but a line in the log.
pub const START: u16 = 0xC18;

/// The processor that rings it has nothing more to do, until it is [started](START) again. Value:
/// ignored. Processor 0 cannot park: the guest ends as by `hlt`.
pub const PARK: u16 = 0xC1C;

/// Have the processor of this number come back from [`WAIT`], now or the next time it waits. In a guest
/// with [interrupts] it also gets [`IPI`](interrupts::IPI), which ends a halt.
pub const WAKE: u16 = 0xC20;

/// The guest is ready for a [call](crate::call), or has replied to one, as the
/// [`Call`](crate::call::Call) in its mailbox says; it comes back with the next request. Value: ignored
/// the first time, then 0 for a reply, or a number of the guest's own for a failure, with the reply for
/// words. Processor 0 only; whoever runs the guest without calling it ends it here.
pub const CALL: u16 = 0xC24;

/// First of the queue doorbells: a write to `KICK + n` tells device `n` that a queue of its own
/// has new buffers. Value: the queue's index, as in the register
/// [`QueueNotify`](crate::virtio::mmio::Register::QueueNotify).
pub const KICK: u16 = 0xC40;

/// The doorbell of device number `index`.
///
/// # Panics
///
/// If `index` is not below [`map::DEVICE_MAX`].
#[must_use]
pub const fn kick(index: usize) -> u16 {
    assert!(index < map::DEVICE_MAX);
    KICK + 4 * index as u16
}

/// How many bytes of text the mailbox holds.
pub const MAILBOX_TEXT: usize = interrupts::AREA - 24;

/// Offset of the mailbox's text, in bytes.
pub const MAILBOX_TEXT_OFFSET: usize = core::mem::offset_of!(Mailbox, text);

/// The page in which a processor leaves what does not fit a doorbell's value: at [`map::MAILBOX`] for
/// processor 0, in its [block](crate::processor) for any other.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Mailbox {
    /// For [`WAIT`]: how long at the most, in nanoseconds; [`u64::MAX`] is for ever.
    pub wait_ns: u64,
    /// Length of `text` in bytes; greater values mean [`MAILBOX_TEXT`].
    pub len: u32,
    /// For [`LOG`] the level, for [`PANIC`] the line number.
    pub detail: u32,
    /// The number of the processor whose mailbox it is. The host writes it before the start.
    pub processor: u64,
    /// UTF-8 text; the host replaces what is not.
    pub text: [u8; MAILBOX_TEXT],
    /// What interrupts leave behind; zero in a guest without.
    pub interrupts: interrupts::Area,
}

/// How important a log line is, in the numbering of the `log` crate.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed.
    Error = 1,
    /// Something is wrong and the guest goes on.
    Warn = 2,
    /// Worth knowing.
    Info = 3,
    /// For whoever mends the guest.
    Debug = 4,
    /// Every step.
    Trace = 5,
}

impl LogLevel {
    /// The level with this number, if there is one.
    #[must_use]
    pub const fn from_u32(level: u32) -> Option<Self> {
        Some(match level {
            1 => Self::Error,
            2 => Self::Warn,
            3 => Self::Info,
            4 => Self::Debug,
            5 => Self::Trace,
            _ => return None,
        })
    }

    /// The level in a word, as it stands before a line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What a trap stub leaves on its stack before it rings [`TRAP`], lowest address first: the
/// registers, then the vector, then what the processor pushes (SDM volume 3A, section 7.14.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrapFrame {
    /// CR2: the address of the last page fault.
    pub cr2: u64,
    /// General registers.
    pub r15: u64,
    /// See `r15`.
    pub r14: u64,
    /// See `r15`.
    pub r13: u64,
    /// See `r15`.
    pub r12: u64,
    /// See `r15`.
    pub r11: u64,
    /// See `r15`.
    pub r10: u64,
    /// See `r15`.
    pub r9: u64,
    /// See `r15`.
    pub r8: u64,
    /// See `r15`.
    pub rbp: u64,
    /// See `r15`.
    pub rdi: u64,
    /// See `r15`.
    pub rsi: u64,
    /// See `r15`.
    pub rdx: u64,
    /// See `r15`.
    pub rcx: u64,
    /// See `r15`.
    pub rbx: u64,
    /// See `r15`.
    pub rax: u64,
    /// Vector of the exception, 0 to 31.
    pub vector: u64,
    /// Error code, zero for exceptions without one.
    pub error_code: u64,
    /// Where it happened.
    pub rip: u64,
    /// Code segment; its low two bits are the ring.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment.
    pub ss: u64,
}

impl TrapFrame {
    /// Size of the frame in guest memory, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads a frame from its bytes in guest memory.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let word = |i: usize| {
            let mut b = [0; 8];
            b.copy_from_slice(&bytes[i * 8..i * 8 + 8]);
            u64::from_le_bytes(b)
        };
        Self {
            cr2: word(0),
            r15: word(1),
            r14: word(2),
            r13: word(3),
            r12: word(4),
            r11: word(5),
            r10: word(6),
            r9: word(7),
            r8: word(8),
            rbp: word(9),
            rdi: word(10),
            rsi: word(11),
            rdx: word(12),
            rcx: word(13),
            rbx: word(14),
            rax: word(15),
            vector: word(16),
            error_code: word(17),
            rip: word(18),
            cs: word(19),
            rflags: word(20),
            rsp: word(21),
            ss: word(22),
        }
    }
}

const _: () = {
    assert!(size_of::<Mailbox>() == 4096);
    assert!(core::mem::offset_of!(Mailbox, text) == 24);
    assert!(core::mem::offset_of!(Mailbox, interrupts) == interrupts::AREA);
    assert!(size_of::<TrapFrame>() == 23 * 8);
    assert!(core::mem::offset_of!(TrapFrame, vector) == 16 * 8);
    assert!(core::mem::offset_of!(TrapFrame, ss) == 22 * 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_in_the_order_the_processor_pushed_it() {
        let mut bytes = [0; TrapFrame::SIZE];
        for (i, word) in bytes.chunks_mut(8).enumerate() {
            word.copy_from_slice(&(i as u64).to_le_bytes());
        }
        let frame = TrapFrame::from_bytes(&bytes);
        assert_eq!((frame.cr2, frame.rax, frame.vector, frame.ss), (0, 15, 16, 22));
    }

    #[test]
    fn doorbells_are_apart() {
        assert!(kick(0) > NOP && kick(map::DEVICE_MAX - 1) - kick(0) == 60);
    }
}
