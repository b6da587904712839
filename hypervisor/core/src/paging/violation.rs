//! What a processor reports when the tables stop an access, and why they did.

use core::fmt;

use super::size::table_name;
use super::{Broken, Format, GUEST_END, Path, Rights, Step};

/// What an access was part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// What the instruction asked for: its data, or the next instruction.
    Page,
    /// The walk of the guest's own tables, or a flag set in one of them.
    Tables,
    /// Neither: the access had no linear address (a load of PDPTEs by MOV CR, trace output).
    Other,
}

/// An access that the tables stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The guest-physical address.
    pub guest: u64,
    /// The linear address it was for, where the processor tells it.
    pub linear: Option<u64>,
    /// What was to be done; more than one for an instruction that reads and writes.
    pub access: Rights,
    /// What it was part of.
    pub purpose: Purpose,
    /// What the entries that the processor used allowed together. Nothing, if one was not
    /// present. NPT does not tell.
    pub allowed: Option<Rights>,
}

impl Violation {
    /// An EPT violation, by its exit qualification (SDM volume 3C, table 29-7) and the fields
    /// "guest-physical address" and "guest linear address".
    #[must_use]
    pub const fn of_ept(qualification: u64, guest: u64, linear: u64) -> Self {
        Self {
            guest,
            linear: if qualification >> 7 & 1 != 0 {
                Some(linear)
            } else {
                None
            },
            access: Rights::new(
                qualification & 1 != 0,
                qualification >> 1 & 1 != 0,
                qualification >> 2 & 1 != 0,
            ),
            purpose: match qualification >> 7 & 3 {
                3 => Purpose::Page,
                1 => Purpose::Tables,
                _ => Purpose::Other,
            },
            allowed: Some(Rights::new(
                qualification >> 3 & 1 != 0,
                qualification >> 4 & 1 != 0,
                qualification >> 5 & 1 != 0,
            )),
        }
    }

    /// A nested page fault, by EXITINFO1 and EXITINFO2 (APM volume 2, section 15.25.6).
    #[must_use]
    pub const fn of_npt(info1: u64, info2: u64) -> Self {
        let (write, fetch) = (info1 >> 1 & 1 != 0, info1 >> 4 & 1 != 0);
        Self {
            guest: info2,
            linear: None,
            access: Rights::new(!write && !fetch, write, fetch),
            purpose: match info1 >> 32 & 3 {
                1 => Purpose::Page,
                2 => Purpose::Tables,
                _ => Purpose::Other,
            },
            allowed: None,
        }
    }

    /// Why the tables stop it, by the way to the address as it is now.
    pub fn cause<F: Format>(&self, path: &Path<F>) -> Cause {
        let Some(last) = path.last() else {
            return Cause::Beyond;
        };
        if let Some(broken) = path.broken() {
            return Cause::Broken(*last, broken);
        }
        if path.page().is_none() {
            return Cause::NotPresent(*last);
        }
        let forbids = |step: &&Step| !path.allows(step).contains(self.access);
        match path.steps.iter().flatten().find(forbids) {
            Some(step) => Cause::Forbidden(*step, path.allows(step)),
            None => Cause::Stale,
        }
    }
}

/// Why the tables stop an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An entry is not present.
    NotPresent(Step),
    /// An entry allows no more than these.
    Forbidden(Step, Rights),
    /// The processor refuses to use an entry.
    Broken(Step, Broken),
    /// The address is beyond what four levels reach.
    Beyond,
    /// They do not stop it: the processor has used what it remembered of an earlier state.
    Stale,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.access.read, self.access.write, self.access.execute) {
            (_, _, true) => "fetch",
            (true, true, _) => "read and write",
            (_, true, _) => "write",
            _ => "read",
        })?;
        write!(f, " at the guest-physical address {:#x}", self.guest)?;
        match self.purpose {
            Purpose::Page => {}
            Purpose::Tables => f.write_str(", where a table of the guest's own paging is")?,
            Purpose::Other => f.write_str(", without a linear address")?,
        }
        match self.linear {
            Some(linear) => write!(f, ", for the linear address {linear:#x}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |step: &Step| (table_name(step.level), step.index);
        match self {
            Self::NotPresent(step) => {
                let (table, index) = name(step);
                write!(f, "entry {index} of the {table} is not present")
            }
            Self::Forbidden(step, rights) => {
                let (table, index) = name(step);
                write!(f, "entry {index} of the {table} allows {rights}")
            }
            Self::Broken(step, Broken { bits, why }) => {
                let (table, index) = name(step);
                let bits = step.entry & bits;
                write!(
                    f,
                    "entry {index} of the {table} is refused for its bits {bits:#x}: {why}"
                )
            }
            Self::Beyond => write!(f, "tables of four levels end at the address {GUEST_END:#x}"),
            Self::Stale => f.write_str("the tables allow it now; the processor used what it remembered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_qualification_of_an_ept_violation_is_taken_apart() {
        let violation = Violation::of_ept(0b1_1010_1010, 0x1234, 0x7fff_1234);
        assert_eq!(violation.access, Rights::new(false, true, false));
        assert_eq!(violation.allowed, Some(Rights::READ_EXECUTE));
        assert_eq!(
            violation.to_string(),
            "write at the guest-physical address 0x1234, for the linear address 0x7fff1234"
        );
        let walk = Violation::of_ept(0b0_1000_0001, 0x1234, 0x5000);
        assert_eq!(walk.purpose, Purpose::Tables);
        assert_eq!(
            walk.to_string(),
            "read at the guest-physical address 0x1234, where a table of the guest's own paging is, \
             for the linear address 0x5000"
        );
        let other = Violation::of_ept(0b1_0000_0001, 0x1234, 0x5000);
        assert_eq!(
            (other.purpose, other.linear),
            (Purpose::Other, None),
            "bit 8 means nothing without bit 7"
        );
        let fetch = Violation::of_ept(0b1_1000_0100, 0x1000, 0x1000);
        assert!(fetch.to_string().starts_with("fetch at"));
    }

    #[test]
    fn the_information_of_a_nested_page_fault_is_taken_apart() {
        let violation = Violation::of_npt(1 << 32 | 0x6, 0x1234);
        assert_eq!(
            (violation.access, violation.purpose),
            (Rights::new(false, true, false), Purpose::Page)
        );
        let walk = Violation::of_npt(2 << 32 | 0x6, 0x1234);
        assert_eq!(walk.purpose, Purpose::Tables);
        let fetch = Violation::of_npt(1 << 32 | 0x15, 0x1234);
        assert_eq!(fetch.access, Rights::EXECUTE);
        assert_eq!(Violation::of_npt(1 << 32 | 4, 0x1234).access, Rights::READ);
    }
}
