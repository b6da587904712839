//! The way of the processor through the tables to one address.

use core::fmt;

use super::format::{ADDRESS, maps_page};
use super::size::{index, span, table_name};
use super::table::{GUEST_END, LEVELS};
use super::{Broken, Format, Mark, Page, Rights, Size};

/// One entry on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// 4 for the root, down to 1 for the page table.
    pub level: u8,
    /// Host-physical address of the table.
    pub table: u64,
    /// Which of its 512 entries.
    pub index: u16,
    /// The entry.
    pub entry: u64,
}

impl Step {
    /// Host-physical address of the entry.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.table + 8 * self.index as u64
    }
}

/// The way to a guest-physical address, as far as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path<F> {
    format: F,
    /// The guest-physical address.
    pub guest: u64,
    /// The entries, from the root down; `None` below the last. None at all for an address that
    /// four levels do not reach.
    pub steps: [Option<Step>; LEVELS as usize],
}

impl<F: Format> Path<F> {
    /// Follows an address down from a root. `load` reads an entry, by its table and its number.
    pub(super) fn follow(format: F, root: u64, guest: u64, load: impl Fn(u64, usize) -> u64) -> Self {
        let mut steps = [None; LEVELS as usize];
        if guest >= GUEST_END {
            return Self { format, guest, steps };
        }
        let mut table = root;
        for (level, step) in (1..=LEVELS).rev().zip(&mut steps) {
            let index = index(guest, level);
            let entry = load(table, index);
            *step = Some(Step {
                level,
                table,
                index: index as u16,
                entry,
            });
            let ends = format.rights(entry).is_none() || format.broken(level, entry).is_some();
            if ends || maps_page::<F>(entry, level) {
                break;
            }
            table = entry & ADDRESS;
        }
        Self { format, guest, steps }
    }

    /// The last entry on the way.
    #[must_use]
    pub fn last(&self) -> Option<&Step> {
        self.steps.iter().flatten().next_back()
    }

    /// What one entry on the way allows.
    pub(super) fn allows(&self, step: &Step) -> Rights {
        self.format.rights(step.entry)
    }

    /// What all entries on the way allow together. At an entry that is not present: nothing.
    #[must_use]
    pub fn rights(&self) -> Rights {
        let entries = self.steps.iter().flatten().map(|step| step.entry);
        entries.fold(Rights::ALL, |rights, entry| rights & self.format.rights(entry))
    }

    /// The page at the end of the way, with the rights of the whole way; `None` if the way ends
    /// before.
    #[must_use]
    pub fn page(&self) -> Option<Page> {
        let Step { level, entry, .. } = *self.last()?;
        if self.rights().is_none() || self.broken().is_some() || !maps_page::<F>(entry, level) {
            return None;
        }
        let size = Size::of_level(level)?;
        Some(Page {
            host: entry & ADDRESS & !(size.bytes() - 1),
            size,
            rights: self.rights(),
            memory_type: self.format.memory_type(entry, size)?,
        })
    }

    /// What is wrong with the last entry, if something is. No way goes on below such an entry.
    #[must_use]
    pub fn broken(&self) -> Option<Broken> {
        let last = self.last()?;
        self.format.broken(last.level, last.entry)
    }

    /// Whether the entry that maps the page has this mark.
    #[must_use]
    pub fn marked(&self, mark: Mark) -> bool {
        self.page().is_some() && self.last().is_some_and(|step| step.entry & mark.bit::<F>() != 0)
    }

    /// How many bytes the last entry stands for: all of them lead the same way.
    #[must_use]
    pub fn reach(&self) -> u64 {
        span(self.last().map_or(LEVELS, |step| step.level))
    }
}

impl<F: Format> fmt::Display for Path<F> {
    /// A line for each entry, and one for the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in self.steps.iter().flatten() {
            describe(&self.format, f, step)?;
            writeln!(f)?;
        }
        let guest = self.guest;
        match self.page() {
            Some(page) => {
                let host = page.host + guest % page.size.bytes();
                let Page {
                    size,
                    rights,
                    memory_type,
                    ..
                } = page;
                write!(
                    f,
                    "{guest:#x} is {host:#x} in a page of {size}, {rights}, {memory_type}"
                )
            }
            None => match (self.broken(), self.last()) {
                (Some(Broken { bits, why }), Some(step)) => write!(
                    f,
                    "{guest:#x} leads to a {} entry that the processor refuses, for its bits {:#x}: {why}",
                    table_name(step.level),
                    step.entry & bits,
                ),
                _ => write!(f, "{guest:#x} is not mapped"),
            },
        }
    }
}

/// The part of an entry's line that both formats have: the table, the entry, where it leads.
pub(super) fn describe<F: Format>(format: &F, f: &mut fmt::Formatter<'_>, step: &Step) -> fmt::Result {
    let Step {
        level,
        table,
        index,
        entry,
    } = *step;
    let name = table_name(level);
    write!(f, "{} {name:<4} {table:#x}[{index}] = {entry:#018x}", F::NAME)?;
    let rights = format.rights(entry);
    if rights.is_none() {
        return f.write_str("  not present");
    }
    write!(f, "  to {:#x} {rights}", entry & ADDRESS)?;
    if let Some(size) = Size::of_level(level).filter(|_| maps_page::<F>(entry, level)) {
        match format.memory_type(entry, size) {
            Some(memory_type) => write!(f, " page {size} {memory_type}")?,
            None => write!(f, " page {size} of a reserved memory type")?,
        }
    }
    if entry & F::ACCESSED != 0 {
        f.write_str(" accessed")?;
    }
    if entry & F::DIRTY != 0 && maps_page::<F>(entry, level) {
        f.write_str(" dirty")?;
    }
    Ok(())
}
