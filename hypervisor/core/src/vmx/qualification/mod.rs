//! What an exit was about: the exit qualification, decoded in words (SDM volume 3C, section 29.2.1).

mod memory;
mod registers;

use core::fmt;

pub use memory::{ApicAccess, EptViolation};
pub use registers::{ControlRegister, DebugRegister, Port};

use super::event::Event;
use super::exit::{Basic, Reason};

/// An exit qualification, which means something else for each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qualification {
    /// It means nothing; it is 0.
    Nothing,
    /// A debug exception (table 29-1).
    Debug(Debug),
    /// A page fault: the linear address, which is not in CR2.
    PageFault(u64),
    /// A start-up IPI: its vector.
    StartUp(u8),
    /// A task switch (table 29-2).
    TaskSwitch(TaskSwitch),
    /// INVLPG: the linear address.
    InvalidatePage(u64),
    /// The displacement of a memory operand; the rest is in the instruction information.
    Displacement(u64),
    /// Access to a control register.
    ControlRegister(ControlRegister),
    /// Access to a debug register.
    DebugRegister(DebugRegister),
    /// An I/O instruction, or the SMI that came upon one.
    Port(Port),
    /// MWAIT: whether something is monitored.
    Mwait(bool),
    /// The guest state is invalid.
    GuestState(GuestState),
    /// The entry of the VM-entry MSR-load area that could not be loaded, counted from 1.
    MsrEntry(u64),
    /// Access to the APIC-access page.
    ApicAccess(ApicAccess),
    /// The end of a virtual interrupt: its vector.
    VirtualizedEoi(u8),
    /// A write to the virtual-APIC page: its offset.
    ApicWrite(u16),
    /// Access to memory that the second-level tables do not allow.
    EptViolation(EptViolation),
    /// The log is full, whether IRET had unblocked NMIs.
    LogFull(bool),
    /// Sub-page permissions: a miss, or a misconfiguration.
    SubPage(bool),
    /// An instruction took too long, whether what it left is invalid.
    Timeout(bool),
    /// Of RDMSRLIST, WRMSRLIST and the instructions on one MSR with an immediate operand: the register.
    Msr(u64),
}

impl Qualification {
    /// Decodes it for an exit. `event` is the VM-exit interruption information.
    #[must_use]
    pub const fn new(reason: Reason, qualification: u64, event: Event) -> Self {
        let byte = (qualification & 0xff) as u8;
        let unblocked_nmi = qualification >> 12 & 1 != 0;
        match reason.basic() {
            Basic::EXCEPTION_OR_NMI => match (event.is_valid(), event.vector()) {
                (true, 1) => Self::Debug(Debug(qualification)),
                (true, 14) => Self::PageFault(qualification),
                _ => Self::Nothing,
            },
            Basic::START_UP_IPI => Self::StartUp(byte),
            Basic::TASK_SWITCH => Self::TaskSwitch(TaskSwitch::new(qualification)),
            Basic::INVLPG => Self::InvalidatePage(qualification),
            Basic::INVEPT
            | Basic::INVPCID
            | Basic::INVVPID
            | Basic::GDTR_OR_IDTR
            | Basic::LDTR_OR_TR
            | Basic::VMCLEAR
            | Basic::VMPTRLD
            | Basic::VMPTRST
            | Basic::VMREAD
            | Basic::VMWRITE
            | Basic::VMXON
            | Basic::XRSTORS
            | Basic::XSAVES => Self::Displacement(qualification),
            Basic::CONTROL_REGISTER => Self::ControlRegister(ControlRegister::new(qualification)),
            Basic::MOV_DR => Self::DebugRegister(DebugRegister::new(qualification)),
            Basic::IO_INSTRUCTION | Basic::IO_SMI => Self::Port(Port::new(qualification)),
            Basic::MWAIT => Self::Mwait(qualification & 1 != 0),
            Basic::ENTRY_FAILURE_GUEST_STATE => Self::GuestState(GuestState(qualification)),
            Basic::ENTRY_FAILURE_MSR_LOADING => Self::MsrEntry(qualification),
            Basic::APIC_ACCESS => Self::ApicAccess(ApicAccess::new(qualification)),
            Basic::VIRTUALIZED_EOI => Self::VirtualizedEoi(byte),
            Basic::APIC_WRITE => Self::ApicWrite((qualification & 0xfff) as u16),
            Basic::EPT_VIOLATION => Self::EptViolation(EptViolation(qualification)),
            Basic::PML_FULL => Self::LogFull(unblocked_nmi),
            Basic::SUB_PAGE_PERMISSION => Self::SubPage(qualification >> 11 & 1 != 0),
            Basic::INSTRUCTION_TIMEOUT => Self::Timeout(qualification & 1 != 0),
            Basic::RDMSRLIST | Basic::WRMSRLIST | Basic::RDMSR_IMMEDIATE | Basic::WRMSRNS_IMMEDIATE => {
                Self::Msr(qualification)
            }
            _ => Self::Nothing,
        }
    }
}

