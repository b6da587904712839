//! The tables themselves: looked at, and changed while a guest may run on them.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use super::edit::{At, Edit, Map, Protect, Split, Step, Take, Unmap};
use super::format::{ADDRESS, maps_page};
use super::size::{index, span};
use super::{Error, Format, Invalidation, Mark, Page, Path, Rights, Size};
use crate::physical::Physical;

/// Levels of the tables: the root is of level 4.
pub(super) const LEVELS: u8 = 4;

/// Guest-physical addresses end here: four levels reach no further.
pub const GUEST_END: u64 = 1 << 48;

/// Second-level page tables of one guest.
///
/// Every change is a [`Change`], whose outcome is had by [`settle`](Change::settle) alone: so
/// that nobody forgets what the processors remember.
///
/// When the value is dropped, its pages are given back; no processor may know the root any more.
pub struct Table<'p, F: Format> {
    physical: &'p dyn Physical,
    format: F,
    root: u64,
    /// What the changes since the last invalidation ask for.
    owed: Invalidation,
    /// Pages of tables that are out of use, and that a processor may still have in mind.
    retired: Vec<u64>,
}

impl<'p, F: Format> Table<'p, F> {
    /// Tables that map nothing.
    ///
    /// # Errors
    ///
    /// When there is no page for the root.
    pub fn new(physical: &'p dyn Physical, format: F) -> Result<Self, Error> {
        let mut table = Self {
            physical,
            format,
            root: 0,
            owed: Invalidation::None,
            retired: Vec::new(),
        };
        table.root = table.new_page(table.format.absent())?;
        Ok(table)
    }

    /// The format, with what it knows of the processor.
    #[must_use]
    pub const fn format(&self) -> &F {
        &self.format
    }

    /// Host-physical address of the root.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// What the processor is told: the EPTP of the VMCS, or the VMCB's nCR3.
    #[must_use]
    pub fn pointer(&self) -> u64 {
        self.format.pointer(self.root)
    }

    /// The way of the processor through the tables to a guest-physical address.
    #[must_use]
    pub fn path(&self, guest: u64) -> Path<F> {
        Path::follow(self.format, self.root, guest, |table, index| {
            self.entry(table, index).load(Ordering::Acquire)
        })
    }

    /// Where a guest-physical address lies in the host, and the page it lies in; `None` if it is
    /// not mapped. The page's rights are those of the whole way.
    #[must_use]
    pub fn translate(&self, guest: u64) -> Option<(u64, Page)> {
        let page = self.path(guest).page()?;
        Some((page.host + guest % page.size.bytes(), page))
    }

    /// Maps guest-physical addresses from `guest` on to host-physical ones from `page.host` on,
    /// for `len` bytes, in pages of `page.size` at most: the largest that the processor offers
    /// and that the alignment of both addresses and the length allow.
    ///
    /// Nothing of it may be mapped yet.
    pub fn map(&mut self, guest: u64, len: u64, page: Page) -> Change<'_, 'p, F> {
        let outcome = self.check_page(guest, len, page).and_then(|range| {
            if let Some(address) = self.first_mapped(range.clone()) {
                return Err(Error::Mapped { address });
            }
            self.edit(range, &mut Map { guest, page })
        });
        self.changed(outcome)
    }

    /// Like [`map`](Self::map), in place of whatever is mapped there.
    pub fn remap(&mut self, guest: u64, len: u64, page: Page) -> Change<'_, 'p, F> {
        let outcome = self
            .check_page(guest, len, page)
            .and_then(|range| self.edit(range, &mut Map { guest, page }));
        self.changed(outcome)
    }

    /// Maps the page that a violation at `guest` asks for: the largest that holds the address,
    /// lies in `region`, is not larger than `page.size` and takes the place of nothing that is
    /// mapped. `page.host` is where the region begins in the host.
    pub fn populate(&mut self, guest: u64, region: Range<u64>, page: Page) -> Change<'_, 'p, F> {
        let len = region.end.saturating_sub(region.start);
        let outcome = self.check_page(region.start, len, page).and_then(|region| {
            if !region.contains(&guest) {
                let limit = region.end;
                return Err(Error::Beyond {
                    what: "guest-physical",
                    address: guest,
                    len: 1,
                    limit,
                });
            }
            let path = self.path(guest);
            if path.page().is_some() {
                return Err(Error::Mapped { address: guest });
            }
            let fits = |size: &Size| {
                let start = guest & !(size.bytes() - 1);
                *size <= page.size
                    && size.bytes() <= path.reach()
                    && self.format.offers(*size)
                    && region.start <= start
                    && start + size.bytes() <= region.end
                    && (page.host + (start - region.start)).is_multiple_of(size.bytes())
            };
            let size = [Size::Huge, Size::Large].into_iter().find(fits).unwrap_or(Size::Small);
            let start = guest & !(size.bytes() - 1);
            let host = page.host + (start - region.start);
            self.edit(
                start..start + size.bytes(),
                &mut Map {
                    guest: start,
                    page: Page { host, size, ..page },
                },
            )
        });
        self.changed(outcome)
    }

