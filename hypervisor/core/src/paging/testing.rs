//! A machine of a few pages, for tests.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use crate::physical::Physical;

/// The pages of a machine: those that were allocated, by address.
pub(super) struct Pages {
    next: Cell<u64>,
    left: Cell<usize>,
    taken: RefCell<BTreeMap<u64, Box<PageBytes>>>,
}

#[repr(align(4096))]
struct PageBytes(std::cell::UnsafeCell<[u8; 4096]>);

impl Pages {
    /// A machine with so many pages free.
    pub(super) fn new(count: usize) -> Self {
        Self {
            next: Cell::new(0x10_0000),
            left: Cell::new(count),
            taken: RefCell::default(),
        }
    }

    /// How many pages are in use.
    pub(super) fn taken(&self) -> usize {
        self.taken.borrow().len()
    }
}

impl Physical for Pages {
    fn allocate(&self) -> Option<u64> {
        self.left.set(self.left.get().checked_sub(1)?);
        let page = self.next.replace(self.next.get() + 0x3000);
        let zeroed = Box::new(PageBytes([0; 4096].into()));
        self.taken.borrow_mut().insert(page, zeroed);
        Some(page)
    }

    fn release(&self, page: u64) {
        self.left.set(self.left.get() + 1);
        let known = self.taken.borrow_mut().remove(&page);
        assert!(known.is_some(), "{page:#x} is given back and was not taken");
    }

    fn pointer(&self, physical: u64) -> *mut u8 {
        let taken = self.taken.borrow();
        let page = taken.get(&physical).expect("a page that was taken");
        page.0.get().cast()
    }
}
