//! What this processor's SVM can do: CPUID leaf 0x8000_000A (APM volume 3, appendix E), and the
//! registers by which it is switched on (APM volume 2, sections 15.4 and 15.30).

/// EFER.
pub const EFER: u32 = 0xc000_0080;
/// EFER.SVME: SVM's instructions exist (APM volume 2, section 3.1.7).
pub const EFER_SVME: u64 = 1 << 12;
/// VM_CR (APM volume 2, section 15.30.1).
pub const VM_CR: u32 = 0xc001_0114;
/// VM_CR.LOCK: SVMDIS cannot be changed, but by a key where there is one.
pub const VM_CR_LOCK: u64 = 1 << 3;
/// VM_CR.SVMDIS: EFER.SVME cannot be set.
pub const VM_CR_SVMDIS: u64 = 1 << 4;
/// VM_HSAVE_PA: the page in which VMRUN keeps the host's state (APM volume 2, section 15.30.4).
pub const VM_HSAVE_PA: u32 = 0xc001_0117;

/// What the leaf says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// EAX, bits 0 to 7: the revision of SVM.
    pub revision: u8,
    /// EBX: how many ASIDs there are, the host's 0 among them.
    pub asids: u32,
    /// EDX: a bit for each feature.
    pub bits: u32,
}

/// Declares the features: a constant for each, and the list of all.
macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $label:literal;)*) => {
        impl Features {
            $($(#[$doc])* pub const $name: u32 = 1 << $bit;)*

            /// Every feature with the APM's name for it.
            pub const ALL: &[(u32, &str)] = &[$((Self::$name, $label)),*];
        }
    };
}

features! {
    /// Nested paging.
    NESTED_PAGING = 0, "NP";
    /// Branch records of the guest's own.
    LBR = 1, "LbrVirt";
    /// SVM can be locked.
    LOCK = 2, "SVML";
    /// An exit saves where the next instruction is.
    NRIP_SAVE = 3, "NRIPS";
    /// The guest's TSC can run at another rate.
    TSC_RATE = 4, "TscRateMsr";
    /// VMCB clean bits.
    CLEAN_BITS = 5, "VmcbClean";
    /// TLB_CONTROL reaches one ASID.
    FLUSH_BY_ASID = 6, "FlushByAsid";
    /// An exit saves the instruction's bytes, and what CR, DR, INTn, INVLPG were about.
    DECODE_ASSISTS = 7, "DecodeAssists";
    /// Performance counters of the guest's own.
    PMC = 8, "PmcVirt";
    /// Exits for PAUSE can be counted.
    PAUSE_FILTER = 10, "PauseFilter";
    /// The count starts anew after a while.
    PAUSE_THRESHOLD = 12, "PauseFilterThreshold";
    /// A virtual APIC.
    AVIC = 13, "AVIC";
    /// VMLOAD and VMSAVE work in a guest.
    VIRTUAL_VMLOAD = 15, "VMSAVEvirt";
    /// STGI and CLGI work in a guest.
    VIRTUAL_GIF = 16, "VGIF";
    /// The guest's mode is a right in nested tables.
    GUEST_MODE_TRAP = 17, "GMET";
    /// AVIC with x2APIC.
    X2AVIC = 18, "x2AVIC";
    /// Shadow stacks of the supervisor are checked.
    SHADOW_STACK_CHECK = 19, "SSSCheck";
    /// SPEC_CTRL of the guest's own.
    SPEC_CTRL = 20, "SpecCtrl";
    /// Page tables of the guest can be read-only.
    READ_ONLY_TABLES = 21, "ROGPT";
    /// The host sees machine checks in the guest.
    MACHINE_CHECK_OVERRIDE = 23, "HOST_MCE_OVERRIDE";
    /// INVLPGB and TLBSYNC work in a guest.
    INVALIDATION = 24, "TlbiCtl";
    /// Virtual NMIs.
    VIRTUAL_NMI = 25, "VNMI";
    /// Instruction-based sampling of the guest's own.
    SAMPLING = 26, "IbsVirt";
    /// Bus locks can be counted.
    BUS_LOCK = 29, "BusLockThreshold";
    /// HLT exits only where nothing is pending.
    IDLE_HALT = 30, "IdleHltIntercept";
}

impl Features {
    /// Leaf of CPUID.
    pub const LEAF: u32 = 0x8000_000a;

    /// From EAX, EBX, ECX and EDX of the leaf.
    #[must_use]
    pub const fn of([eax, ebx, _, edx]: [u32; 4]) -> Self {
        Self {
            revision: eax as u8,
            asids: ebx,
            bits: edx,
        }
    }

    /// Whether the processor has a feature.
    #[must_use]
    pub const fn has(self, feature: u32) -> bool {
        self.bits & feature != 0
    }
}