    /// Takes away whatever is mapped in a range, and the tables that map nothing then. Large
    /// pages that reach out of it are split.
    pub fn unmap(&mut self, guest: u64, len: u64) -> Change<'_, 'p, F> {
        self.change(guest, len, &mut Unmap)
    }

    /// Gives all pages of a range these rights. Large pages that reach out of it are split; what
    /// is not mapped stays so.
    pub fn protect(&mut self, guest: u64, len: u64, rights: Rights) -> Change<'_, 'p, F> {
        match self.check_rights(rights) {
            Ok(()) => self.change(guest, len, &mut Protect(rights)),
            Err(refused) => self.changed(Err(refused)),
        }
    }

    /// Splits the pages of a range that are larger than `largest`. A page's accessed and dirty
    /// flags become those of all its pieces.
    pub fn split(&mut self, guest: u64, len: u64, largest: Size) -> Change<'_, 'p, F> {
        self.change(guest, len, &mut Split(largest))
    }

    /// Clears the accessed or the dirty flags of the pages of a range, and tells which pages had
    /// them: guest-physical address and size. A page that reaches out of the range counts.
    ///
    /// What the pages hold is to be read after the change has been settled, not before: until
    /// then a processor may write to a page that it remembers as dirty, without a new mark.
    /// Flags of entries that lead to tables stay as they are.
    pub fn take(&mut self, mark: Mark, guest: u64, len: u64, mut found: impl FnMut(u64, Size)) -> Change<'_, 'p, F> {
        let mut take = Take {
            mark,
            found: &mut found,
        };
        self.change(guest, len, &mut take)
    }

    /// Puts any value in the place of the entry of this level on the way to a guest-physical
    /// address, if the way goes so far: to see what a processor says to an entry that no change
    /// would make.
    ///
    /// # Safety
    ///
    /// The processor believes the entry: the guest reaches whatever it maps. So do we: an entry
    /// that leads to a table has to lead to the one it led to.
    pub unsafe fn overwrite(&mut self, guest: u64, level: u8, entry: u64) -> Change<'_, 'p, F> {
        let path = self.path(guest);
        for step in path.steps.iter().flatten().filter(|step| step.level == level) {
            let slot = self.entry(step.table, usize::from(step.index));
            let old = slot.swap(entry, Ordering::AcqRel);
            self.owed = self.owed.max(Invalidation::of(&self.format, old, entry));
        }
        self.changed(Ok(()))
    }

    /// Makes the change that an [`Edit`] says.
    pub(super) fn change(&mut self, guest: u64, len: u64, edit: &mut dyn Edit<F>) -> Change<'_, 'p, F> {
        let outcome = check_guest(guest, len).and_then(|range| self.edit(range, edit));
        self.changed(outcome)
    }

    fn changed(&mut self, outcome: Result<(), Error>) -> Change<'_, 'p, F> {
        Change { table: self, outcome }
    }

    fn check_page(&self, guest: u64, len: u64, page: Page) -> Result<Range<u64>, Error> {
        let range = check_guest(guest, len)?;
        aligned("host-physical address", page.host)?;
        let limit = 1 << self.format.address_bits();
        if page.host.checked_add(len).is_none_or(|end| end > limit) {
            return Err(Error::Beyond {
                what: "host-physical",
                address: page.host,
                len,
                limit,
            });
        }
        self.check_rights(page.rights)?;
        let small = Page {
            size: Size::Small,
            ..page
        };
        match self.format.page(small) {
            Some(_) => Ok(range),
            None => Err(Error::MemoryType(page.memory_type, F::NAME)),
        }
    }

    fn check_rights(&self, rights: Rights) -> Result<(), Error> {
        match self.format.with_rights(0, rights) {
            Some(_) if !rights.is_none() => Ok(()),
            _ => Err(Error::Rights(rights, F::NAME)),
        }
    }

