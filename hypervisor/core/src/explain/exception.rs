//! Exceptions and their error codes, by name (SDM volume 3A, table 7-1 and section 7.13).

use core::fmt;

use x86_64::structures::idt::PageFaultErrorCode;

/// An exception vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception(pub u64);

/// Divide error.
pub(super) const DE: u64 = 0;
/// Breakpoint.
pub(super) const BP: u64 = 3;
/// Invalid opcode.
pub(super) const UD: u64 = 6;
/// Device not available.
pub(super) const NM: u64 = 7;
/// Stack-segment fault.
pub(super) const SS: u64 = 12;
/// General protection.
pub(super) const GP: u64 = 13;
/// Page fault.
pub(super) const PF: u64 = 14;
/// Alignment check.
pub(super) const AC: u64 = 17;

impl Exception {
    /// Its mnemonic and its name.
    #[must_use]
    pub const fn names(self) -> (&'static str, &'static str) {
        match self.0 {
            DE => ("#DE", "divide error"),
            1 => ("#DB", "debug exception"),
            2 => ("NMI", "non-maskable interrupt"),
            BP => ("#BP", "breakpoint"),
            4 => ("#OF", "overflow"),
            5 => ("#BR", "bound range exceeded"),
            UD => ("#UD", "undefined instruction"),
            NM => ("#NM", "floating-point unit not available"),
            8 => ("#DF", "double fault"),
            10 => ("#TS", "invalid task state segment"),
            11 => ("#NP", "segment not present"),
            SS => ("#SS", "stack-segment fault"),
            GP => ("#GP", "general protection fault"),
            PF => ("#PF", "page fault"),
            16 => ("#MF", "x87 floating-point error"),
            AC => ("#AC", "alignment check"),
            18 => ("#MC", "machine check"),
            19 => ("#XM", "SIMD floating-point error"),
            20 => ("#VE", "virtualization exception"),
            21 => ("#CP", "control protection exception"),
            28 => ("#HV", "hypervisor injection exception"),
            29 => ("#VC", "VMM communication exception"),
            30 => ("#SX", "security exception"),
            _ => ("reserved", "reserved exception"),
        }
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mnemonic, name) = self.names();
        if mnemonic == "reserved" {
            write!(f, "{name} {}", self.0)
        } else {
            write!(f, "{name} ({mnemonic})")
        }
    }
}

/// An error code, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The exception has none.
    None,
    /// Of a page fault (SDM volume 3A, section 5.7).
    PageFault(PageFaultErrorCode),
    /// Of a fault that may name a descriptor (SDM volume 3A, section 7.13).
    Selector(u64),
    /// Any other.
    Other(u64),
}

impl ErrorCode {
    /// Decodes the code of an exception.
    #[must_use]
    pub const fn new(vector: u64, code: u64) -> Self {
        match vector {
            PF => Self::PageFault(PageFaultErrorCode::from_bits_truncate(code)),
            10..=13 => Self::Selector(code),
            8 | AC | 21 | 29 | 30 => Self::Other(code),
            _ => Self::None,
        }
    }

    /// The vector of the IDT gate that a selector code names.
    #[must_use]
    pub const fn gate(self) -> Option<u64> {
        match self {
            Self::Selector(code) if code & 2 != 0 => Some(code >> 3 & 0x1fff),
            _ => None,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::None => f.write_str("none"),
            Self::PageFault(code) => {
                write!(f, "{:#x}: ", code.bits())?;
                let has = |flag| code.contains(flag);
                f.write_str(
                    match (
                        has(PageFaultErrorCode::INSTRUCTION_FETCH),
                        has(PageFaultErrorCode::CAUSED_BY_WRITE),
                    ) {
                        (true, _) => "instruction fetch",
                        (_, true) => "write",
                        _ => "read",
                    },
                )?;
                let user = has(PageFaultErrorCode::USER_MODE);
                f.write_str(if user { " from ring 3" } else { " from ring 0" })?;
                let violation = has(PageFaultErrorCode::PROTECTION_VIOLATION);
                f.write_str(if violation {
                    ", the page forbids it"
                } else {
                    ", no page is there"
                })?;
                for (flag, words) in [
                    (
                        PageFaultErrorCode::MALFORMED_TABLE,
                        ", a reserved bit is set in the page tables",
                    ),
                    (PageFaultErrorCode::PROTECTION_KEY, ", by its protection key"),
                    (PageFaultErrorCode::SHADOW_STACK, ", shadow stack"),
                    (PageFaultErrorCode::SGX, ", by SGX"),
                ] {
                    if has(flag) {
                        f.write_str(words)?;
                    }
                }
                Ok(())
            }
            Self::Selector(0) => f.write_str("0: no descriptor is to blame"),
            Self::Selector(code) => {
                let index = code >> 3 & 0x1fff;
                match code >> 1 & 3 {
                    0 => write!(f, "{code:#x}: descriptor {index} of the GDT")?,
                    2 => write!(f, "{code:#x}: descriptor {index} of the LDT")?,
                    _ => write!(f, "{code:#x}: gate {index:#x} of the IDT")?,
                }
                f.write_str(if code & 1 != 0 {
                    ", while an event was delivered"
                } else {
                    ""
                })
            }
            Self::Other(code) => write!(f, "{code:#x}"),
        }
    }
}
