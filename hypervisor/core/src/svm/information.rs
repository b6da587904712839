//! EXITINFO1 and EXITINFO2: what an exit was about, by its code.

use core::fmt;

use super::event::Event;
use super::exit::{Code, Range};
use super::{VmcbFields, VmcbRead, fields};

/// EXITINFO1 of an IN or OUT (APM volume 2, section 15.10.2). EXITINFO2 is the RIP behind it, on any
/// processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(pub u64);

impl Port {
    /// `in` or `ins`.
    #[must_use]
    pub const fn is_in(self) -> bool {
        self.0 & 1 << 0 != 0
    }

    /// `ins` or `outs`.
    #[must_use]
    pub const fn is_string(self) -> bool {
        self.0 & 1 << 2 != 0
    }

    /// With `rep`.
    #[must_use]
    pub const fn is_repeated(self) -> bool {
        self.0 & 1 << 3 != 0
    }

    /// Width of the access, in bytes: 1, 2 or 4.
    #[must_use]
    pub const fn bytes(self) -> u8 {
        if self.0 & 1 << 4 != 0 {
            1
        } else if self.0 & 1 << 5 != 0 {
            2
        } else {
            4
        }
    }

    /// Width of addresses, in bits: 16, 32 or 64.
    #[must_use]
    pub const fn address_bits(self) -> u32 {
        if self.0 & 1 << 7 != 0 {
            16
        } else if self.0 & 1 << 8 != 0 {
            32
        } else {
            64
        }
    }

    /// The segment of the memory operand, as instructions number them: 0 is ES, 3 DS, 5 GS. Only with
    /// DecodeAssists.
    #[must_use]
    pub const fn segment(self) -> u8 {
        (self.0 >> 10 & 7) as u8
    }

    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_repeated() {
            f.write_str("rep ")?;
        }
        f.write_str(match (self.is_in(), self.is_string()) {
            (true, false) => "in",
            (true, true) => "ins",
            (false, false) => "out",
            (false, true) => "outs",
        })?;
        write!(f, ", port {:#x}, {} bits", self.port(), u32::from(self.bytes()) * 8)
    }
}

/// EXITINFO1 of a nested page fault (APM volume 2, section 15.25.6). EXITINFO2 is the guest-physical
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NestedFault(pub u64);

impl NestedFault {
    /// The page was mapped; what lacked was a right.
    pub const PRESENT: u64 = 1 << 0;
    /// It was a write.
    pub const WRITE: u64 = 1 << 1;
    /// A reserved bit was set in an entry.
    pub const RESERVED: u64 = 1 << 3;
    /// It was a fetch.
    pub const FETCH: u64 = 1 << 4;
    /// It was the access to the final address.
    pub const FINAL: u64 = 1 << 32;
    /// It was an access to the guest's page tables.
    pub const TABLES: u64 = 1 << 33;

    /// Whether a bit is set.
    #[must_use]
    pub const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }
}

impl fmt::Display for NestedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.has(Self::FETCH) {
            "fetch"
        } else if self.has(Self::WRITE) {
            "write"
        } else {
            "read"
        })?;
        if self.has(Self::TABLES) {
            f.write_str(" of the guest's page tables")?;
        }
        f.write_str(if self.has(Self::RESERVED) {
            ", reserved bit set in an entry"
        } else if self.has(Self::PRESENT) {
            ", mapped without that right"
        } else {
            ", not mapped"
        })?;
        for (bit, words) in [
            (6, "shadow stack"),
            (31, "reverse map"),
            (34, "encryption"),
            (35, "page sizes differ"),
            (36, "VMPL"),
            (37, "supervisor shadow stack"),
        ] {
            if self.has(1 << bit) {
                write!(f, ", {words}")?;
            }
        }
        Ok(())
    }
}

/// What an exit was about, in words.
pub struct Information<'a>(pub &'a dyn VmcbRead);

