//! Why a VM exit happened: the exit-reason field (SDM volume 3C, section 26.9.1), and every basic
//! exit reason by name (SDM volume 3D, appendix C).

use core::fmt;

/// A basic exit reason: bits 15:0 of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Basic(pub u16);

/// Declares the basic exit reasons: a constant for each, and the list of all.
macro_rules! reasons {
    ($($number:literal $reason:ident $name:literal)*) => {
        #[allow(missing_docs, reason = "appendix C says what they are")]
        impl Basic {
            $(pub const $reason: Self = Self($number);)*

            /// All of them, in their order; numbers that are missing are reserved.
            pub const ALL: &[Self] = &[$(Self($number)),*];

            /// Its name, if it has one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    0 EXCEPTION_OR_NMI "exception or NMI"
    1 EXTERNAL_INTERRUPT "external interrupt"
    2 TRIPLE_FAULT "triple fault"
    3 INIT_SIGNAL "INIT signal"
    4 START_UP_IPI "start-up IPI (SIPI)"
    5 IO_SMI "I/O system-management interrupt"
    6 OTHER_SMI "other SMI"
    7 INTERRUPT_WINDOW "interrupt window"
    8 NMI_WINDOW "NMI window"
    9 TASK_SWITCH "task switch"
    10 CPUID "CPUID"
    11 GETSEC "GETSEC"
    12 HLT "HLT"
    13 INVD "INVD"
    14 INVLPG "INVLPG"
    15 RDPMC "RDPMC"
    16 RDTSC "RDTSC"
    17 RSM "RSM"
    18 VMCALL "VMCALL"
    19 VMCLEAR "VMCLEAR"
    20 VMLAUNCH "VMLAUNCH"
    21 VMPTRLD "VMPTRLD"
    22 VMPTRST "VMPTRST"
    23 VMREAD "VMREAD"
    24 VMRESUME "VMRESUME"
    25 VMWRITE "VMWRITE"
    26 VMXOFF "VMXOFF"
    27 VMXON "VMXON"
    28 CONTROL_REGISTER "control-register access"
    29 MOV_DR "MOV DR"
    30 IO_INSTRUCTION "I/O instruction"
    31 RDMSR "RDMSR"
    32 WRMSR "WRMSR"
    33 ENTRY_FAILURE_GUEST_STATE "VM-entry failure due to invalid guest state"
    34 ENTRY_FAILURE_MSR_LOADING "VM-entry failure due to MSR loading"
    36 MWAIT "MWAIT"
    37 MONITOR_TRAP_FLAG "monitor trap flag"
    39 MONITOR "MONITOR"
    40 PAUSE "PAUSE"
    41 ENTRY_FAILURE_MACHINE_CHECK "VM-entry failure due to machine-check event"
    43 TPR_BELOW_THRESHOLD "TPR below threshold"
    44 APIC_ACCESS "APIC access"
    45 VIRTUALIZED_EOI "virtualized EOI"
    46 GDTR_OR_IDTR "access to GDTR or IDTR"
    47 LDTR_OR_TR "access to LDTR or TR"
    48 EPT_VIOLATION "EPT violation"
    49 EPT_MISCONFIGURATION "EPT misconfiguration"
    50 INVEPT "INVEPT"
    51 RDTSCP "RDTSCP"
    52 PREEMPTION_TIMER_EXPIRED "VMX-preemption timer expired"
    53 INVVPID "INVVPID"
    54 WBINVD "WBINVD or WBNOINVD"
    55 XSETBV "XSETBV"
    56 APIC_WRITE "APIC write"
    57 RDRAND "RDRAND"
    58 INVPCID "INVPCID"
    59 VMFUNC "VMFUNC"
    60 ENCLS "ENCLS"
    61 RDSEED "RDSEED"
    62 PML_FULL "page-modification log full"
    63 XSAVES "XSAVES"
    64 XRSTORS "XRSTORS"
    65 PCONFIG "PCONFIG"
    66 SUB_PAGE_PERMISSION "SPP-related event"
    67 UMWAIT "UMWAIT"
    68 TPAUSE "TPAUSE"
    69 LOADIWKEY "LOADIWKEY"
    70 ENCLV "ENCLV"
    72 ENQCMD_PASID "ENQCMD PASID translation failure"
    73 ENQCMDS_PASID "ENQCMDS PASID translation failure"
    74 BUS_LOCK "bus lock"
    75 INSTRUCTION_TIMEOUT "instruction timeout"
    76 SEAMCALL "SEAMCALL"
    77 TDCALL "TDCALL"
    78 RDMSRLIST "RDMSRLIST"
    79 WRMSRLIST "WRMSRLIST"
    80 URDMSR "URDMSR"
    81 UWRMSR "UWRMSR"
    84 RDMSR_IMMEDIATE "RDMSR with an immediate operand"
    85 WRMSRNS_IMMEDIATE "WRMSRNS with an immediate operand"
}

impl Basic {
    /// Whether the exit comes after the instruction that caused it, so that RIP is already at the next
    /// (SDM volume 3C, section 29.1: trap-like VM exits). At all others that an instruction causes,
    /// RIP is at that instruction.
    #[must_use]
    pub const fn is_trap_like(self) -> bool {
        matches!(
            self,
            Self::TPR_BELOW_THRESHOLD | Self::VIRTUALIZED_EOI | Self::APIC_WRITE | Self::BUS_LOCK
        )
    }

    /// Whether executing an instruction always, or by a control, causes it, so that the
    /// instruction-length field is valid (SDM volume 3C, section 29.2.5).
    #[must_use]
    pub const fn has_instruction_length(self) -> bool {
        matches!(self.0, 9..=32 | 36 | 39 | 40 | 46 | 47 | 50 | 51 | 53..=55 | 57..=61 | 63..=65 | 67..=70 | 72 | 73 | 76..=85)
    }
}

impl fmt::Display for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "reserved exit reason {}", self.0),
        }
    }
}

