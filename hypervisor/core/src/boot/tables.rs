//! Page tables (SDM volume 3A, section 5.5), built where no guest can reach them.

use alloc::vec::Vec;

use chiton_shared::map;
use x86_64::structures::paging::PageTableFlags as Flags;

use super::{BootError, Mapping, PageSize};
use crate::loader::Access;

/// One table: 512 little-endian entries.
type Table = [[u8; 8]; 512];

/// How many tables there is room for.
const CAPACITY: usize = ((map::PAGE_TABLES_END - map::PAGE_TABLES) / map::PAGE) as usize;

/// Flags of an entry that leads to another table. It allows everything; the leaf decides. The
/// accessed bit is set so that the processor does not have to write it.
const TO_TABLE: Flags = Flags::PRESENT
    .union(Flags::WRITABLE)
    .union(Flags::USER_ACCESSIBLE)
    .union(Flags::ACCESSED);

/// Four-level page tables. Table `n` is to lie at `map::PAGE_TABLES + n * map::PAGE`; table 0 is
/// the root.
#[derive(Clone, Debug)]
pub(super) struct PageTables(Vec<Table>);

impl PageTables {
    /// The tables that say what the mappings say.
    pub(super) fn of(mappings: &[Mapping]) -> Result<Self, BootError> {
        let mut tables = Self(Vec::with_capacity(8));
        tables.grow()?;
        for mapping in mappings {
            tables.map(mapping)?;
        }
        Ok(tables)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Each table's address and bytes, from the first entry in use to the last.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.0
            .iter()
            .zip((map::PAGE_TABLES..).step_by(map::PAGE as usize))
            .map(|(table, address)| {
                let used = |entry: &[u8; 8]| *entry != [0; 8];
                let first = table.iter().position(used).unwrap_or(0);
                let last = table.iter().rposition(used).unwrap_or(0);
                (address + 8 * first as u64, table[first..=last].as_flattened())
            })
    }

    fn map(&mut self, mapping: &Mapping) -> Result<(), BootError> {
        let (level, flags) = (leaf_level(mapping.page), leaf_flags(mapping));
        let mut address = mapping.start;
        while address < mapping.end {
            let table = self.table_for(address, level)?;
            // As far as this table reaches, without a walk for each page.
            let mut index = index(address, level);
            while index < 512 && address < mapping.end {
                self.0[table][index] = (address | flags.bits()).to_le_bytes();
                address += mapping.page.bytes();
                index += 1;
            }
        }
        Ok(())
    }

    /// The table of this level that an address leads through; made if there is none.
    fn table_for(&mut self, address: u64, level: u32) -> Result<usize, BootError> {
        let mut table = 0;
        for above in (level + 1..=4).rev() {
            let index = index(address, above);
            let entry = u64::from_le_bytes(self.0[table][index]);
            table = if entry == 0 {
                let (new, place) = self.grow()?;
                self.0[table][index] = (place | TO_TABLE.bits()).to_le_bytes();
                new
            } else {
                ((entry & ADDRESS) - map::PAGE_TABLES) as usize / map::PAGE as usize
            };
        }
        Ok(table)
    }

    /// Adds an empty table; tells its number and its address.
    fn grow(&mut self) -> Result<(usize, u64), BootError> {
        let number = self.0.len();
        if number == CAPACITY {
            return Err(BootError::TablesFull);
        }
        self.0.push([[0; 8]; 512]);
        Ok((number, map::PAGE_TABLES + number as u64 * map::PAGE))
    }
}

/// Bits of an entry that hold an address (SDM volume 3A, table 5-20).
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The level whose entries map pages of this size: 1 is the page table, 2 the directory.
const fn leaf_level(page: PageSize) -> u32 {
    match page {
        PageSize::Small => 1,
        PageSize::Large => 2,
    }
}

/// Which entry of a table of this level an address leads through.
const fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * (level - 1)) & 511) as usize
}

/// Flags of an entry that maps a page. Accessed and dirty are set so that the processor does not
/// have to write them.
fn leaf_flags(mapping: &Mapping) -> Flags {
    let mut flags = Flags::PRESENT | Flags::ACCESSED;
    flags |= match mapping.access {
        Access::Read => Flags::NO_EXECUTE,
        Access::Write => Flags::NO_EXECUTE | Flags::WRITABLE | Flags::DIRTY,
        Access::Execute => Flags::empty(),
    };
    flags.set(Flags::USER_ACCESSIBLE, mapping.user);
    flags.set(Flags::NO_CACHE | Flags::WRITE_THROUGH, !mapping.cached);
    flags.set(Flags::HUGE_PAGE, mapping.page == PageSize::Large);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Place;

    #[test]
    fn a_full_table_area_is_an_error() {
        let page = |gib: u64| Mapping {
            start: gib << 30,
            end: (gib << 30) + map::LARGE_PAGE,
            page: PageSize::Large,
            access: Access::Write,
            user: true,
            cached: true,
            place: Place::Heap,
        };
        let fits: Vec<_> = (0..CAPACITY as u64 - 2).map(page).collect();
        assert_eq!(PageTables::of(&fits).unwrap().count(), CAPACITY);
        let one_more: Vec<_> = (0..CAPACITY as u64 - 1).map(page).collect();
        assert_eq!(PageTables::of(&one_more).unwrap_err(), BootError::TablesFull);
    }
}
