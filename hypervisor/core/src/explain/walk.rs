//! A page walk (SDM volume 3A, section 5.5.4), with every entry on the way.

use core::fmt;

use chiton_shared::memory::GuestMemory;
use x86_64::structures::paging::PageTableFlags as Flags;

/// Bits of an entry, or of CR3, that hold an address (SDM volume 3A, tables 5-12 to 5-20).
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// One entry on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// 4 for the PML4, down to 1 for the page table.
    pub level: u8,
    /// Guest-physical address of the table.
    pub table: u64,
    /// Which of its 512 entries.
    pub index: u16,
    /// The entry.
    pub entry: u64,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkEnd {
    /// At a page.
    Mapped {
        /// The guest-physical address that the walked address means.
        physical: u64,
        /// Size of the page, in bytes.
        page: u64,
        /// Whether every level allows writes.
        write: bool,
        /// Whether every level allows ring 3.
        user: bool,
        /// Whether no level forbids execution.
        execute: bool,
    },
    /// At an entry whose present bit is clear.
    NotPresent,
    /// At an entry with a bit set that has to be clear.
    Reserved,
    /// At a table that is not in memory.
    NoTable,
    /// Before it began: bits 48 to 63 of the address differ from bit 47.
    NonCanonical,
}

/// A page walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The address that was walked.
    pub address: u64,
    /// The entries, from the PML4 down; `None` below the last.
    pub steps: [Option<Step>; 4],
    /// How it ended.
    pub end: WalkEnd,
}

impl Walk {
    /// The guest-physical address, if there is one.
    #[must_use]
    pub const fn physical(&self) -> Option<u64> {
        match self.end {
            WalkEnd::Mapped { physical, .. } => Some(physical),
            _ => None,
        }
    }
}

/// Walks the page tables at `cr3` for one address, four levels deep at most.
pub fn walk<M: GuestMemory + ?Sized>(memory: &M, cr3: u64, address: u64) -> Walk {
    let mut steps = [None; 4];
    let end = descend(memory, cr3, address, &mut steps);
    Walk { address, steps, end }
}

fn descend<M: GuestMemory + ?Sized>(memory: &M, cr3: u64, address: u64, steps: &mut [Option<Step>; 4]) -> WalkEnd {
    let top = address.cast_signed() >> 47;
    if top != 0 && top != -1 {
        return WalkEnd::NonCanonical;
    }
    let (mut write, mut user, mut execute) = (true, true, true);
    let mut table = cr3 & ADDRESS;
    for (level, step) in (1..=4_u8).rev().zip(steps) {
        let shift = 12 + 9 * (u32::from(level) - 1);
        let index = (address >> shift & 511) as u16;
        let Some(window) = memory.window(table + 8 * u64::from(index), 8) else {
            return WalkEnd::NoTable;
        };
        let mut bytes = [0; 8];
        window.read(0, &mut bytes);
        let entry = u64::from_le_bytes(bytes);
        *step = Some(Step {
            level,
            table,
            index,
            entry,
        });
        let flags = Flags::from_bits_truncate(entry);
        if !flags.contains(Flags::PRESENT) {
            return WalkEnd::NotPresent;
        }
        write &= flags.contains(Flags::WRITABLE);
        user &= flags.contains(Flags::USER_ACCESSIBLE);
        execute &= !flags.contains(Flags::NO_EXECUTE);
        let large = level > 1 && flags.contains(Flags::HUGE_PAGE);
        if large && level == 4 {
            return WalkEnd::Reserved;
        }
        let page = 1_u64 << shift;
        if level == 1 || large {
            // Bit 12 of a large page's entry is PAT; the address bits above have to be clear.
            if large && entry & ADDRESS & (page - 1) & !0x1000 != 0 {
                return WalkEnd::Reserved;
            }
            let physical = entry & ADDRESS & !(page - 1) | address & (page - 1);
            return WalkEnd::Mapped {
                physical,
                page,
                write,
                user,
                execute,
            };
        }
        table = entry & ADDRESS;
    }
    WalkEnd::NotPresent
}

/// Names of the tables, by level.
const TABLES: [&str; 4] = ["PT", "PD", "PDPT", "PML4"];

/// Names of the flags people ask about.
const FLAGS: [(Flags, &str); 8] = [
    (Flags::PRESENT, "present"),
    (Flags::WRITABLE, "writable"),
    (Flags::USER_ACCESSIBLE, "user"),
    (Flags::NO_CACHE, "uncached"),
    (Flags::ACCESSED, "accessed"),
    (Flags::DIRTY, "dirty"),
    (Flags::HUGE_PAGE, "large"),
    (Flags::NO_EXECUTE, "no-execute"),
];

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            level,
            table,
            index,
            entry,
        } = self;
        let name = TABLES.get(usize::from(level.wrapping_sub(1))).copied().unwrap_or("?");
        write!(f, "{name:<4} {table:#x}[{index}] = {entry:#018x}")?;
        if entry & 1 == 0 {
            return f.write_str("  not present");
        }
        write!(f, "  to {:#x}", entry & ADDRESS)?;
        let large = *level > 1;
        let flags = Flags::from_bits_truncate(*entry);
        for (flag, name) in FLAGS {
            // Bit 7 of the last level selects a memory type, and bit 6 means something in a leaf.
            if flags.contains(flag) && (flag != Flags::HUGE_PAGE || large) {
                write!(f, " {name}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Walk {
    /// A line for each level, and one for the result.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in self.steps.iter().flatten() {
            writeln!(f, "{step}")?;
        }
        let address = self.address;
        match self.end {
            WalkEnd::Mapped {
                physical,
                page,
                write,
                user,
                execute,
            } => {
                let may = match (write, execute) {
                    (true, true) => "read, write and execute",
                    (true, false) => "read and write",
                    (false, true) => "read and execute",
                    (false, false) => "read",
                };
                let who = if user { "every ring" } else { "ring 0" };
                write!(
                    f,
                    "{address:#x} is {physical:#x} in a page of {} KiB that {who} may {may}",
                    page >> 10
                )
            }
            WalkEnd::NotPresent => write!(f, "{address:#x} is not mapped"),
            WalkEnd::Reserved => write!(f, "{address:#x} leads to an entry with a reserved bit set"),
            WalkEnd::NoTable => write!(f, "{address:#x} leads to a table that is not in memory"),
            WalkEnd::NonCanonical => write!(f, "{address:#x} is not canonical"),
        }
    }
}