/// The exit-reason field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(pub u32);

impl Reason {
    /// The basic exit reason.
    #[must_use]
    pub const fn basic(self) -> Basic {
        Basic((self.0 & 0xffff) as u16)
    }

    /// The guest was never entered: bit 31.
    #[must_use]
    pub const fn is_entry_failure(self) -> bool {
        self.0 >> 31 != 0
    }

    /// What else the field says, in words, by bit.
    fn remarks(self) -> impl Iterator<Item = &'static str> {
        const REMARKS: [(u32, &str); 5] = [
            (25, "a shadow stack is prematurely busy"),
            (26, "a bus lock was asserted"),
            (27, "in enclave mode"),
            (28, "a monitor-trap-flag exit was pending"),
            (29, "from VMX root operation"),
        ];
        REMARKS
            .into_iter()
            .filter(move |(bit, _)| self.0 >> bit & 1 != 0)
            .map(|(_, words)| words)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.basic())?;
        for remark in self.remarks() {
            write!(f, ", {remark}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_appendix_c_has_a_name_of_its_own() {
        assert_eq!(Basic::ALL.len(), 80);
        for number in 0..=u16::MAX {
            assert_eq!(
                Basic(number).name().is_some(),
                Basic::ALL.contains(&Basic(number)),
                "{number}"
            );
        }
        // Reserved in appendix C.
        for number in [35, 38, 42, 71, 82, 83, 86, u16::MAX] {
            assert_eq!(Basic(number).to_string(), format!("reserved exit reason {number}"));
        }
    }

    #[test]
    fn the_upper_half_is_told_in_words() {
        assert_eq!(
            Reason(0x8000_0021).to_string(),
            "VM-entry failure due to invalid guest state"
        );
        assert!(Reason(0x8000_0021).is_entry_failure());
        assert_eq!(
            Reason(0x0400_0030).to_string(),
            "EPT violation, a bus lock was asserted"
        );
        assert_eq!(
            Reason(0x1800_0006).to_string(),
            "other SMI, in enclave mode, a monitor-trap-flag exit was pending"
        );
    }
}
