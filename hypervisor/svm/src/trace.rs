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

impl fmt::Display for Trace<'_> {
    /// One line: the exit code, what it was about, where the guest is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}: {}", self.number, Summary(self.vmcb))?;
        write!(f, " at {:#x}", self.registers.rip)
    }
}
