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
