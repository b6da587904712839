//! Why a VMX instruction failed: the VM-instruction error field (SDM volume 3C, section 32.4).

use core::fmt;

/// A VM-instruction error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionError(pub u32);

impl InstructionError {
    /// VM entry with invalid control fields.
    pub const INVALID_CONTROLS: Self = Self(7);
    /// VM entry with invalid host-state fields.
    pub const INVALID_HOST_STATE: Self = Self(8);

    /// What it means.
    #[must_use]
    pub const fn words(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "VMCALL executed in VMX root operation",
            2 => "VMCLEAR with invalid physical address",
            3 => "VMCLEAR with VMXON pointer",
            4 => "VMLAUNCH with non-clear VMCS",
            5 => "VMRESUME with non-launched VMCS",
            6 => "VMRESUME after VMXOFF",
            7 => "VM entry with invalid control field(s)",
            8 => "VM entry with invalid host-state field(s)",
            9 => "VMPTRLD with invalid physical address",
            10 => "VMPTRLD with VMXON pointer",
            11 => "VMPTRLD with incorrect VMCS revision identifier",
            12 => "VMREAD or VMWRITE from or to unsupported VMCS component",
            13 => "VMWRITE to read-only VMCS component",
            15 => "VMXON executed in VMX root operation",
            16 => "VM entry with invalid executive-VMCS pointer",
            17 => "VM entry with non-launched executive VMCS",
            18 => "VM entry with executive-VMCS pointer not VMXON pointer",
            19 => "VMCALL with non-clear VMCS",
            20 => "VMCALL with invalid VM-exit control fields",
            22 => "VMCALL with incorrect MSEG revision identifier",
            23 => "VMXOFF under dual-monitor treatment of SMIs and SMM",
            24 => "VMCALL with invalid SMM-monitor features",
            25 => "VM entry with invalid VM-execution control fields in executive VMCS",
            26 => "VM entry with events blocked by MOV SS",
            28 => "invalid operand to INVEPT or INVVPID",
            _ => return None,
        })
    }
}

impl fmt::Display for InstructionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            Some(words) => write!(f, "{words} (VM-instruction error {})", self.0),
            None => write!(f, "VM-instruction error {}, which the SDM does not have", self.0),
        }
    }
}

impl core::error::Error for InstructionError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_by_name_and_number() {
        assert_eq!(
            InstructionError::INVALID_CONTROLS.to_string(),
            "VM entry with invalid control field(s) (VM-instruction error 7)"
        );
        assert_eq!(
            (0..=40)
                .filter(|number| InstructionError(*number).words().is_some())
                .count(),
            25
        );
        assert_eq!(
            InstructionError(14).to_string(),
            "VM-instruction error 14, which the SDM does not have"
        );
    }
}
