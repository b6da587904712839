//! Why the guest exited: every exit code by name (APM volume 2, appendix C).

use core::fmt;

/// EXITCODE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u64);

/// Declares the exit codes: a constant for each, and the list of all.
macro_rules! codes {
    ($($number:literal $code:ident $name:literal)*) => {
        #[allow(missing_docs, reason = "appendix C says what they are")]
        impl Code {
            $(pub const $code: Self = Self($number as i64 as u64);)*

            /// All that have a name of their own. Control registers, debug registers and exceptions
            /// have ranges.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            const fn own_name(self) -> Option<&'static str> {
                match self {
                    $(Self::$code => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    0x60 INTR "physical interrupt"
    0x61 NMI "NMI"
    0x62 SMI "SMI"
    0x63 INIT "INIT"
    0x64 VINTR "virtual interrupt"
    0x65 CR0_SELECTIVE "write of CR0 but for TS and MP"
    0x66 IDTR_READ "read of IDTR"
    0x67 GDTR_READ "read of GDTR"
    0x68 LDTR_READ "read of LDTR"
    0x69 TR_READ "read of TR"
    0x6a IDTR_WRITE "write of IDTR"
    0x6b GDTR_WRITE "write of GDTR"
    0x6c LDTR_WRITE "write of LDTR"
    0x6d TR_WRITE "write of TR"
    0x6e RDTSC "RDTSC"
    0x6f RDPMC "RDPMC"
    0x70 PUSHF "PUSHF"
    0x71 POPF "POPF"
    0x72 CPUID "CPUID"
    0x73 RSM "RSM"
    0x74 IRET "IRET"
    0x75 SWINT "INTn"
    0x76 INVD "INVD"
    0x77 PAUSE "PAUSE"
    0x78 HLT "HLT"
    0x79 INVLPG "INVLPG"
    0x7a INVLPGA "INVLPGA"
    0x7b IOIO "IN or OUT"
    0x7c MSR "RDMSR or WRMSR"
    0x7d TASK_SWITCH "task switch"
    0x7e FERR_FREEZE "FERR freeze"
    0x7f SHUTDOWN "shutdown"
    0x80 VMRUN "VMRUN"
    0x81 VMMCALL "VMMCALL"
    0x82 VMLOAD "VMLOAD"
    0x83 VMSAVE "VMSAVE"
    0x84 STGI "STGI"
    0x85 CLGI "CLGI"
    0x86 SKINIT "SKINIT"
    0x87 RDTSCP "RDTSCP"
    0x88 ICEBP "ICEBP"
    0x89 WBINVD "WBINVD or WBNOINVD"
    0x8a MONITOR "MONITOR"
    0x8b MWAIT "MWAIT"
    0x8c MWAIT_CONDITIONAL "MWAIT that would wait"
    0x8d XSETBV "XSETBV"
    0x8e RDPRU "RDPRU"
    0x8f EFER_WRITE "write of EFER, done"
    0xa0 INVLPGB "INVLPGB"
    0xa1 INVLPGB_ILLEGAL "illegal INVLPGB"
    0xa2 INVPCID "INVPCID"
    0xa3 MCOMMIT "MCOMMIT"
    0xa4 TLBSYNC "TLBSYNC"
    0xa5 BUS_LOCK "bus lock"
    0xa6 IDLE_HLT "HLT with nothing pending"
    0x400 NPF "nested page fault"
    0x401 AVIC_INCOMPLETE_IPI "AVIC: incomplete IPI"
    0x402 AVIC_NOACCEL "AVIC: not accelerated"
    0x403 VMGEXIT "VMGEXIT"
    -1 INVALID "invalid guest state in the VMCB"
    -2 BUSY "VMSA in use"
    -3 IDLE_REQUIRED "the sibling thread is not idle"
    -4 INVALID_PMC "invalid state of performance counters"
}

/// What the codes of a range have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// A read of the control register of this number.
    CrRead(u8),
    /// A write of it.
    CrWrite(u8),
    /// A read of the debug register of this number.
    DrRead(u8),
    /// A write of it.
    DrWrite(u8),
    /// The exception with this vector.
    Exception(u8),
    /// A write of the control register of this number, done.
    CrWritten(u8),
}

impl Code {
    /// From the field. The codes of a refusal are negative numbers of 64 bits; QEMU writes 32 of them.
    #[must_use]
    pub const fn of(field: u64) -> Self {
        const FIRST_REFUSAL: u64 = 0xffff_fff0;
        if field >= FIRST_REFUSAL && field <= 0xffff_ffff {
            return Self(field | !0xffff_ffff);
        }
        Self(field)
    }

    /// The range it belongs to.
    #[must_use]
    pub const fn range(self) -> Option<Range> {
        let low = self.0 as u8;
        match self.0 {
            0x00..=0x0f => Some(Range::CrRead(low & 15)),
            0x10..=0x1f => Some(Range::CrWrite(low & 15)),
            0x20..=0x2f => Some(Range::DrRead(low & 15)),
            0x30..=0x3f => Some(Range::DrWrite(low & 15)),
            0x40..=0x5f => Some(Range::Exception(low & 31)),
            0x90..=0x9f => Some(Range::CrWritten(low & 15)),
            _ => None,
        }
    }

    /// Whether VMRUN refused the VMCB: the guest has not run.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::INVALID | Self::BUSY | Self::IDLE_REQUIRED | Self::INVALID_PMC
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.own_name() {
            return f.pad(name);
        }
        let words = match self.range() {
            Some(Range::CrRead(n)) => alloc::format!("read of CR{n}"),
            Some(Range::CrWrite(n)) => alloc::format!("write of CR{n}"),
            Some(Range::DrRead(n)) => alloc::format!("read of DR{n}"),
            Some(Range::DrWrite(n)) => alloc::format!("write of DR{n}"),
            Some(Range::Exception(vector)) => match exception_name(vector) {
                Some(name) => alloc::format!("exception {name}"),
                None => alloc::format!("exception {vector}"),
            },
            Some(Range::CrWritten(n)) => alloc::format!("write of CR{n}, done"),
            None => alloc::format!("exit code {:#x}, which no manual names", self.0),
        };
        f.pad(&words)
    }
}

/// The mnemonic of an exception (APM volume 2, table 8-1).
#[must_use]
pub const fn exception_name(vector: u8) -> Option<&'static str> {
    Some(match vector {
        0 => "#DE",
        1 => "#DB",
        3 => "#BP",
        4 => "#OF",
        5 => "#BR",
        6 => "#UD",
        7 => "#NM",
        8 => "#DF",
        10 => "#TS",
        11 => "#NP",
        12 => "#SS",
        13 => "#GP",
        14 => "#PF",
        16 => "#MF",
        17 => "#AC",
        18 => "#MC",
        19 => "#XF",
        21 => "#CP",
        28 => "#HV",
        29 => "#VC",
        30 => "#SX",
        _ => return None,
    })
}
