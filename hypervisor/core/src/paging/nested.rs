//! The two-dimensional walk: a linear address of a guest, through the guest's own tables, each of
//! which lies at a guest-physical address, and so through the second-level tables once for each.
//!
//! ```text
//!   CR3 ──► gPML4 ──► gPDPT ──► gPD ──► gPT ──► page
//!    │4       │4        │4       │4      │4        second-level loads, one for each level
//!    └ +1     └ +1      └ +1     └ +1    │         loads of the guest's entries
//!                                        └── 5 ways of 4 loads, and 4 entries: 24
//! ```

use alloc::format;
use alloc::string::ToString;
use core::fmt;

use chiton_shared::memory::GuestMemory;
use x86_64::structures::paging::PageTableFlags as Flags;

use super::format::{ADDRESS, maps_page};
use super::path::describe;
use super::size::index;
use super::table::LEVELS;
use super::{Cause, Format, Mark, Path, Purpose, Rights, Size, Step, Table, Violation};
use crate::explain::{self, Walk, WalkEnd};

/// The most loads that a walk can need.
pub const MOST_LOADS: usize = LEVELS as usize * 5 + 4;

/// What a guest does with a linear address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Reads, writes or fetches.
    pub rights: Rights,
    /// In ring 3. What is forbidden to ring 0 by SMEP and SMAP is not looked at; CR0.WP is taken
    /// to be 1.
    pub user: bool,
}

/// The way to one guest-physical address, and what is there for the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way<F> {
    /// Through the second-level tables.
    pub path: Path<F>,
    /// What the processor does at the address: with an entry of the guest's tables it may count as
    /// a write.
    pub access: Rights,
    /// The guest's entry at the address; `None` for the page that the linear address means, and
    /// where the entry cannot be read.
    pub entry: Option<explain::Step>,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NestedEnd {
    /// At a byte of the host's memory.
    Host {
        /// Its host-physical address.
        host: u64,
        /// The smaller of the guest's page and the host's: what the processor remembers as one.
        size: u64,
    },
    /// The guest's tables forbid it: a page fault of the guest, of which the hypervisor need not
    /// hear.
    Fault,
    /// The second-level tables stop it: an exit.
    Violation(Violation, Cause),
    /// A table of the guest's is mapped to something that is not the guest's memory.
    NoTable,
}

/// A two-dimensional walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nested<F> {
    format: F,
    /// The guest's CR3.
    pub cr3: u64,
    /// What the guest does.
    pub access: Access,
    /// The walk of the guest's tables alone, as if second-level tables allowed everything.
    pub guest: Walk,
    /// The ways through the second-level tables: one for each of the guest's tables, then the
    /// page's. `None` after the last.
    pub ways: [Option<Way<F>>; 5],
    /// How it ended.
    pub end: NestedEnd,
}

/// Walks for one access to a linear address. The guest's tables are read from `memory`, which has
/// to be what the second-level tables map.
pub fn walk<F: Format, M: GuestMemory + ?Sized>(
    memory: &M,
    table: &Table<'_, F>,
    cr3: u64,
    linear: u64,
    access: Access,
) -> Nested<F> {
    let guest = explain::walk(memory, cr3, linear);
    let mut nested = Nested {
        format: *table.format(),
        cr3,
        access,
        guest,
        ways: [None; 5],
        end: NestedEnd::Fault,
    };
    nested.end = nested.follow(table);
    nested
}

impl<F: Format> Nested<F> {
    fn follow(&mut self, table: &Table<'_, F>) -> NestedEnd {
        let steps = self.guest.steps;
        for (step, way) in steps.into_iter().flatten().zip(&mut self.ways) {
            let updates = self.guest.physical().is_some() && guest_marks(&step, self.access).any();
            let write = updates || self.format.walks_write();
            let access = Rights::new(true, write, false);
            let path = table.path(step.table + 8 * u64::from(step.index));
            let stop = stopped(&path, access, self.guest.address, Purpose::Tables);
            let entry = stop.is_none().then_some(step);
            *way = Some(Way { path, access, entry });
            if let Some(stop) = stop {
                return stop;
            }
        }
        let WalkEnd::Mapped { physical, page, .. } = self.guest.end else {
            return match self.guest.end {
                WalkEnd::NoTable => self.follow_outside(table),
                _ => NestedEnd::Fault,
            };
        };
        if !self.guest_allows() {
            return NestedEnd::Fault;
        }
        let path = table.path(physical);
        let access = self.access.rights;
        let stop = stopped(&path, access, self.guest.address, Purpose::Page);
        self.push(Way {
            path,
            access,
            entry: None,
        });
        match (stop, path.page()) {
            (Some(stop), _) => stop,
            (None, Some(found)) => NestedEnd::Host {
                host: found.host + physical % found.size.bytes(),
                size: page.min(found.size.bytes()),
            },
            (None, None) => NestedEnd::Fault,
        }
    }

    /// The next of the guest's tables lies outside of its memory: most likely no second-level
    /// entry leads there.
    fn follow_outside(&mut self, table: &Table<'_, F>) -> NestedEnd {
        let done = self.guest.steps.iter().flatten().count() as u8;
        let above = self
            .guest
            .steps
            .iter()
            .flatten()
            .next_back()
            .map_or(self.cr3, |step| step.entry);
        let entry = (above & ADDRESS) + 8 * index(self.guest.address, LEVELS - done) as u64;
        let access = Rights::new(true, self.format.walks_write(), false);
        let path = table.path(entry);
        self.push(Way {
            path,
            access,
            entry: None,
        });
        let stop = stopped(&path, access, self.guest.address, Purpose::Tables);
        stop.unwrap_or(NestedEnd::NoTable)
    }

