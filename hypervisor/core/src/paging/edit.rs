//! How a change goes through the tables.

use super::format::maps_page;
use super::{Format, Mark, Page, Rights, Size};

/// An entry that a change has come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    /// The first guest-physical address that leads through it.
    pub(super) guest: u64,
    /// Level of its table.
    pub(super) level: u8,
    /// Whether all addresses that lead through it are to be changed.
    pub(super) whole: bool,
    /// The entry.
    pub(super) entry: u64,
}

impl At {
    /// The size of the page that the entry maps, or would map.
    pub(super) const fn size(&self) -> Option<Size> {
        Size::of_level(self.level)
    }

    /// Whether it maps a page, if it is present.
    pub(super) fn is_page<F: Format>(&self) -> bool {
        maps_page::<F>(self.entry, self.level)
    }
}

/// What is to be done with an entry.
pub(super) enum Step {
    /// Nothing; nor with what lies below it.
    Keep,
    /// It is to be this. The tables below it go out of use.
    Set(u64),
    /// The entries below it are to be looked at. If it leads to no table it will: to an empty
    /// one, or to one that splits its page.
    Descend,
}

/// A change of the tables.
pub(super) trait Edit<F: Format> {
    /// What is to be done with an entry. Entries of level 1 have nothing below them.
    fn step(&self, format: &F, at: &At) -> Step;

    /// Told of an entry, as it was, after it has been set.
    fn done(&mut self, _: &At) {}

    /// Whether a table may be empty after it.
    fn takes_away(&self) -> bool {
        false
    }
}

/// Maps pages, in place of others if there are any.
pub(super) struct Map {
    /// Where the first begins.
    pub(super) guest: u64,
    /// What it is, and their largest size.
    pub(super) page: Page,
}

impl<F: Format> Edit<F> for Map {
    fn step(&self, format: &F, at: &At) -> Step {
        // Only an entry that is whole in the range is known to begin in it.
        let fits = at
            .size()
            .filter(|size| at.whole && *size <= self.page.size && format.offers(*size));
        let page = fits.and_then(|size| {
            let host = self.page.host + (at.guest - self.guest);
            let page = Page {
                host,
                size,
                ..self.page
            };
            format.page(page).filter(|_| host.is_multiple_of(size.bytes()))
        });
        page.map_or(Step::Descend, Step::Set)
    }
}

/// Takes pages away.
pub(super) struct Unmap;

impl<F: Format> Edit<F> for Unmap {
    fn takes_away(&self) -> bool {
        true
    }

    fn step(&self, format: &F, at: &At) -> Step {
        if format.rights(at.entry).is_none() {
            Step::Keep
        } else if at.whole {
            Step::Set(format.absent())
        } else {
            Step::Descend
        }
    }
}

/// Gives pages these rights.
pub(super) struct Protect(pub(super) Rights);

impl<F: Format> Edit<F> for Protect {
    fn step(&self, format: &F, at: &At) -> Step {
        let rights = format.rights(at.entry);
        if rights.is_none() || at.is_page::<F>() && rights == self.0 {
            return Step::Keep;
        }
        if at.is_page::<F>() && at.whole {
            return format.with_rights(at.entry, self.0).map_or(Step::Keep, Step::Set);
        }
        Step::Descend
    }
}

/// Splits pages that are larger.
pub(super) struct Split(pub(super) Size);

impl<F: Format> Edit<F> for Split {
    fn step(&self, format: &F, at: &At) -> Step {
        let small = at.size().is_some_and(|size| size <= self.0);
        if small || format.rights(at.entry).is_none() {
            Step::Keep
        } else {
            Step::Descend
        }
    }
}

/// Clears a flag of pages.
pub(super) struct Take<'a> {
    /// Which flag.
    pub(super) mark: Mark,
    /// Told of the pages that had it.
    pub(super) found: &'a mut dyn FnMut(u64, Size),
}

impl<F: Format> Edit<F> for Take<'_> {
    fn step(&self, format: &F, at: &At) -> Step {
        let bit = self.mark.bit::<F>();
        if format.rights(at.entry).is_none() {
            Step::Keep
        } else if !at.is_page::<F>() {
            Step::Descend
        } else if at.entry & bit != 0 {
            Step::Set(at.entry & !bit)
        } else {
            Step::Keep
        }
    }

    fn done(&mut self, at: &At) {
        if let Some(size) = at.size() {
            (self.found)(at.guest, size);
        }
    }
}

/// Sets or clears a bit of entries that map pages or that are not present.
pub(super) struct Bit {
    /// The bit.
    pub(super) bit: u64,
    /// Whether it is to be set.
    pub(super) set: bool,
}

impl<F: Format> Edit<F> for Bit {
    fn step(&self, format: &F, at: &At) -> Step {
        let ends = format.rights(at.entry).is_none() || at.is_page::<F>();
        let new = if self.set {
            at.entry | self.bit
        } else {
            at.entry & !self.bit
        };
        if ends && new == at.entry {
            Step::Keep
        } else if ends && at.whole {
            Step::Set(new)
        } else {
            Step::Descend
        }
    }
}
