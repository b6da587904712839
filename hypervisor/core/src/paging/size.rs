//! Sizes of pages, and the levels whose entries map them.

use core::fmt;

/// Size of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// 4 KiB, mapped by an entry of a page table.
    Small,
    /// 2 MiB, mapped by an entry of a page directory.
    Large,
    /// 1 GiB, mapped by an entry of a page-directory-pointer table.
    Huge,
}

impl Size {
    /// The size that an entry of this level maps, if it may map a page: 1 is the page table,
    /// 4 the root.
    #[must_use]
    pub const fn of_level(level: u8) -> Option<Self> {
        match level {
            1 => Some(Self::Small),
            2 => Some(Self::Large),
            3 => Some(Self::Huge),
            _ => None,
        }
    }

    /// The level whose entries map pages of this size.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::Small => 1,
            Self::Large => 2,
            Self::Huge => 3,
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        span(self.level())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Small => "4K",
            Self::Large => "2M",
            Self::Huge => "1G",
        })
    }
}

/// How many bytes one entry of a table of this level stands for.
pub(super) const fn span(level: u8) -> u64 {
    1 << (12 + 9 * (level as u32 - 1))
}

/// Which entry of a table of this level an address leads through.
pub(super) const fn index(address: u64, level: u8) -> usize {
    (address / span(level) % 512) as usize
}

/// Name of a table by its level, as the manuals have it.
pub(super) const fn table_name(level: u8) -> &'static str {
    match level {
        1 => "PT",
        2 => "PD",
        3 => "PDPT",
        _ => "PML4",
    }
}
