//! What this processor's VMX can do: the capability MSRs, 0x480 to 0x493 (SDM volume 3D, appendix A),
//! with IA32_FEATURE_CONTROL, by which the firmware allows VMX at all.

use core::fmt;

/// IA32_FEATURE_CONTROL (SDM volume 3C, section 25.7).
pub const IA32_FEATURE_CONTROL: u32 = 0x3a;
/// The first capability MSR, IA32_VMX_BASIC; the others follow.
pub const IA32_VMX_BASIC: u32 = 0x480;

/// Where model-specific registers are read: `rdmsr`, or a test's table. Only those are asked for that
/// the others say exist.
pub trait MsrSource {
    /// The value of a register.
    fn read_msr(&self, register: u32) -> u64;
}

impl<F: Fn(u32) -> u64> MsrSource for F {
    fn read_msr(&self, register: u32) -> u64 {
        self(register)
    }
}

/// Which settings of one group of controls the processor takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Bits that have to be 1 (the "allowed 0-settings", inverted).
    pub must: u64,
    /// Bits that may be 1 (the "allowed 1-settings").
    pub may: u64,
}

impl Allowed {
    /// From an MSR whose low half says which bits must be 1, and whose high half which may.
    #[must_use]
    pub const fn of_halves(msr: u64) -> Self {
        Self {
            must: msr & 0xffff_ffff,
            may: msr >> 32,
        }
    }

    /// From an MSR of 64 bits that may be 1: no bit has to be.
    #[must_use]
    pub const fn of_ones(msr: u64) -> Self {
        Self { must: 0, may: msr }
    }

    /// Whether a setting is taken.
    #[must_use]
    pub const fn takes(self, setting: u64) -> bool {
        setting & self.must == self.must && setting & !self.may == 0
    }
}

/// IA32_FEATURE_CONTROL: what the firmware lets VMX do (SDM volume 3C, section 25.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureControl(pub u64);

impl FeatureControl {
    /// Nobody can change it until the next reset.
    #[must_use]
    pub const fn locked(self) -> bool {
        self.0 & 1 != 0
    }

    /// VMXON works in SMX operation.
    #[must_use]
    pub const fn vmx_in_smx(self) -> bool {
        self.0 & 2 != 0
    }

    /// VMXON works outside SMX operation, which is where we are.
    #[must_use]
    pub const fn vmx_outside_smx(self) -> bool {
        self.0 & 4 != 0
    }
}

/// IA32_VMX_BASIC (SDM volume 3D, section A.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Basic(pub u64);

impl Basic {
    /// What stands in the first word of a VMXON region and of a VMCS; bit 31 is never set.
    #[must_use]
    pub const fn revision(self) -> u32 {
        (self.0 & 0x7fff_ffff) as u32
    }

    /// Bytes of a VMXON region and of a VMCS, at most 4096.
    #[must_use]
    pub const fn region_size(self) -> u32 {
        (self.0 >> 32 & 0x1fff) as u32
    }

    /// VMX structures have to be below 4 GiB, as on processors without Intel 64 architecture.
    #[must_use]
    pub const fn below_4_gib(self) -> bool {
        self.0 >> 48 & 1 != 0
    }

    /// The dual-monitor treatment of SMIs and SMM.
    #[must_use]
    pub const fn dual_monitor(self) -> bool {
        self.0 >> 49 & 1 != 0
    }

    /// The memory type to reach VMX structures with: 0 uncacheable, 6 write-back.
    #[must_use]
    pub const fn memory_type(self) -> u8 {
        (self.0 >> 50 & 0xf) as u8
    }

    /// An exit by INS or OUTS says in its instruction information what the operands were.
    #[must_use]
    pub const fn reports_string_io(self) -> bool {
        self.0 >> 54 & 1 != 0
    }

    /// There are TRUE MSRs, which tell which default-1 controls may be 0.
    #[must_use]
    pub const fn true_controls(self) -> bool {
        self.0 >> 55 & 1 != 0
    }

    /// A hardware exception may be injected with or without an error code, whatever its vector.
    #[must_use]
    pub const fn any_error_code(self) -> bool {
        self.0 >> 56 & 1 != 0
    }

    /// FRED transitions are known to VMX, with their fields (nested-exception support).
    #[must_use]
    pub const fn nested_exceptions(self) -> bool {
        self.0 >> 58 & 1 != 0
    }
}

/// IA32_VMX_MISC (SDM volume 3D, section A.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misc(pub u64);

impl Misc {
    /// The VMX-preemption timer counts down by one whenever this bit of the TSC changes.
    #[must_use]
    pub const fn preemption_timer_shift(self) -> u8 {
        (self.0 & 0x1f) as u8
    }

