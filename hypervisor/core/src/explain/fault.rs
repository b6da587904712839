//! An exception a guest did not handle, explained.

use core::fmt;

use chiton_shared::doorbell::TrapFrame;

use super::diagnosis::general;
use super::exception::PF;
use super::{Backtrace, Diagnosis, ErrorCode, Exception, Location, View};
use crate::boot::Place;

/// An exception a guest did not handle, explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault<'a> {
    /// Registers and what the processor pushed.
    pub frame: TrapFrame,
    /// Which exception.
    pub exception: Exception,
    /// Its error code.
    pub error: ErrorCode,
    /// For a page fault, the address and what it is.
    pub address: Option<(u64, Place)>,
    /// Where it happened.
    pub location: Location<'a>,
    /// What most likely went wrong.
    pub diagnosis: Diagnosis,
    /// Who called whom.
    pub backtrace: Backtrace<'a>,
}

impl Fault<'_> {
    /// The ring it happened in.
    #[must_use]
    pub const fn ring(&self) -> u64 {
        self.frame.cs & 3
    }
}

impl<'v> View<'v> {
    /// Explains the exception that left this frame.
    #[must_use]
    pub fn fault(&self, frame: &TrapFrame) -> Fault<'v> {
        Fault {
            frame: *frame,
            exception: Exception(frame.vector),
            error: ErrorCode::new(frame.vector, frame.error_code),
            address: (frame.vector == PF).then(|| (frame.cr2, self.world.describe(frame.cr2))),
            location: self.locate(frame.rip),
            diagnosis: Diagnosis::new(self, frame),
            backtrace: Backtrace::new(self, frame.rip, frame.rsp, frame.rbp),
        }
    }
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} in ring {}: {}", self.exception, self.ring(), self.diagnosis)?;
        writeln!(f, "  at        {:#x} in {}", self.frame.rip, self.location)?;
        if let Some((address, place)) = self.address {
            writeln!(f, "  address   {address:#x}: {place}")?;
        }
        if self.error != ErrorCode::None {
            writeln!(f, "  error     {}", self.error)?;
        }
        writeln!(f, "  registers")?;
        for row in general(&self.frame).as_chunks::<4>().0 {
            f.write_str(" ")?;
            for (name, value) in row {
                write!(f, " {name:>5} {value:016x}")?;
            }
            writeln!(f)?;
        }
        let TrapFrame {
            rip, rflags, cs, ss, ..
        } = self.frame;
        writeln!(
            f,
            "    rip {rip:016x} flags {rflags:016x}    cs {cs:016x}    ss {ss:016x}"
        )?;
        write!(f, "  backtrace\n{}", self.backtrace)
    }
}
