//! The bits of the controls by name, a module for each group.

/// One control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Its bit.
    pub bit: u32,
    /// Its name, as the SDM has it.
    pub name: &'static str,
}

/// Declares the controls of one group: a mask for each, and the list of all.
macro_rules! controls {
    ($(#[$group_doc:meta])* $group:ident: $($(#[$doc:meta])* $control:ident = $bit:literal, $name:literal;)*) => {
        $(#[$group_doc])*
        pub mod $group {
            use super::Control;

            $(
                $(#[$doc])*
                pub const $control: u64 = 1 << $bit;
            )*
            /// All of them.
            pub const ALL: &[Control] = &[$(Control { bit: $bit, name: $name }),*];
        }
    };
}

controls! {
    /// Pin-based VM-execution controls (SDM volume 3C, section 26.6.1).
    pin:
    /// "External-interrupt exiting". External interrupts exit; without it the guest takes them.
    EXTERNAL_INTERRUPT_EXITING = 0, "external-interrupt exiting";
    /// "NMI exiting". NMIs exit.
    NMI_EXITING = 3, "NMI exiting";
    /// "Virtual NMIs". NMI blocking is the guest's own.
    VIRTUAL_NMIS = 5, "virtual NMIs";
    /// "Activate VMX-preemption timer". The timer counts down in the guest and exits at zero.
    ACTIVATE_VMX_PREEMPTION_TIMER = 6, "activate VMX-preemption timer";
    /// "Process posted interrupts". The notification vector posts interrupts without an exit.
    PROCESS_POSTED_INTERRUPTS = 7, "process posted interrupts";
}

controls! {
    /// Primary processor-based VM-execution controls (SDM volume 3C, section 26.6.2).
    primary:
    /// "Interrupt-window exiting". Exit as soon as an interrupt could be delivered.
    INTERRUPT_WINDOW_EXITING = 2, "interrupt-window exiting";
    /// "Use TSC offsetting". The guest's TSC is the host's and an offset.
    USE_TSC_OFFSETTING = 3, "use TSC offsetting";
    /// "HLT exiting".
    HLT_EXITING = 7, "HLT exiting";
    /// "INVLPG exiting".
    INVLPG_EXITING = 9, "INVLPG exiting";
    /// "MWAIT exiting".
    MWAIT_EXITING = 10, "MWAIT exiting";
    /// "RDPMC exiting".
    RDPMC_EXITING = 11, "RDPMC exiting";
    /// "RDTSC exiting".
    RDTSC_EXITING = 12, "RDTSC exiting";
    /// "CR3-load exiting". Unless the value is a CR3-target value.
    CR3_LOAD_EXITING = 15, "CR3-load exiting";
    /// "CR3-store exiting".
    CR3_STORE_EXITING = 16, "CR3-store exiting";
    /// "Activate tertiary controls".
    ACTIVATE_TERTIARY_CONTROLS = 17, "activate tertiary controls";
    /// "CR8-load exiting".
    CR8_LOAD_EXITING = 19, "CR8-load exiting";
    /// "CR8-store exiting".
    CR8_STORE_EXITING = 20, "CR8-store exiting";
    /// "Use TPR shadow". CR8 is kept in the virtual-APIC page.
    USE_TPR_SHADOW = 21, "use TPR shadow";
    /// "NMI-window exiting". Exit as soon as an NMI could be delivered.
    NMI_WINDOW_EXITING = 22, "NMI-window exiting";
    /// "MOV-DR exiting".
    MOV_DR_EXITING = 23, "MOV-DR exiting";
    /// "Unconditional I/O exiting". Ignored with the I/O bitmaps.
    UNCONDITIONAL_I_O_EXITING = 24, "unconditional I/O exiting";
    /// "Use I/O bitmaps".
    USE_I_O_BITMAPS = 25, "use I/O bitmaps";
    /// "Monitor trap flag". Exit after each instruction.
    MONITOR_TRAP_FLAG = 27, "monitor trap flag";
    /// "Use MSR bitmaps". Without them every RDMSR and WRMSR exits.
    USE_MSR_BITMAPS = 28, "use MSR bitmaps";
    /// "MONITOR exiting".
    MONITOR_EXITING = 29, "MONITOR exiting";
    /// "PAUSE exiting".
    PAUSE_EXITING = 30, "PAUSE exiting";
    /// "Activate secondary controls".
    ACTIVATE_SECONDARY_CONTROLS = 31, "activate secondary controls";
}

controls! {
    /// Secondary processor-based VM-execution controls (SDM volume 3C, section 26.6.2).
    secondary:
    /// "Virtualize APIC accesses".
    VIRTUALIZE_APIC_ACCESSES = 0, "virtualize APIC accesses";
    /// "Enable EPT".
    ENABLE_EPT = 1, "enable EPT";
    /// "Descriptor-table exiting". LGDT, LIDT, LLDT, LTR and their stores.
    DESCRIPTOR_TABLE_EXITING = 2, "descriptor-table exiting";
    /// "Enable RDTSCP". Without it RDTSCP and RDPID are #UD.
    ENABLE_RDTSCP = 3, "enable RDTSCP";
    /// "Virtualize x2APIC mode".
    VIRTUALIZE_X2APIC_MODE = 4, "virtualize x2APIC mode";
    /// "Enable VPID".
    ENABLE_VPID = 5, "enable VPID";
    /// "WBINVD exiting".
    WBINVD_EXITING = 6, "WBINVD exiting";
    /// "Unrestricted guest". Real mode, and protected mode without paging.
    UNRESTRICTED_GUEST = 7, "unrestricted guest";
    /// "APIC-register virtualization".
    APIC_REGISTER_VIRTUALIZATION = 8, "APIC-register virtualization";
    /// "Virtual-interrupt delivery".
    VIRTUAL_INTERRUPT_DELIVERY = 9, "virtual-interrupt delivery";
    /// "PAUSE-loop exiting".
    PAUSE_LOOP_EXITING = 10, "PAUSE-loop exiting";
    /// "RDRAND exiting".
    RDRAND_EXITING = 11, "RDRAND exiting";
    /// "Enable INVPCID". Without it INVPCID is #UD.
    ENABLE_INVPCID = 12, "enable INVPCID";
    /// "Enable VM functions".
    ENABLE_VM_FUNCTIONS = 13, "enable VM functions";
    /// "VMCS shadowing".
    VMCS_SHADOWING = 14, "VMCS shadowing";
    /// "Enable ENCLS exiting".
    ENABLE_ENCLS_EXITING = 15, "enable ENCLS exiting";
    /// "RDSEED exiting".
    RDSEED_EXITING = 16, "RDSEED exiting";
    /// "Enable PML". Page-modification logging.
    ENABLE_PML = 17, "enable PML";
    /// "EPT-violation #VE".
    EPT_VIOLATION_VE = 18, "EPT-violation #VE";
    /// "Conceal VMX from PT".
    CONCEAL_VMX_FROM_PT = 19, "conceal VMX from PT";
    /// "Enable XSAVES/XRSTORS". Without it they are #UD.
    ENABLE_XSAVES_XRSTORS = 20, "enable XSAVES/XRSTORS";
    /// "PASID translation".
    PASID_TRANSLATION = 21, "PASID translation";
    /// "Mode-based execute control for EPT".
    MODE_BASED_EXECUTE_CONTROL_FOR_EPT = 22, "mode-based execute control for EPT";
    /// "Sub-page write permissions for EPT".
    SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT = 23, "sub-page write permissions for EPT";
    /// "Intel PT uses guest physical addresses".
    INTEL_PT_USES_GUEST_PHYSICAL_ADDRESSES = 24, "Intel PT uses guest physical addresses";
    /// "Use TSC scaling".
    USE_TSC_SCALING = 25, "use TSC scaling";
    /// "Enable user wait and pause". Without it TPAUSE, UMONITOR and UMWAIT are #UD.
    ENABLE_USER_WAIT_AND_PAUSE = 26, "enable user wait and pause";
    /// "Enable PCONFIG".
    ENABLE_PCONFIG = 27, "enable PCONFIG";
    /// "Enable ENCLV exiting".
    ENABLE_ENCLV_EXITING = 28, "enable ENCLV exiting";
    /// "VMM bus-lock detection".
    VMM_BUS_LOCK_DETECTION = 30, "VMM bus-lock detection";
    /// "Instruction timeout".
    INSTRUCTION_TIMEOUT = 31, "instruction timeout";
}

controls! {
    /// Tertiary processor-based VM-execution controls (SDM volume 3C, section 26.6.2).
    tertiary:
    /// "LOADIWKEY exiting".
    LOADIWKEY_EXITING = 0, "LOADIWKEY exiting";
    /// "Enable HLAT". Hypervisor-managed linear-address translation.
    ENABLE_HLAT = 1, "enable HLAT";
    /// "EPT paging-write control".
    EPT_PAGING_WRITE_CONTROL = 2, "EPT paging-write control";
    /// "Guest-paging verification".
    GUEST_PAGING_VERIFICATION = 3, "guest-paging verification";
    /// "IPI virtualization".
    IPI_VIRTUALIZATION = 4, "IPI virtualization";
    /// "SEAM guest-physical address width".
    SEAM_GUEST_PHYSICAL_ADDRESS_WIDTH = 5, "SEAM guest-physical address width";
    /// "Enable MSR-list instructions".
    ENABLE_MSR_LIST_INSTRUCTIONS = 6, "enable MSR-list instructions";
    /// "Virtualize IA32_SPEC_CTRL".
    VIRTUALIZE_IA32_SPEC_CTRL = 7, "virtualize IA32_SPEC_CTRL";
    /// "APIC-timer virtualization". The guest has IA32_TSC_DEADLINE, without exits.
    APIC_TIMER_VIRTUALIZATION = 8, "APIC-timer virtualization";
    /// "Enable PBNDKB". Without it PBNDKB is #UD.
    ENABLE_PBNDKB = 9, "enable PBNDKB";
    /// "PEBS uses guest physical addresses".
    PEBS_USES_GUEST_PHYSICAL_ADDRESSES = 12, "PEBS uses guest physical addresses";
}

controls! {
    /// Primary VM-exit controls (SDM volume 3C, section 26.7.1).
    exit:
    /// "Save debug controls". DR7 and IA32_DEBUGCTL.
    SAVE_DEBUG_CONTROLS = 2, "save debug controls";
    /// "Host address-space size". The host is in 64-bit mode.
    HOST_ADDRESS_SPACE_SIZE = 9, "host address-space size";
    /// "Load IA32_PERF_GLOBAL_CTRL".
    LOAD_IA32_PERF_GLOBAL_CTRL = 12, "load IA32_PERF_GLOBAL_CTRL";
    /// "Acknowledge interrupt on exit". The vector is read from the controller and reported.
    ACKNOWLEDGE_INTERRUPT_ON_EXIT = 15, "acknowledge interrupt on exit";
    /// "Save IA32_PAT".
    SAVE_IA32_PAT = 18, "save IA32_PAT";
    /// "Load IA32_PAT".
    LOAD_IA32_PAT = 19, "load IA32_PAT";
    /// "Save IA32_EFER".
    SAVE_IA32_EFER = 20, "save IA32_EFER";
    /// "Load IA32_EFER".
    LOAD_IA32_EFER = 21, "load IA32_EFER";
    /// "Save VMX-preemption timer value".
    SAVE_VMX_PREEMPTION_TIMER_VALUE = 22, "save VMX-preemption timer value";
    /// "Clear IA32_BNDCFGS".
    CLEAR_IA32_BNDCFGS = 23, "clear IA32_BNDCFGS";
    /// "Conceal VMX from PT".
    CONCEAL_VMX_FROM_PT = 24, "conceal VMX from PT";
    /// "Clear IA32_RTIT_CTL".
    CLEAR_IA32_RTIT_CTL = 25, "clear IA32_RTIT_CTL";
    /// "Clear IA32_LBR_CTL".
    CLEAR_IA32_LBR_CTL = 26, "clear IA32_LBR_CTL";
    /// "Clear UINV".
    CLEAR_UINV = 27, "clear UINV";
    /// "Load CET state".
    LOAD_CET_STATE = 28, "load CET state";
    /// "Load PKRS".
    LOAD_PKRS = 29, "load PKRS";
    /// "Save IA32_PERF_GLOBAL_CTRL".
    SAVE_IA32_PERF_GLOBAL_CTRL = 30, "save IA32_PERF_GLOBAL_CTRL";
    /// "Activate secondary controls".
    ACTIVATE_SECONDARY_CONTROLS = 31, "activate secondary controls";
}

controls! {
    /// Secondary VM-exit controls (SDM volume 3C, section 26.7.1).
    secondary_exit:
    /// "Save FRED".
    SAVE_FRED = 0, "save FRED";
    /// "Load FRED".
    LOAD_FRED = 1, "load FRED";
    /// "Load IA32_SPEC_CTRL".
    LOAD_IA32_SPEC_CTRL = 2, "load IA32_SPEC_CTRL";
    /// "Prematurely busy shadow stack".
    PREMATURELY_BUSY_SHADOW_STACK = 3, "prematurely busy shadow stack";
}

controls! {
    /// VM-entry controls (SDM volume 3C, section 26.8.1).
    entry:
    /// "Load debug controls". DR7 and IA32_DEBUGCTL.
    LOAD_DEBUG_CONTROLS = 2, "load debug controls";
    /// "IA-32e mode guest".
    IA32E_MODE_GUEST = 9, "IA-32e mode guest";
    /// "Entry to SMM".
    ENTRY_TO_SMM = 10, "entry to SMM";
    /// "Deactivate dual-monitor treatment".
    DEACTIVATE_DUAL_MONITOR_TREATMENT = 11, "deactivate dual-monitor treatment";
    /// "Load IA32_PERF_GLOBAL_CTRL".
    LOAD_IA32_PERF_GLOBAL_CTRL = 13, "load IA32_PERF_GLOBAL_CTRL";
    /// "Load IA32_PAT".
    LOAD_IA32_PAT = 14, "load IA32_PAT";
    /// "Load IA32_EFER".
    LOAD_IA32_EFER = 15, "load IA32_EFER";
    /// "Load IA32_BNDCFGS".
    LOAD_IA32_BNDCFGS = 16, "load IA32_BNDCFGS";
    /// "Conceal VMX from PT".
    CONCEAL_VMX_FROM_PT = 17, "conceal VMX from PT";
    /// "Load IA32_RTIT_CTL".
    LOAD_IA32_RTIT_CTL = 18, "load IA32_RTIT_CTL";
    /// "Load UINV".
    LOAD_UINV = 19, "load UINV";
    /// "Load CET state".
    LOAD_CET_STATE = 20, "load CET state";
    /// "Load guest IA32_LBR_CTL".
    LOAD_GUEST_IA32_LBR_CTL = 21, "load guest IA32_LBR_CTL";
    /// "Load PKRS".
    LOAD_PKRS = 22, "load PKRS";
    /// "Load FRED".
    LOAD_FRED = 23, "load FRED";
    /// "Load IA32_SPEC_CTRL".
    LOAD_IA32_SPEC_CTRL = 24, "load IA32_SPEC_CTRL";
    /// "Allow SEAM-guest telemetry".
    ALLOW_SEAM_GUEST_TELEMETRY = 25, "allow SEAM-guest telemetry";
}
