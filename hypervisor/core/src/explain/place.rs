//! Where a guest is that somebody else stopped.

use core::fmt;

use super::{Backtrace, Location, View};
use crate::boot::Place;
use crate::vcpu::Registers;

/// Where a guest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts<'a> {
    /// The function.
    pub location: Location<'a>,
    /// What lies at that address: code, if all is well.
    pub place: Place,
    /// Who called whom.
    pub backtrace: Backtrace<'a>,
}

impl<'v> View<'v> {
    /// Where the guest is, by its registers.
    #[must_use]
    pub fn place(&self, registers: &Registers) -> Whereabouts<'v> {
        Whereabouts {
            location: self.locate(registers.rip),
            place: self.world.describe(registers.rip),
            backtrace: Backtrace::new(self, registers.rip, registers.rsp, registers.rbp),
        }
    }
}

impl fmt::Display for Whereabouts<'_> {
    /// `at guest::main+0x12`, and the backtrace below.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}", self.location)?;
        if self.place != Place::Text {
            write!(f, ", {}", self.place)?;
        }
        write!(f, "\n  backtrace\n{}", self.backtrace)
    }
}
