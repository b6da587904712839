//! What is told of an exit as it happens.

use core::fmt;

use chiton_core::svm::VmcbRead;
use chiton_core::svm::information::Summary;
use chiton_core::vcpu::Registers;

/// An exit, before it is handled.
pub struct Trace<'a> {
    /// How many exits there were before it.
    pub number: u64,
    /// The guest's general registers.
    pub registers: &'a Registers,
    /// The VMCB, for whoever wants to know more.
    pub vmcb: &'a dyn VmcbRead,
}

impl Trace<'_> {
    /// The line about it, for a guest that is at `place`: the exit code, and what it was about.
    pub fn at<'t>(&'t self, place: &'t dyn fmt::Display) -> impl fmt::Display + 't {
        fmt::from_fn(move |f| write!(f, "exit {} at {place}: {}", self.number, Summary(self.vmcb)))
    }
}
