//! What is told of an exit as it happens.

use core::fmt;

use chiton_core::vcpu::Registers;
use chiton_core::vmx::VmcsRead;
use chiton_core::vmx::report::Report;

/// An exit, before it is handled.
pub struct Trace<'a> {
    /// How many exits there were before it.
    pub number: u64,
    /// The guest's general registers.
    pub registers: &'a Registers,
    /// The VMCS, for whoever wants to know more.
    pub vmcs: &'a dyn VmcsRead,
}

impl Trace<'_> {
    /// The line about it, for a guest that is at `place`: the reason, and what its qualification means.
    pub fn at<'t>(&'t self, place: &'t dyn fmt::Display) -> impl fmt::Display + 't {
        let report = Report(self.vmcs);
        fmt::from_fn(move |f| {
            let (reason, qualification) = (report.reason(), report.qualification());
            write!(f, "exit {} at {place}: {reason}: {qualification}", self.number)
        })
    }
}
