//! Pages of the machine that the processor itself reads or writes: VMCS, VMCB, bitmaps, areas.

use alloc::vec::Vec;

use spin::Mutex;

use super::Physical;

/// Size of a page, in bytes.
pub const PAGE_SIZE: usize = 4096;

/// How many pages are looked at to find some that lie side by side.
const TRIED: usize = 64;

/// Who looks for some that lie side by side.
static SEARCH: Mutex<()> = Mutex::new(());

/// There is no page left for this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no page of memory is left for {0}: give the machine more memory, or the guest less")]
pub struct NoPage(pub &'static str);

/// Pages of their own, side by side, given back at the end.
pub struct Pages {
    physical: &'static dyn Physical,
    address: u64,
    count: usize,
}

impl Pages {
    /// A zeroed page; `what` it is for is said when there is none.
    ///
    /// # Errors
    ///
    /// [`NoPage`].
    pub fn one(physical: &'static dyn Physical, what: &'static str) -> Result<Self, NoPage> {
        Self::side_by_side(physical, what, 1)
    }

    /// So many zeroed pages, each behind the one before. Pages are given out one by one, so several
    /// are taken until some happen to lie so, and the others go back. One processor does so at a time: two in step
    /// would each get every other page.
    ///
    /// # Errors
    ///
    /// [`NoPage`].
    pub fn side_by_side(physical: &'static dyn Physical, what: &'static str, count: usize) -> Result<Self, NoPage> {
        let _alone = SEARCH.lock();
        let mut taken = Vec::new();
        let mut found = None;
        while found.is_none() && taken.len() < TRIED {
            let Some(page) = physical.allocate() else { break };
            taken.push(page);
            taken.sort_unstable();
            found = taken
                .windows(count)
                .map(|run| (run[0], run[count - 1]))
                .find(|(first, last)| last - first == ((count - 1) * PAGE_SIZE) as u64);
        }
        let kept = found.map_or(0..0, |(first, last)| first..last + PAGE_SIZE as u64);
        for page in taken.into_iter().filter(|page| !kept.contains(page)) {
            // SAFETY: it was taken above, and nobody has been told of it.
            unsafe { physical.release(page) };
        }
        match found {
            Some((address, _)) => Ok(Self {
                physical,
                address,
                count,
            }),
            None => Err(NoPage(what)),
        }
    }

    /// The physical address of the first.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Where the first is mapped; the others follow.
    #[must_use]
    pub fn pointer(&self) -> *mut u8 {
        self.physical.pointer(self.address)
    }

    /// Where a value at an offset is mapped.
    ///
    /// # Panics
    ///
    /// When it is not aligned, or not in the pages.
    #[must_use]
    pub fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset.is_multiple_of(align_of::<T>()), "a value is aligned");
        assert!(
            offset + size_of::<T>() <= self.count * PAGE_SIZE,
            "a value lies in the pages"
        );
        self.pointer().wrapping_add(offset).cast()
    }

    /// Gives every byte the same value.
    pub fn fill(&self, byte: u8) {
        // SAFETY: the pages are mapped there in one piece, are this value's own, and no reference
        // to them exists.
        unsafe { self.pointer().write_bytes(byte, self.count * PAGE_SIZE) }
    }

    /// Writes the 32 bits at an offset.
    ///
    /// # Panics
    ///
    /// As [`at`](Self::at).
    pub fn write_u32(&self, offset: usize, value: u32) {
        // SAFETY: aligned and in the pages, as `at` has checked, and volatile since the processor reads it.
        unsafe { self.at::<u32>(offset).write_volatile(value) }
    }

    /// Writes the 64 bits at an offset.
    ///
    /// # Panics
    ///
    /// As [`at`](Self::at).
    pub fn write_u64(&self, offset: usize, value: u64) {
        // SAFETY: as for `write_u32`.
        unsafe { self.at::<u64>(offset).write_volatile(value) }
    }

    /// Reads the 64 bits at an offset.
    ///
    /// # Panics
    ///
    /// As [`at`](Self::at).
    #[must_use]
    pub fn read_u64(&self, offset: usize) -> u64 {
        // SAFETY: as for `write_u32`.
        unsafe { self.at::<u64>(offset).read_volatile() }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for page in 0..self.count {
            // SAFETY: the pages are this value's own, from `allocate`. Whoever has let a processor use them keeps
            // this value until it no longer does.
            unsafe { self.physical.release(self.address + (page * PAGE_SIZE) as u64) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Gives out these pages from the end, and takes them back.
    struct Some(Mutex<Vec<u64>>);

    // SAFETY: nothing is read or written: `pointer` does not return.
    unsafe impl Physical for Some {
        fn allocate(&self) -> Option<u64> {
            self.0.lock().unwrap().pop()
        }

        unsafe fn release(&self, page: u64) {
            self.0.lock().unwrap().push(page);
        }

        fn pointer(&self, _physical: u64) -> *mut u8 {
            panic!("nothing is read or written")
        }
    }

    impl Some {
        const fn none() -> Self {
            Self(Mutex::new(Vec::new()))
        }

        fn with(&self, pages: &[u64]) -> &Self {
            self.0.lock().unwrap().extend(pages);
            self
        }
    }

    #[test]
    fn pages_that_lie_side_by_side_are_found_and_the_others_given_back() {
        static PAGES: Some = Some::none();
        let physical = PAGES.with(&[0x9000, 0x1000, 0x6000, 0x3000, 0x2000, 0x5000]);
        let pages = Pages::side_by_side(physical, "a test", 3).unwrap();
        assert_eq!(pages.address(), 0x1000);
        let mut left = physical.0.lock().unwrap().clone();
        left.sort_unstable();
        assert_eq!(left, [0x5000, 0x6000, 0x9000]);
        drop(pages);
        assert_eq!(physical.0.lock().unwrap().len(), 6);
    }

    #[test]
    fn who_looks_at_the_same_time_as_another_finds_some_too() {
        /// Gives out every page once, to one and the other in turn if they ask at the same time.
        struct InTurn(Mutex<u64>);
        // SAFETY: as of `Some`, nothing is read or written.
        unsafe impl Physical for InTurn {
            fn allocate(&self) -> Option<u64> {
                let mut next = self.0.lock().unwrap();
                *next += PAGE_SIZE as u64;
                let page = *next;
                drop(next);
                std::thread::sleep(std::time::Duration::from_micros(50));
                Option::Some(page)
            }

            unsafe fn release(&self, _page: u64) {}

            fn pointer(&self, _physical: u64) -> *mut u8 {
                panic!("nothing is read or written")
            }
        }
        static PAGES: InTurn = InTurn(Mutex::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..8 {
                        let pages = Pages::side_by_side(&PAGES, "a test", 3).unwrap();
                        drop(pages);
                    }
                });
            }
        });
    }

    #[test]
    fn without_such_pages_all_are_given_back_and_the_purpose_is_said() {
        static PAGES: Some = Some::none();
        let physical = PAGES.with(&[0x9000, 0x1000, 0x5000, 0x3000]);
        let error = Pages::side_by_side(physical, "the map of ports", 3).err().unwrap();
        assert!(
            error
                .to_string()
                .starts_with("no page of memory is left for the map of ports")
        );
        assert_eq!(physical.0.lock().unwrap().len(), 4);
    }
}