    fn first_mapped(&self, range: Range<u64>) -> Option<u64> {
        self.pages(range).next().map(|(address, _)| address)
    }

    /// The pages that are mapped in a range, and the guest-physical address of each. The first
    /// may begin before the range, the last may end after it.
    pub fn pages(&self, range: Range<u64>) -> impl Iterator<Item = (u64, Path<F>)> + '_ {
        let mut next = range.start;
        core::iter::from_fn(move || {
            while next < range.end.min(GUEST_END) {
                let path = self.path(next);
                let start = next & !(path.reach() - 1);
                next = start + path.reach();
                if path.page().is_some() {
                    return Some((start, path));
                }
            }
            None
        })
    }

    fn edit(&mut self, range: Range<u64>, edit: &mut dyn Edit<F>) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        self.edit_table(self.root, LEVELS, 0, &range, edit)
    }

    /// Goes through the entries of one table that have to do with a range. `base` is the
    /// guest-physical address of its first entry.
    fn edit_table(
        &mut self,
        table: u64,
        level: u8,
        base: u64,
        range: &Range<u64>,
        edit: &mut dyn Edit<F>,
    ) -> Result<(), Error> {
        let last = base + (span(level) * 512 - 1);
        let (first, last) = (range.start.max(base), (range.end - 1).min(last));
        for index in index(first, level)..=index(last, level) {
            let start = base + index as u64 * span(level);
            let whole = range.start <= start && start + span(level) <= range.end;
            loop {
                let entry = self.entry(table, index).load(Ordering::Acquire);
                let at = At {
                    guest: start,
                    level,
                    whole,
                    entry,
                };
                match edit.step(&self.format, &at) {
                    Step::Keep => {}
                    Step::Set(new) => {
                        if !self.replace(table, index, level, entry, new) {
                            // The processor has set a flag meanwhile.
                            continue;
                        }
                        edit.done(&at);
                    }
                    Step::Descend if level == 1 => {}
                    Step::Descend => {
                        let Some(child) = self.child(table, index, level, entry)? else {
                            continue;
                        };
                        let outcome = self.edit_table(child, level - 1, start, range, edit);
                        if (edit.takes_away() || outcome.is_err()) && self.is_empty(child) {
                            let entry = self.entry(table, index).load(Ordering::Acquire);
                            self.replace(table, index, level, entry, self.format.absent());
                        }
                        outcome?;
                    }
                }
                break;
            }
        }
        Ok(())
    }

    /// The table that an entry leads to. If there is none it is made: an empty one, or one that
    /// maps in smaller pages what the entry maps. `None` if the entry has changed meanwhile.
    fn child(&mut self, table: u64, index: usize, level: u8, entry: u64) -> Result<Option<u64>, Error> {
        if let Some(table) = self.leads_to(entry, level) {
            return Ok(Some(table));
        }
        let present = !self.format.rights(entry).is_none();
        let child = self.new_page(if present { 0 } else { entry })?;
        let mut new = self.format.table(child);
        if let Some(size) = Size::of_level(level).filter(|_| present) {
            // The bits of an address below the page's size have other meanings.
            let host = entry & ADDRESS & !(size.bytes() - 1);
            let hosts = (host..).step_by(span(level - 1) as usize);
            for (place, host) in self.entries(child).iter().zip(hosts) {
                place.store(self.format.piece(entry, size, host), Ordering::Relaxed);
            }
            // A page that was used has a way to it that was used.
            new |= entry & F::ACCESSED;
        }
        if self.replace(table, index, level, entry, new) {
            return Ok(Some(child));
        }
        // SAFETY: it was allocated above, and no entry leads to it: the one that was to do so is another's.
        unsafe { self.physical.release(child) };
        Ok(None)
    }

    /// Puts an entry in the place of another, if that is still there; notes what this asks for.
    fn replace(&mut self, table: u64, index: usize, level: u8, old: u64, new: u64) -> bool {
        let done = self
            .entry(table, index)
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if done {
            self.owed = self.owed.max(Invalidation::of(&self.format, old, new));
            let (was, is) = (self.leads_to(old, level), self.leads_to(new, level));
            if let Some(table) = was.filter(|_| was != is) {
                self.retire(table, level - 1);
            }
        }
        done
    }

    /// Notes a table and those below it as out of use.
    fn retire(&mut self, table: u64, level: u8) {
        for child in self.children(table, level) {
            self.retire(child, level - 1);
        }
        self.retired.push(table);
    }

    /// The tables that a table's entries lead to.
    fn children(&self, table: u64, level: u8) -> Vec<u64> {
        let entries = self.entries(table).iter().map(|entry| entry.load(Ordering::Acquire));
        entries.filter_map(|entry| self.leads_to(entry, level)).collect()
    }

    /// The table that an entry leads to, if it leads to one.
    fn leads_to(&self, entry: u64, level: u8) -> Option<u64> {
        let present = !self.format.rights(entry).is_none();
        (present && !maps_page::<F>(entry, level)).then_some(entry & ADDRESS)
    }

    fn is_empty(&self, table: u64) -> bool {
        let absent = self.format.absent();
        self.entries(table)
            .iter()
            .all(|entry| entry.load(Ordering::Acquire) == absent)
    }

    /// A page for a table, full of this entry.
    fn new_page(&self, entry: u64) -> Result<u64, Error> {
        let page = self.physical.allocate().ok_or(Error::NoPages)?;
        if entry != 0 {
            for place in self.entries(page) {
                place.store(entry, Ordering::Relaxed);
            }
        }
        Ok(page)
    }

    /// One entry of one of our own tables.
    pub(super) fn entry(&self, table: u64, index: usize) -> &AtomicU64 {
        &self.entries(table)[index]
    }

    /// The entries of one of our own tables.
    fn entries(&self, table: u64) -> &[AtomicU64; 512] {
        let start = self.physical.pointer(table).cast();
        // SAFETY: the page came from `allocate` and has not been released, because the addresses
        // of tables stand in our own entries alone, which no guest can reach; so it is mapped, and
        // nobody else's. It is 4 KiB long and as much aligned. The processor changes entries
        // meanwhile, as it does with locked accesses; so they are never reached but by atomics.
        unsafe { &*start }
    }
}

