//! A full report of an exit, for those that nobody handles: why, what about, and where the guest was.

use core::fmt;

use super::event::Event;
use super::exit::Reason;
use super::fields::*;
use super::instruction::Operands;
use super::qualification::Qualification;
use super::{VmcsFields, VmcsRead};

/// The last exit of a VMCS, to be told.
#[derive(Clone, Copy)]
pub struct Report<'a>(pub &'a dyn VmcsRead);

impl Report<'_> {
    /// Why it was.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason(self.0.get(EXIT_REASON))
    }

    /// What it was about.
    #[must_use]
    pub fn qualification(&self) -> Qualification {
        let event = Event(self.0.get(EXIT_INTERRUPTION_INFORMATION));
        Qualification::new(self.reason(), self.0.get(EXIT_QUALIFICATION), event)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vmcs = self.0;
        let reason = self.reason();
        let basic = reason.basic();
        let qualification = vmcs.get(EXIT_QUALIFICATION);
        writeln!(f, "VM exit {}: {reason}", basic.0)?;
        writeln!(f, "  qualification    {qualification:#x}: {}", self.qualification())?;
        let exiting = Event(vmcs.get(EXIT_INTERRUPTION_INFORMATION));
        // Of the two events, the processor writes the error codes only where it says so.
        if exiting.is_valid() && !reason.is_entry_failure() {
            writeln!(
                f,
                "  event            {}",
                exiting.with(vmcs.get(EXIT_INTERRUPTION_ERROR_CODE))
            )?;
        }
        let delivered = Event(vmcs.get(IDT_VECTORING_INFORMATION));
        if delivered.is_valid() && !reason.is_entry_failure() {
            writeln!(
                f,
                "  while delivering {}",
                delivered.with(vmcs.get(IDT_VECTORING_ERROR_CODE))
            )?;
        }
        if basic.has_instruction_length() {
            writeln!(f, "  instruction      {} bytes", vmcs.get(EXIT_INSTRUCTION_LENGTH))?;
        }
        if let Some(operands) = Operands::new(basic, vmcs.get(EXIT_INSTRUCTION_INFORMATION), qualification) {
            writeln!(f, "  operands         {operands}")?;
        }
        writeln!(f, "  guest-linear     {:#x}", vmcs.get(GUEST_LINEAR_ADDRESS))?;
        writeln!(f, "  guest-physical   {:#x}", vmcs.get(GUEST_PHYSICAL_ADDRESS))?;
        writeln!(
            f,
            "  RIP {:#018x}  RSP {:#018x}  RFLAGS {:#x}",
            vmcs.get(GUEST_RIP),
            vmcs.get(GUEST_RSP),
            vmcs.get(GUEST_RFLAGS)
        )?;
        writeln!(
            f,
            "  CR0 {:#x}  CR3 {:#x}  CR4 {:#x}  EFER {:#x}",
            vmcs.get(GUEST_CR0),
            vmcs.get(GUEST_CR3),
            vmcs.get(GUEST_CR4),
            vmcs.get(GUEST_EFER)
        )?;
        writeln!(
            f,
            "  CS {:#x} base {:#x} rights {:#x}  SS {:#x} base {:#x} rights {:#x}",
            vmcs.get(GUEST_CS_SELECTOR),
            vmcs.get(GUEST_CS_BASE),
            vmcs.get(GUEST_CS_ACCESS_RIGHTS),
            vmcs.get(GUEST_SS_SELECTOR),
            vmcs.get(GUEST_SS_BASE),
            vmcs.get(GUEST_SS_ACCESS_RIGHTS)
        )?;
        writeln!(
            f,
            "  activity {}, interruptibility {:#x}, pending debug exceptions {:#x}",
            activity_name(vmcs.get(GUEST_ACTIVITY_STATE)),
            vmcs.get(GUEST_INTERRUPTIBILITY_STATE),
            vmcs.get(GUEST_PENDING_DEBUG_EXCEPTIONS)
        )
    }
}

/// The name of an activity state (SDM volume 3C, section 26.4.2).
pub(super) const fn activity_name(state: u32) -> &'static str {
    match state {
        0 => "active",
        1 => "HLT",
        2 => "shutdown",
        3 => "wait-for-SIPI",
        _ => "(reserved)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::PlainVmcs;

    #[test]
    fn an_exit_is_told_with_all_that_is_known_of_it() {
        let vmcs = PlainVmcs::default()
            .with(EXIT_REASON, 48)
            .with(EXIT_QUALIFICATION, 0x182)
            .with(GUEST_PHYSICAL_ADDRESS, 0xfee0_0000)
            .with(GUEST_LINEAR_ADDRESS, 0x1_fee0_0000)
            .with(IDT_VECTORING_INFORMATION, 0x8000_0b0d)
            .with(IDT_VECTORING_ERROR_CODE, 0x10)
            .with(GUEST_RIP, 0x20_1000);
        let report = Report(&vmcs).to_string();
        for line in [
            "VM exit 48: EPT violation\n",
            "  qualification    0x182: write where nothing is mapped\n",
            "  while delivering general protection fault (#GP), error code 0x10",
            "  guest-physical   0xfee00000\n",
            "  RIP 0x0000000000201000",
            "  activity active,",
        ] {
            assert!(report.contains(line), "{line}\n{report}");
        }
        assert!(!report.contains("operands") && !report.contains("event "), "{report}");
    }

    #[test]
    fn a_descriptor_table_exit_tells_its_operands() {
        let vmcs = PlainVmcs::default()
            .with(EXIT_REASON, 46)
            .with(EXIT_INSTRUCTION_LENGTH, 3)
            .with(EXIT_INSTRUCTION_INFORMATION, 3 << 28 | 1 << 22 | 3 << 15 | 2 << 7);
        let report = Report(&vmcs).to_string();
        assert!(report.contains("  operands         LIDT DS:[RAX]\n"), "{report}");
        assert!(report.contains("  instruction      3 bytes\n"), "{report}");
    }
}