    fn push(&mut self, new: Way<F>) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.is_none()) {
            *way = Some(new);
        }
    }

    /// Whether the guest's own tables allow the access.
    #[must_use]
    pub const fn guest_allows(&self) -> bool {
        let Access { rights, user } = self.access;
        match self.guest.end {
            WalkEnd::Mapped {
                write,
                user: of_user,
                execute,
                ..
            } => (of_user || !user) && (write || !rights.write) && (execute || !rights.execute),
            _ => false,
        }
    }

    /// How many entries the processor loads if it remembers nothing.
    #[must_use]
    pub fn loads(&self) -> usize {
        let ways = self.ways.iter().flatten();
        ways.map(|way| way.path.steps.iter().flatten().count() + usize::from(way.entry.is_some()))
            .sum()
    }

    /// How many loads of the 24 large pages save, of the guest's and of the host's; known when the
    /// walk has come to its end.
    #[must_use]
    pub fn saved(&self) -> Option<usize> {
        matches!(self.end, NestedEnd::Host { .. }).then(|| MOST_LOADS - self.loads())
    }

    /// What the processor notes in a second-level entry that it uses on this way.
    fn marks(&self, way: &Way<F>, step: &Step) -> Marks {
        if !self.format.keeps_marks() || self.format.rights(step.entry).is_none() {
            return Marks::default();
        }
        let page = maps_page::<F>(step.entry, step.level);
        let clear = |mark: Mark| step.entry & mark.bit::<F>() == 0;
        let whole = way.path.page().is_some_and(|page| page.rights.contains(way.access));
        Marks {
            accessed: whole && clear(Mark::Accessed),
            dirty: whole && page && way.access.write && clear(Mark::Dirty),
        }
    }
}

/// Flags that the processor sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks {
    accessed: bool,
    dirty: bool,
}

impl Marks {
    const fn any(self) -> bool {
        self.accessed || self.dirty
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.accessed { "  +accessed" } else { "" })?;
        f.write_str(if self.dirty { "  +dirty" } else { "" })
    }
}

/// What the processor sets in an entry of the guest's.
fn guest_marks(step: &explain::Step, access: Access) -> Marks {
    let flags = Flags::from_bits_truncate(step.entry);
    let page = step.level == 1 || flags.contains(Flags::HUGE_PAGE);
    Marks {
        accessed: !flags.contains(Flags::ACCESSED),
        dirty: page && access.rights.write && !flags.contains(Flags::DIRTY),
    }
}

/// The exit that a way ends in, unless it allows the access.
fn stopped<F: Format>(path: &Path<F>, access: Rights, linear: u64, purpose: Purpose) -> Option<NestedEnd> {
    let violation = Violation {
        guest: path.guest,
        linear: Some(linear),
        access,
        purpose,
        allowed: Some(path.rights()),
    };
    match violation.cause(path) {
        Cause::Stale => None,
        cause => Some(NestedEnd::Violation(violation, cause)),
    }
}

impl<F: Format> fmt::Display for Nested<F> {
    /// A numbered line for each load, those of the guest's entries further to the left.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let linear = self.guest.address;
        let what = match (self.access.rights.write, self.access.rights.execute) {
            (_, true) => "fetch",
            (true, _) => "write",
            _ => "read",
        };
        let ring = if self.access.user { 3 } else { 0 };
        writeln!(f, "{what} of {linear:#x} in ring {ring}, CR3 {:#x}", self.cr3)?;
        let mut number = 0;
        for way in self.ways.iter().flatten() {
            for step in way.path.steps.iter().flatten() {
                number += 1;
                write!(f, "{number:>3}     ")?;
                describe(&self.format, f, step)?;
                writeln!(f, "{}", self.marks(way, step))?;
            }
            if let Some(page) = way.path.page() {
                let host = page.host + way.path.guest % page.size.bytes();
                writeln!(
                    f,
                    "        {:#x} is {host:#x} in a page of {}",
                    way.path.guest, page.size
                )?;
            }
            if let Some(step) = way.entry {
                number += 1;
                write!(f, "{number:>3} {step}")?;
                let sets = self.guest_allows();
                writeln!(
                    f,
                    "{}",
                    if sets {
                        guest_marks(&step, self.access)
                    } else {
                        Marks::default()
                    }
                )?;
            }
        }
        let loads = match number {
            1 => "1 load".to_string(),
            _ => format!("{number} loads"),
        };
        match self.end {
            NestedEnd::Host { host, size } => {
                let saved = MOST_LOADS - number;
                writeln!(
                    f,
                    "{linear:#x} is {host:#x} of the host, by {loads}; large pages saved {saved}"
                )?;
                let size = [Size::Small, Size::Large, Size::Huge]
                    .into_iter()
                    .find(|known| known.bytes() == size);
                match size {
                    Some(size) => write!(f, "the processor remembers it as a page of {size}"),
                    None => Ok(()),
                }
            }
            NestedEnd::Fault => {
                write!(
                    f,
                    "a page fault of the guest's own, after {loads}: {}",
                    walk_end(&self.guest)
                )
            }
            NestedEnd::Violation(violation, cause) => {
                write!(f, "an exit, after {loads}: {violation}\n{} {cause}", F::NAME)
            }
            NestedEnd::NoTable => write!(f, "after {loads}: {}", walk_end(&self.guest)),
        }
    }
}

/// The sentence on the end of the guest's own walk.
fn walk_end(walk: &Walk) -> impl fmt::Display {
    Walk {
        steps: [None; 4],
        ..*walk
    }
}