    /// VM exits store IA32_EFER.LMA into the control "IA-32e mode guest".
    #[must_use]
    pub const fn stores_efer_lma(self) -> bool {
        self.0 >> 5 & 1 != 0
    }

    /// Whether an activity state (1 HLT, 2 shutdown, 3 wait-for-SIPI) may be entered. Active always may.
    #[must_use]
    pub const fn supports_activity(self, state: u32) -> bool {
        match state {
            0 => true,
            1..=3 => self.0 >> (5 + state) & 1 != 0,
            _ => false,
        }
    }

    /// Intel Processor Trace may be used in VMX operation.
    #[must_use]
    pub const fn processor_trace(self) -> bool {
        self.0 >> 14 & 1 != 0
    }

    /// How many CR3-target values there are.
    #[must_use]
    pub const fn cr3_targets(self) -> u32 {
        (self.0 >> 16 & 0x1ff) as u32
    }

    /// How many MSRs one list should have at most.
    #[must_use]
    pub const fn msr_list_limit(self) -> u32 {
        512 * ((self.0 >> 25 & 7) as u32 + 1)
    }

    /// VMWRITE may write any field, even the read-only ones.
    #[must_use]
    pub const fn writes_any_field(self) -> bool {
        self.0 >> 29 & 1 != 0
    }

    /// A software interrupt or exception may be injected with an instruction length of 0.
    #[must_use]
    pub const fn zero_length_injection(self) -> bool {
        self.0 >> 30 & 1 != 0
    }

    /// The revision of the MSEG, for the dual-monitor treatment.
    #[must_use]
    pub const fn mseg_revision(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// IA32_VMX_EPT_VPID_CAP (SDM volume 3D, section A.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EptVpid(pub u64);

/// Declares questions that one bit answers.
macro_rules! bits {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub const fn $name(self) -> bool {
            self.0 >> $bit & 1 != 0
        }
    )*};
}

impl EptVpid {
    bits! {
        /// A page may be executed that can be neither read nor written.
        execute_only = 0;
        /// The walk may have four levels.
        walk_of_4 = 6;
        /// The walk may have five levels.
        walk_of_5 = 7;
        /// The tables may be reached uncacheable.
        uncacheable = 8;
        /// The tables may be reached write-back.
        write_back = 14;
        /// Pages of 2 MiB.
        pages_of_2_mib = 16;
        /// Pages of 1 GiB.
        pages_of_1_gib = 17;
        /// The instruction INVEPT.
        invept = 20;
        /// Accessed and dirty bits.
        accessed_dirty = 21;
        /// EPT violations say more of the guest's own paging.
        advanced_exit_information = 22;
        /// Supervisor shadow-stack control.
        supervisor_shadow_stack = 23;
        /// INVEPT of one EPTP.
        invept_single = 25;
        /// INVEPT of all.
        invept_all = 26;
        /// The instruction INVVPID.
        invvpid = 32;
        /// INVVPID of one address.
        invvpid_address = 40;
        /// INVVPID of one VPID.
        invvpid_single = 41;
        /// INVVPID of all.
        invvpid_all = 42;
        /// INVVPID of one VPID, but not its global translations.
        invvpid_retaining_globals = 43;
    }

    /// The greatest HLAT prefix size. VM entry asks for it nowhere: what another size than those that are defined means
    /// is left open (SDM volume 3A, section 5.5.1).
    #[must_use]
    pub const fn hlat_prefix(self) -> u8 {
        (self.0 >> 48 & 0x3f) as u8
    }
}

/// All capability MSRs of a processor. Those that it does not have read as zero, which allows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// IA32_FEATURE_CONTROL.
    pub feature_control: FeatureControl,
    /// IA32_VMX_BASIC, 0x480.
    pub basic: Basic,
    /// Pin-based controls: IA32_VMX_TRUE_PINBASED_CTLS, 0x48d, or without it IA32_VMX_PINBASED_CTLS, 0x481.
    pub pin: Allowed,
    /// Primary processor-based controls: 0x48e or 0x482.
    pub primary: Allowed,
    /// Primary VM-exit controls: 0x48f or 0x483.
    pub exit: Allowed,
    /// VM-entry controls: 0x490 or 0x484.
    pub entry: Allowed,
    /// IA32_VMX_MISC, 0x485.
    pub misc: Misc,
    /// IA32_VMX_CR0_FIXED0, 0x486: bits of CR0 that must be 1 in VMX operation.
    pub cr0_fixed0: u64,
    /// IA32_VMX_CR0_FIXED1, 0x487: bits of CR0 that may be 1.
    pub cr0_fixed1: u64,
    /// IA32_VMX_CR4_FIXED0, 0x488: bits of CR4 that must be 1 in VMX operation.
    pub cr4_fixed0: u64,
    /// IA32_VMX_CR4_FIXED1, 0x489: bits of CR4 that may be 1.
    pub cr4_fixed1: u64,
    /// IA32_VMX_VMCS_ENUM, 0x48a: the highest index of a field's encoding, from bit 1 on.
    pub vmcs_enum: u64,
    /// Secondary processor-based controls: IA32_VMX_PROCBASED_CTLS2, 0x48b.
    pub secondary: Allowed,
    /// IA32_VMX_EPT_VPID_CAP, 0x48c.
    pub ept_vpid: EptVpid,
    /// IA32_VMX_VMFUNC, 0x491: bits of the VM-function controls that may be 1.
    pub vm_functions: u64,
    /// Tertiary processor-based controls: IA32_VMX_PROCBASED_CTLS3, 0x492.
    pub tertiary: Allowed,
    /// Secondary VM-exit controls: IA32_VMX_EXIT_CTLS2, 0x493.
    pub secondary_exit: Allowed,
    /// What CPUID says of the processor, where VM entries ask for it.
    pub processor: Processor,
}

