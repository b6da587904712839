//! Exits by access to memory: EPT violations and the APIC-access page.

use core::fmt;

/// An EPT violation (SDM volume 3C, table 29-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptViolation(pub u64);

impl EptViolation {
    /// Whether a bit is set.
    const fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 != 0
    }

    /// It was a data read. With accessed and dirty bits, an access to a guest page table is both a
    /// read and a write.
    #[must_use]
    pub const fn read(self) -> bool {
        self.bit(0)
    }

    /// It was a data write.
    #[must_use]
    pub const fn write(self) -> bool {
        self.bit(1)
    }

    /// It was an instruction fetch.
    #[must_use]
    pub const fn fetch(self) -> bool {
        self.bit(2)
    }

    /// What the tables allow, all levels together: read, write, execute. None of the three means that
    /// nothing is mapped.
    #[must_use]
    pub const fn permissions(self) -> u8 {
        (self.0 >> 3 & 7) as u8
    }

    /// With mode-based execute control: user-mode addresses may be executed.
    #[must_use]
    pub const fn user_executable(self) -> bool {
        self.bit(6)
    }

    /// The guest-linear address is valid.
    #[must_use]
    pub const fn has_linear_address(self) -> bool {
        self.bit(7)
    }

    /// The access was to what the linear address means; otherwise it was to one of the guest's paging
    /// structures on the way. Says something only with a linear address.
    #[must_use]
    pub const fn is_final(self) -> bool {
        self.bit(8)
    }

    /// IRET had ended the blocking of NMIs.
    #[must_use]
    pub const fn unblocked_nmi(self) -> bool {
        self.bit(12)
    }

    /// It had nothing to do with the instruction at RIP (a trace, say).
    #[must_use]
    pub const fn asynchronous(self) -> bool {
        self.bit(16)
    }
}

impl fmt::Display for EptViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match (self.read(), self.write(), self.fetch()) {
            (true, true, _) => "read and write",
            (_, true, _) => "write",
            (_, _, true) => "instruction fetch",
            (true, ..) => "read",
            _ => "access of no kind",
        };
        f.write_str(access)?;
        if self.has_linear_address() && !self.is_final() {
            f.write_str(" of a guest page table")?;
        }
        match self.permissions() {
            0 => f.write_str(" where nothing is mapped")?,
            permissions => {
                let letter = |bit: u8, letter: &'static str| if permissions >> bit & 1 != 0 { letter } else { "-" };
                write!(
                    f,
                    " where {}{}{} is allowed",
                    letter(0, "r"),
                    letter(1, "w"),
                    letter(2, "x")
                )?;
            }
        }
        let remarks = [
            (6, "user mode may execute"),
            (12, "IRET had unblocked NMIs"),
            (13, "shadow-stack access"),
            (14, "supervisor shadow-stack page"),
            (15, "by guest-paging verification"),
            (16, "asynchronous to the instruction"),
        ];
        for (bit, words) in remarks {
            if self.bit(bit) {
                write!(f, ", {words}")?;
            }
        }
        Ok(())
    }
}

/// An access to the APIC-access page (SDM volume 3C, table 29-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApicAccess {
    /// Offset in the page; known for linear accesses.
    pub offset: u16,
    /// What kind of access, bits 15:12.
    pub kind: u8,
    /// It had nothing to do with the instruction at RIP.
    pub asynchronous: bool,
}

impl ApicAccess {
    /// Decodes the qualification.
    #[must_use]
    pub const fn new(qualification: u64) -> Self {
        Self {
            offset: (qualification & 0xfff) as u16,
            kind: (qualification >> 12 & 0xf) as u8,
            asynchronous: qualification >> 16 & 1 != 0,
        }
    }
}

impl fmt::Display for ApicAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            0 => write!(f, "read at {:#x}", self.offset)?,
            1 => write!(f, "write at {:#x}", self.offset)?,
            2 => write!(f, "instruction fetch at {:#x}", self.offset)?,
            3 => write!(f, "read or write at {:#x}, delivering an event", self.offset)?,
            4 => write!(f, "monitoring of {:#x}", self.offset)?,
            10 => f.write_str("guest-physical access, delivering an event")?,
            11 => f.write_str("guest-physical access for monitoring or a trace")?,
            15 => f.write_str("guest-physical access by an instruction")?,
            kind => write!(f, "access of reserved kind {kind}")?,
        }
        f.write_str(if self.asynchronous {
            ", asynchronous to the instruction"
        } else {
            ""
        })
    }
}