impl fmt::Display for Qualification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Nothing => f.write_str("none"),
            Self::Debug(debug) => write!(f, "{debug}"),
            Self::PageFault(address) => write!(f, "linear address {address:#x}"),
            Self::StartUp(vector) => write!(
                f,
                "vector {vector:#x}: the processor starts at {:#x}",
                u32::from(vector) << 12
            ),
            Self::TaskSwitch(switch) => write!(f, "{switch}"),
            Self::InvalidatePage(address) => write!(f, "linear address {address:#x}"),
            Self::Displacement(displacement) => write!(f, "displacement {displacement:#x}"),
            Self::ControlRegister(access) => write!(f, "{access}"),
            Self::DebugRegister(access) => write!(f, "{access}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::Mwait(true) => f.write_str("an address is monitored"),
            Self::Mwait(false) => f.write_str("nothing is monitored"),
            Self::GuestState(state) => write!(f, "{state}"),
            Self::MsrEntry(entry) => write!(f, "entry {entry} of the VM-entry MSR-load area, counted from 1"),
            Self::ApicAccess(access) => write!(f, "{access}"),
            Self::VirtualizedEoi(vector) => write!(f, "vector {vector:#x}"),
            Self::ApicWrite(offset) => write!(f, "offset {offset:#x}"),
            Self::EptViolation(violation) => write!(f, "{violation}"),
            Self::LogFull(true) => f.write_str("IRET had unblocked NMIs"),
            Self::LogFull(false) => f.write_str("the write was not logged and will be done again"),
            Self::SubPage(true) => f.write_str("a sub-page table is missing"),
            Self::SubPage(false) => f.write_str("a sub-page table is misconfigured"),
            Self::Timeout(true) => f.write_str("the guest's context is invalid"),
            Self::Timeout(false) => f.write_str("the guest's context is valid"),
            Self::Msr(register) => write!(f, "register {register:#x}"),
        }
    }
}

/// A debug exception (SDM volume 3C, table 29-1): the bits that DR6 would have, which it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debug(pub u64);

impl fmt::Display for Debug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CAUSES: [(u32, &str); 8] = [
            (0, "breakpoint 0"),
            (1, "breakpoint 1"),
            (2, "breakpoint 2"),
            (3, "breakpoint 3"),
            (11, "bus lock"),
            (13, "access to a debug register"),
            (14, "single step"),
            (16, "in a transactional region"),
        ];
        let mut between = "";
        for (bit, cause) in CAUSES {
            if self.0 >> bit & 1 != 0 {
                write!(f, "{between}{cause}")?;
                between = ", ";
            }
        }
        if between.is_empty() {
            f.write_str("no cause")
        } else {
            Ok(())
        }
    }
}

/// A task switch (SDM volume 3C, table 29-2). VMX does none by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSwitch {
    /// Selector of the new task.
    pub selector: u16,
    /// CALL 0, IRET 1, JMP 2, task gate in the IDT 3.
    pub source: u8,
}

impl TaskSwitch {
    /// Decodes the qualification.
    #[must_use]
    pub const fn new(qualification: u64) -> Self {
        Self {
            selector: (qualification & 0xffff) as u16,
            source: (qualification >> 30 & 3) as u8,
        }
    }
}

impl fmt::Display for TaskSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            0 => "CALL",
            1 => "IRET",
            2 => "JMP",
            _ => "a task gate in the IDT",
        };
        write!(f, "to task {:#x} by {source}", self.selector)
    }
}

/// What a failed VM entry says of an invalid guest state (SDM volume 3C, section 28.8). The processor
/// tells no more; [`check`](super::check) does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestState(pub u64);

impl fmt::Display for GuestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("the processor does not say what"),
            2 => f.write_str("the page-directory-pointer-table entries"),
            3 => f.write_str("an NMI is injected while events are blocked by STI"),
            4 => f.write_str("the VMCS link pointer"),
            other => write!(f, "for the undocumented reason {other}"),
        }
    }
}

#[cfg(test)]
mod tests;
