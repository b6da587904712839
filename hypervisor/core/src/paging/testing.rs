//! A machine of a few pages, for tests.

use std::cell::{Cell, RefCell, UnsafeCell};

use crate::physical::Physical;

/// Where the first page is, and how far the next is from it: no table is beside another.
const START: u64 = 0x10_0000;
const STRIDE: u64 = 0x3000;

/// The pages of a machine: those that were allocated, by address.
pub(crate) struct Pages {
    most: usize,
    taken: Cell<usize>,
    /// All that ever were; `None` for those that were given back.
    pages: RefCell<Vec<Option<Box<Page>>>>,
}

#[repr(align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

impl Pages {
    /// A machine with so many pages.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            taken: Cell::new(0),
            pages: RefCell::default(),
        }
    }

    /// How many pages are in use.
    pub(crate) fn taken(&self) -> usize {
        self.taken.get()
    }

    fn number(address: u64) -> usize {
        let number = (address - START) / STRIDE;
        assert_eq!(address, START + number * STRIDE, "{address:#x} is no page");
        number as usize
    }
}

// SAFETY: each page is an allocation of its own, zeroed, at an address that no other has, until it is given back.
unsafe impl Physical for Pages {
    fn allocate(&self) -> Option<u64> {
        if self.taken() == self.most {
            return None;
        }
        self.taken.set(self.taken() + 1);
        let mut pages = self.pages.borrow_mut();
        pages.push(Some(Box::new(Page([0; 4096].into()))));
        Some(START + (pages.len() as u64 - 1) * STRIDE)
    }

    unsafe fn release(&self, page: u64) {
        let released = self.pages.borrow_mut()[Self::number(page)].take();
        assert!(released.is_some(), "{page:#x} is given back twice");
        self.taken.set(self.taken() - 1);
    }

    fn pointer(&self, physical: u64) -> *mut u8 {
        let pages = self.pages.borrow();
        let page = pages[Self::number(physical)].as_ref();
        page.expect("a page that is taken").0.get().cast()
    }
}