impl fmt::Display for Information<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vmcb = self.0;
        let code = Code::of(vmcb.get(fields::EXITCODE));
        let (info1, info2) = (vmcb.get(fields::EXITINFO1), vmcb.get(fields::EXITINFO2));
        match code.range() {
            // With DecodeAssists (APM volume 2, section 15.8.1).
            Some(Range::CrRead(_) | Range::CrWrite(_)) if info1 >> 63 != 0 => {
                return write!(f, "general register {}", info1 & 15);
            }
            Some(Range::CrRead(_) | Range::CrWrite(_)) => return f.write_str("not by `mov`, or not told"),
            Some(Range::DrRead(_) | Range::DrWrite(_)) => return write!(f, "general register {}, if told", info1 & 15),
            Some(Range::Exception(14)) => return write!(f, "error code {info1:#x}, address {info2:#x}"),
            Some(Range::Exception(8 | 10..=13 | 17 | 21 | 29 | 30)) => return write!(f, "error code {info1:#x}"),
            Some(Range::Exception(_) | Range::CrWritten(_)) => return Ok(()),
            None => {}
        }
        match code {
            Code::IOIO => write!(f, "{}, next at {info2:#x}", Port(info1)),
            Code::MSR => f.write_str(if info1 == 0 { "RDMSR" } else { "WRMSR" }),
            Code::NPF => write!(f, "{}, guest-physical {info2:#x}", NestedFault(info1)),
            // With DecodeAssists (APM volume 2, sections 15.8.2 and 15.8.3).
            Code::SWINT => write!(f, "vector {:#x}, if told", info1 & 0xff),
            Code::INVLPG => write!(f, "linear {info1:#x}, if told"),
            Code::TASK_SWITCH => {
                write!(f, "to the TSS {info1:#x} by ")?;
                f.write_str(if info2 >> 36 & 1 != 0 {
                    "IRET"
                } else if info2 >> 38 & 1 != 0 {
                    "a far jump"
                } else {
                    "a call or an event"
                })?;
                if info2 >> 44 & 1 != 0 {
                    write!(f, " with error code {:#x}", info2 as u32)?;
                }
                Ok(())
            }
            Code::MWAIT | Code::MWAIT_CONDITIONAL => f.write_str(if info1 & 1 != 0 {
                "the monitor is armed"
            } else {
                "the monitor is not armed"
            }),
            Code::AVIC_INCOMPLETE_IPI => {
                write!(f, "ICR {info1:#x}, ")?;
                match info2 >> 32 {
                    0 => f.write_str("an interrupt of a type that AVIC does not deliver"),
                    1 => write!(f, "target {:#x} does not run", info2 & 0xff),
                    2 => write!(f, "target {:#x} is not in the table", info2 & 0xff),
                    3 => write!(f, "backing page {:#x} is not valid", info2 & 0xff),
                    4 => f.write_str("the vector is not valid"),
                    other => write!(f, "reason {other}"),
                }
            }
            Code::AVIC_NOACCEL => {
                let access = if info1 >> 32 & 1 != 0 { "write" } else { "read" };
                write!(
                    f,
                    "{access} of APIC register {:#x}, vector {:#x}",
                    info1 & 0xff0,
                    info2 & 0xff
                )
            }
            Code::EFER_WRITE => write!(f, "now {info1:#x}"),
            Code::INVALID => f.write_str("a rule of VMRUN is broken"),
            _ => Ok(()),
        }
    }
}

/// An exit in one line: the code, what it was about, and what was being delivered.
pub struct Summary<'a>(pub &'a dyn VmcbRead);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Code::of(self.0.get(fields::EXITCODE)))?;
        let words = alloc::format!("{}", Information(self.0));
        if !words.is_empty() {
            write!(f, ": {words}")?;
        }
        let event = Event(self.0.get(fields::EXITINTINFO));
        if event.is_valid() {
            write!(f, ", while {event} was delivered")?;
        }
        Ok(())
    }
}
