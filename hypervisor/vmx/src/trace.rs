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

impl fmt::Display for Trace<'_> {
    /// One line: the reason, what its qualification means, where the guest is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = Report(self.vmcs);
        let (reason, qualification) = (report.reason(), report.qualification());
        write!(
            f,
            "exit {} at {:#x}: {reason}: {qualification}",
            self.number, self.registers.rip
        )
    }
}
