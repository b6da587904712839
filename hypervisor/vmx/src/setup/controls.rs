//! Which events exit, and what VM entries and exits load and save (SDM volume 3C, sections 26.6 to
//! 26.8).

use core::fmt;

use chiton_core::vmx::controls::{Choice, Group, Refused, Wanted, entry, exit, pin, primary, secondary};
use chiton_core::vmx::{Capabilities, NoSuchField, VmcsWrite, fields};

/// Interrupts and NMIs are the hypervisor's, and so is the guest's time.
const PIN: Wanted = Wanted {
    required: pin::EXTERNAL_INTERRUPT_EXITING | pin::NMI_EXITING | pin::ACTIVATE_VMX_PREEMPTION_TIMER,
    ..Wanted::NOTHING
};

/// What a guest does to the machine exits; what it does to itself does not. CR3 is its own, since
/// EPT keeps memory apart.
const PRIMARY: Wanted = Wanted {
    required: primary::HLT_EXITING
        | primary::MWAIT_EXITING
        | primary::MONITOR_EXITING
        | primary::RDPMC_EXITING
        | primary::MOV_DR_EXITING
        | primary::USE_I_O_BITMAPS
        | primary::USE_MSR_BITMAPS
        | primary::USE_TSC_OFFSETTING
        | primary::ACTIVATE_SECONDARY_CONTROLS,
    optional: primary::USE_TPR_SHADOW,
    unwanted: primary::CR3_LOAD_EXITING | primary::CR3_STORE_EXITING | primary::INVLPG_EXITING,
};

/// Without the TPR shadow, CR8 is kept by the hypervisor.
const CR8_EXITING: u64 = primary::CR8_LOAD_EXITING | primary::CR8_STORE_EXITING;

/// What CPUID does not announce stays off, and is an undefined instruction then.
const SECONDARY: Wanted = Wanted {
    required: secondary::ENABLE_EPT | secondary::UNRESTRICTED_GUEST,
    optional: secondary::ENABLE_VPID | secondary::WBINVD_EXITING,
    ..Wanted::NOTHING
};

/// The host runs in 64-bit mode; what both use has a value for each. The timer's value is saved, or
/// a guest that exits often would never come to the end of its slice.
const EXIT: Wanted = Wanted {
    required: exit::HOST_ADDRESS_SPACE_SIZE
        | exit::SAVE_IA32_PAT
        | exit::LOAD_IA32_PAT
        | exit::SAVE_IA32_EFER
        | exit::LOAD_IA32_EFER
        | exit::SAVE_VMX_PREEMPTION_TIMER_VALUE,
    optional: exit::SAVE_DEBUG_CONTROLS,
    unwanted: exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT,
};

/// "IA-32e mode guest" follows EFER.LMA, which is known when the registers are.
const ENTRY: Wanted = Wanted {
    required: entry::LOAD_IA32_PAT | entry::LOAD_IA32_EFER,
    optional: entry::LOAD_DEBUG_CONTROLS,
    ..Wanted::NOTHING
};

/// The setting of each group of controls.
#[derive(Clone, Copy, Debug)]
pub struct Controls {
    /// Pin-based.
    pub pin: Choice,
    /// Primary processor-based.
    pub primary: Choice,
    /// Secondary processor-based.
    pub secondary: Choice,
    /// VM-exit.
    pub exit: Choice,
    /// VM-entry.
    pub entry: Choice,
}

impl Controls {
    /// What a guest here needs, as far as this processor has it. `more` of the secondary ones are
    /// wanted where it can; NMIs of its own, if it has an APIC to send them with.
    ///
    /// # Errors
    ///
    /// When the processor does not let a control be as it has to.
    pub fn choose(capabilities: &Capabilities, more: u64, nmis: bool) -> Result<Self, Refused> {
        let choose = |group, wanted: Wanted| wanted.choose(group, capabilities);
        let mut primary = choose(Group::Primary, PRIMARY)?;
        if !primary.has(primary::USE_TPR_SHADOW) {
            let required = PRIMARY.required | CR8_EXITING;
            primary = choose(Group::Primary, Wanted { required, ..PRIMARY })?;
        }
        let optional = SECONDARY.optional | more;
        let pin = PIN.required | if nmis { pin::VIRTUAL_NMIS } else { 0 };
        Ok(Self {
            pin: choose(Group::Pin, Wanted { required: pin, ..PIN })?,
            primary,
            secondary: choose(Group::Secondary, Wanted { optional, ..SECONDARY })?,
            exit: choose(Group::Exit, EXIT)?,
            entry: choose(Group::Entry, ENTRY)?,
        })
    }

    /// Whether the processor keeps CR8 for the guest.
    pub(crate) const fn has_tpr_shadow(&self) -> bool {
        self.primary.has(primary::USE_TPR_SHADOW)
    }

    /// All groups.
    #[must_use]
    pub const fn all(&self) -> [Choice; 5] {
        [self.pin, self.primary, self.secondary, self.exit, self.entry]
    }

    /// Puts them into a VMCS.
    pub(crate) fn write(&self, vmcs: &mut impl VmcsWrite) -> Result<(), NoSuchField> {
        vmcs.set(fields::PIN_BASED_CONTROLS, self.pin.low())?;
        vmcs.set(fields::PRIMARY_CONTROLS, self.primary.low())?;
        vmcs.set(fields::SECONDARY_CONTROLS, self.secondary.low())?;
        vmcs.set(fields::EXIT_CONTROLS, self.exit.low())?;
        vmcs.set(fields::ENTRY_CONTROLS, self.entry.low())
    }
}

impl fmt::Display for Controls {
    /// A table for each group: what was wanted, what is allowed, what was chosen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all().iter().try_for_each(|choice| write!(f, "{choice}"))
    }
}