impl<F: Format> Drop for Table<'_, F> {
    fn drop(&mut self) {
        if self.root != 0 {
            self.retire(self.root, LEVELS);
        }
        for page in self.retired.drain(..) {
            // SAFETY: the tables were these tables' own, and with them nobody uses any: whoever has told a processor
            // of the root has told it to forget it before.
            unsafe { self.physical.release(page) };
        }
    }
}

impl<F: Format> fmt::Debug for Table<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tables at {:#x}", F::NAME, self.root)
    }
}

/// A change that has been made in the tables, and of which the processors may know nothing yet.
#[must_use = "the processors may not know of the change: settle it"]
pub struct Change<'t, 'p, F: Format> {
    table: &'t mut Table<'p, F>,
    outcome: Result<(), Error>,
}

impl<F: Format> Change<'_, '_, F> {
    /// What the change asks for, together with earlier ones that were not settled. A change that
    /// failed in the middle asks for something too.
    #[must_use]
    pub const fn needs(&self) -> Invalidation {
        self.table.owed
    }

    /// Tells how the change went, after the processors have been made to forget what it changed:
    /// by `invalidate`, which gets the EPTP or nCR3 and is called only if that is needed. Pages of
    /// tables that went out of use are given back after that and not before, because a processor
    /// may go on walking a table as long as it remembers the way to it.
    ///
    /// # Errors
    ///
    /// As the change had them.
    pub fn settle(self, invalidate: impl FnOnce(u64)) -> Result<(), Error> {
        let Self { table, outcome } = self;
        if table.owed == Invalidation::Context {
            invalidate(table.pointer());
        }
        table.owed = Invalidation::None;
        for page in table.retired.drain(..) {
            // SAFETY: no entry leads to it any more, and the processor has just forgotten those that did.
            unsafe { table.physical.release(page) };
        }
        outcome
    }
}

/// The range, if it is one of whole pages among the guest-physical addresses.
fn check_guest(guest: u64, len: u64) -> Result<Range<u64>, Error> {
    aligned("guest-physical address", guest)?;
    aligned("length", len)?;
    match guest.checked_add(len) {
        Some(end) if end <= GUEST_END => Ok(guest..end),
        _ => Err(Error::Beyond {
            what: "guest-physical",
            address: guest,
            len,
            limit: GUEST_END,
        }),
    }
}

const fn aligned(what: &'static str, value: u64) -> Result<(), Error> {
    if value.is_multiple_of(Size::Small.bytes()) {
        Ok(())
    } else {
        Err(Error::Unaligned { what, value })
    }
}