impl Capabilities {
    /// Reads them all. Registers that the others say do not exist are not touched: reading them is a
    /// general-protection fault.
    pub fn read(source: &impl MsrSource, processor: Processor) -> Self {
        use super::controls::{exit, primary, secondary};

        let read = |index: u32| source.read_msr(IA32_VMX_BASIC + index);
        let basic = Basic(read(0));
        // The TRUE registers replace four others (SDM volume 3D, section A.2).
        let halves = |plain, exact| Allowed::of_halves(read(if basic.true_controls() { exact } else { plain }));
        let if_may = |allowed: Allowed, bits: u64, index| if allowed.may & bits != 0 { read(index) } else { 0 };

        let primary_controls = halves(2, 0xe);
        let exit_controls = halves(3, 0xf);
        let secondary_controls =
            Allowed::of_halves(if_may(primary_controls, primary::ACTIVATE_SECONDARY_CONTROLS, 0xb));
        Self {
            feature_control: FeatureControl(source.read_msr(IA32_FEATURE_CONTROL)),
            basic,
            pin: halves(1, 0xd),
            primary: primary_controls,
            exit: exit_controls,
            entry: halves(4, 0x10),
            misc: Misc(read(5)),
            cr0_fixed0: read(6),
            cr0_fixed1: read(7),
            cr4_fixed0: read(8),
            cr4_fixed1: read(9),
            vmcs_enum: read(0xa),
            secondary: secondary_controls,
            ept_vpid: EptVpid(if_may(
                secondary_controls,
                secondary::ENABLE_EPT | secondary::ENABLE_VPID,
                0xc,
            )),
            vm_functions: if_may(secondary_controls, secondary::ENABLE_VM_FUNCTIONS, 0x11),
            tertiary: Allowed::of_ones(if_may(primary_controls, primary::ACTIVATE_TERTIARY_CONTROLS, 0x12)),
            secondary_exit: Allowed::of_ones(if_may(exit_controls, exit::ACTIVATE_SECONDARY_CONTROLS, 0x13)),
            processor,
        }
    }
}

/// What VM entries ask of the processor beside its VMX: from CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Bits of a physical address (CPUID 0x80000008, EAX 7:0).
    pub physical_bits: u8,
    /// Bits of a linear address (CPUID 0x80000008, EAX 15:8): 48, or 57 with five levels of paging.
    pub linear_bits: u8,
    /// Performance counters that IA32_PERF_GLOBAL_CTRL turns on: its bits that are not reserved
    /// (CPUID 0xa).
    pub perf_global_ctrl: u64,
    /// Bits of IA32_DEBUGCTL that are not reserved.
    pub debugctl: u64,
    /// SGX: an enclave may have been interrupted (CPUID 7.0, EBX 2).
    pub sgx: bool,
    /// Restricted transactional memory: its bits in DR7, IA32_DEBUGCTL and the pending debug
    /// exceptions (CPUID 7.0, EBX 11).
    pub rtm: bool,
    /// Bus-lock detection (CPUID 7.0, ECX 24).
    pub bus_lock_detection: bool,
    /// Shadow stacks (CPUID 7.0, ECX 7).
    pub shadow_stacks: bool,
    /// Indirect-branch tracking (CPUID 7.0, EDX 20).
    pub branch_tracking: bool,
    /// Linear-address masking (CPUID 7.1, EAX 26).
    pub linear_address_masking: bool,
}

