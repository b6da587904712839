//! How a guest ended, in a form for programs and in words for people.

use std::time::Duration;

use chiton_core::exits::ExitTable;
use chiton_core::machine::status;

use crate::kernel_stats::KernelStat;
use crate::timeline::Timeline;

/// What is left of a guest.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// Its exits to this process.
    pub exits: ExitTable,
    /// Kicks that the kernel took without an exit to this process.
    pub kicks: u64,
    /// The kernel's count of exits and more, where it has one.
    pub kernel: Vec<KernelStat>,
    /// Requests that a device answered with a failure.
    pub device_failures: u64,
    /// The phases of its start, and its run.
    pub timeline: Timeline,
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Exit(u32),
    /// By a panic.
    Panic {
        /// Its words, with the place.
        message: String,
        /// Where it was, as lines for people.
        place: String,
    },
    /// By an exception or something else it may not do; the report says which and where.
    Fault {
        /// Lines for people.
        report: String,
    },
    /// It ran out of time.
    Timeout {
        /// How much it had.
        limit: Duration,
        /// Where it was, as lines for people.
        place: String,
    },
    /// It was asked to end through its control, and did not in time.
    NotStopped {
        /// How much it had.
        limit: Duration,
        /// Where it was, as lines for people.
        place: String,
    },
    /// A snapshot was taken of it, from which it goes on elsewhere.
    Snapshot,
    /// This signal to the host process ended it.
    Signal(i32),
    /// Nobody read its output any more.
    OutputClosed,
    /// The host could not go on doing this, for this reason: a full disk under the output, say.
    HostFailed {
        /// What could not be done.
        doing: &'static str,
        /// The reason, as the system's error number.
        errno: i32,
    },
}

impl Ending {
    /// The status for a shell: the guest's own code (its low 8 bits), 101 for a panic, 102 for a
    /// fault, 124 for a timeout of either kind, 125 if the host failed, 128 and the number for a signal; output that nobody reads counts
    /// as SIGPIPE.
    #[must_use]
    pub const fn status(&self) -> u8 {
        match self {
            Self::Exit(code) => *code as u8,
            Self::Snapshot => 0,
            Self::Panic { .. } => status::PANIC,
            Self::Fault { .. } => status::FAULT,
            Self::Timeout { .. } | Self::NotStopped { .. } => status::TIMEOUT,
            Self::Signal(signal) => 128_u8.wrapping_add(*signal as u8),
            Self::OutputClosed => 128 + libc::SIGPIPE as u8,
            Self::HostFailed { .. } => status::FAILED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_a_shell_expects() {
        assert_eq!(Ending::Exit(3).status(), 3);
        assert_eq!(Ending::Exit(256).status(), 0);
        assert_eq!(Ending::Signal(libc::SIGTERM).status(), 143);
        assert_eq!(Ending::OutputClosed.status(), 141);
    }
}
