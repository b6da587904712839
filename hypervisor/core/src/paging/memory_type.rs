//! Memory types (SDM volume 3A, section 13.3).

use core::fmt;

/// How the processor caches an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MemoryType {
    /// Strong uncacheable: for devices.
    Uncacheable = 0,
    /// Write combining: for frame buffers.
    WriteCombining = 1,
    /// Write through.
    WriteThrough = 4,
    /// Write protected: reads are cached, writes go to memory.
    WriteProtected = 5,
    /// Write back: for memory.
    WriteBack = 6,
    /// Uncacheable, unless an MTRR says write combining. A PAT type alone; no MTRR and no EPT
    /// entry can hold it.
    UncacheableMinus = 7,
}

impl MemoryType {
    /// The type with this number (SDM volume 3A, table 13-10); `None` for 2, 3 and above 7.
    #[must_use]
    pub const fn of(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Uncacheable),
            1 => Some(Self::WriteCombining),
            4 => Some(Self::WriteThrough),
            5 => Some(Self::WriteProtected),
            6 => Some(Self::WriteBack),
            7 => Some(Self::UncacheableMinus),
            _ => None,
        }
    }
}

impl fmt::Display for MemoryType {
    /// The manuals' abbreviation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Uncacheable => "UC",
            Self::WriteCombining => "WC",
            Self::WriteThrough => "WT",
            Self::WriteProtected => "WP",
            Self::WriteBack => "WB",
            Self::UncacheableMinus => "UC-",
        })
    }
}

/// The memory type of a guest's access to a page (SDM volume 3C, section 30.3.7.2): of the EPT
/// entry's type and the type that the guest's own entry selects from the guest's PAT, by the table
/// that combines MTRRs with the PAT where there is no EPT (SDM volume 3A, table 13-7). An entry
/// with the bit "ignore PAT" decides alone.
///
/// A guest with CR0.CD = 1 has no cache whatever the tables say.
#[must_use]
pub const fn effective(ept: MemoryType, ignore_pat: bool, pat: MemoryType) -> MemoryType {
    use MemoryType::{Uncacheable, UncacheableMinus, WriteBack, WriteCombining, WriteProtected, WriteThrough};
    if ignore_pat {
        return ept;
    }
    match (ept, pat) {
        // An EPT entry cannot be UC-; it is a misconfiguration.
        (UncacheableMinus, _) | (_, Uncacheable) => Uncacheable,
        (_, WriteCombining) | (WriteCombining | WriteProtected, UncacheableMinus) => WriteCombining,
        (_, UncacheableMinus) => Uncacheable,
        (_, WriteBack) => ept,
        (Uncacheable | WriteCombining, WriteThrough | WriteProtected) => Uncacheable,
        (_, WriteThrough | WriteProtected) => pat,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_in_book;
    use super::MemoryType::*;
    use super::*;

    #[test]
    fn ept_and_pat_combine_as_the_whole_table_says() {
        // SDM volume 3A, table 13-7, with the EPT type in the place of the MTRR's.
        let pats = [
            Uncacheable,
            UncacheableMinus,
            WriteCombining,
            WriteThrough,
            WriteBack,
            WriteProtected,
        ];
        let table = [
            (Uncacheable, "UC UC WC UC UC UC"),
            (WriteCombining, "UC WC WC UC WC UC"),
            (WriteThrough, "UC UC WC WT WT WP"),
            (WriteBack, "UC UC WC WT WB WP"),
            (WriteProtected, "UC WC WC WT WP WP"),
        ];
        let mut shown = String::from("     UC  UC- WC  WT  WB  WP");
        for (ept, row) in table {
            shown += &format!("\n{ept:<4}");
            for (pat, expected) in pats.into_iter().zip(row.split(' ')) {
                assert_eq!(effective(ept, false, pat).to_string(), expected, "{ept} with {pat}");
                assert_eq!(effective(ept, true, pat), ept);
                shown += &format!(" {expected:<3}");
            }
            shown.truncate(shown.trim_end().len());
        }
        assert_in_book(&shown);
    }

    #[test]
    fn reserved_numbers_are_no_types() {
        for number in [2, 3, 8, 0x86, 0xff] {
            assert_eq!(MemoryType::of(number), None);
        }
        for number in [0, 1, 4, 5, 6, 7] {
            assert_eq!(MemoryType::of(number).map(|known| known as u8), Some(number));
        }
    }
}