impl Default for Processor {
    /// A processor of the first generation with EPT and unrestricted guests.
    fn default() -> Self {
        Self {
            physical_bits: 36,
            linear_bits: 48,
            perf_global_ctrl: 0x7_0000_000f,
            debugctl: DEBUGCTL_ALWAYS,
            sgx: false,
            rtm: false,
            bus_lock_detection: false,
            shadow_stacks: false,
            branch_tracking: false,
            linear_address_masking: false,
        }
    }
}

/// Bits of IA32_DEBUGCTL that every processor with VMX has: LBR, BTF, TR, BTS, BTINT, BTS_OFF_OS,
/// BTS_OFF_USR, and the two that freeze on an interrupt by the counters (SDM volume 3B, section 19.4.1).
const DEBUGCTL_ALWAYS: u64 = 0x1fc3;

impl Processor {
    /// Asks CPUID: a leaf and a sub-leaf in, EAX, EBX, ECX and EDX out.
    pub fn from_cpuid(cpuid: impl Fn(u32, u32) -> [u32; 4]) -> Self {
        let bit = |register: u32, bit: u32| register >> bit & 1 != 0;
        let leaf = |number: u32, sub: u32| {
            let highest = cpuid(number & 0x8000_0000, 0)[0];
            if number <= highest { cpuid(number, sub) } else { [0; 4] }
        };
        let [sizes, ..] = leaf(0x8000_0008, 0);
        let [_, _, features_ecx, _] = leaf(1, 0);
        let [most, ebx, ecx, edx] = leaf(7, 0);
        let [more, ..] = if most > 0 { leaf(7, 1) } else { [0; 4] };
        let size = |bits: u32, without: u8| if bits == 0 { without } else { bits.to_le_bytes()[0] };

        let mut debugctl = DEBUGCTL_ALWAYS;
        let rtm = bit(ebx, 11);
        let bus_lock_detection = bit(ecx, 24);
        // UNCORE_PMI_EN is of no architecture. FREEZE_WHILE_SMM is announced by IA32_PERF_CAPABILITIES,
        // itself announced by PDCM; RTM_DEBUG by RTM; BUS_LOCK_DETECT by its own bit.
        for (bit_number, present) in [(2, bus_lock_detection), (14, bit(features_ecx, 15)), (15, rtm)] {
            if present {
                debugctl |= 1 << bit_number;
            }
        }
        Self {
            physical_bits: size(sizes & 0xff, 36),
            linear_bits: size(sizes >> 8 & 0xff, 48),
            perf_global_ctrl: counters(leaf(0xa, 0)),
            debugctl,
            sgx: bit(ebx, 2),
            rtm,
            bus_lock_detection,
            shadow_stacks: bit(ecx, 7),
            branch_tracking: bit(edx, 20),
            linear_address_masking: bit(more, 26),
        }
    }
}

/// The bits of IA32_PERF_GLOBAL_CTRL by CPUID leaf 0xa: general counters from bit 0 on, fixed ones
/// from bit 32 on (SDM volume 3B, section 21.2.2).
fn counters([eax, _, ecx, edx]: [u32; 4]) -> u64 {
    let ones = |count: u32| 1_u64.checked_shl(count).map_or(u64::MAX, |bit| bit - 1);
    if eax & 0xff == 0 {
        return 0;
    }
    let general = ones((eax >> 8 & 0xff).min(32));
    let fixed = ones((edx & 0x1f).min(16)) | u64::from(ecx);
    general | fixed << 32
}

impl fmt::Display for Capabilities {
    /// The registers as they are, one a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let halves = |allowed: Allowed| allowed.may << 32 | allowed.must;
        let rows = [
            ("IA32_FEATURE_CONTROL", self.feature_control.0),
            ("IA32_VMX_BASIC", self.basic.0),
            ("pin-based controls", halves(self.pin)),
            ("primary processor-based controls", halves(self.primary)),
            ("secondary processor-based controls", halves(self.secondary)),
            ("tertiary processor-based controls", self.tertiary.may),
            ("primary VM-exit controls", halves(self.exit)),
            ("secondary VM-exit controls", self.secondary_exit.may),
            ("VM-entry controls", halves(self.entry)),
            ("IA32_VMX_MISC", self.misc.0),
            ("IA32_VMX_CR0_FIXED0", self.cr0_fixed0),
            ("IA32_VMX_CR0_FIXED1", self.cr0_fixed1),
            ("IA32_VMX_CR4_FIXED0", self.cr4_fixed0),
            ("IA32_VMX_CR4_FIXED1", self.cr4_fixed1),
            ("IA32_VMX_VMCS_ENUM", self.vmcs_enum),
            ("IA32_VMX_EPT_VPID_CAP", self.ept_vpid.0),
            ("IA32_VMX_VMFUNC", self.vm_functions),
        ];
        for (name, value) in rows {
            writeln!(f, "{name:<36}{value:#018x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
