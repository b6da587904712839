//! Guest memory that the guest has given back, on its way out of each processor's tables.
//!
//! ```text
//!   balloon: zeros in the pages ─▶ give(range) ─┬─▶ processor 0: before its next entry, out of its tables
//!    (any processor, under the devices' lock)   └─▶ processor 1: the same, from tables of its own
//! ```
//!
//! The pages stay the guest's: whoever touches one that is out of the tables gets it back by a violation, as
//! memory that was never touched. So a processor that still has it mapped for a while sees what it would see
//! without, and nobody has to wait for it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;

use crate::paging::GUEST_END;

/// The most ranges that wait for a processor. With more than that it takes all memory out of its tables, which
/// is as right: what is touched is mapped again.
const MOST: usize = 256;

/// What was given back, and is in the tables of some processor still.
#[derive(Debug)]
pub struct GivenBack(Box<[Waiting]>);

/// What waits for one processor.
#[derive(Debug, Default)]
struct Waiting {
    /// Whether anything does.
    any: AtomicBool,
    /// Guest-physical addresses.
    ranges: Mutex<Vec<Range<u64>>>,
}

impl GivenBack {
    /// For a guest with so many processors.
    #[must_use]
    pub fn new(processors: u32) -> Self {
        Self((0..processors).map(|_| Waiting::default()).collect())
    }

    /// The guest has given back whole pages at these guest-physical addresses.
    pub fn give(&self, range: &Range<u64>) {
        for waiting in &self.0 {
            let mut ranges = waiting.ranges.lock();
            let full = ranges.len() == MOST;
            match ranges.last_mut() {
                Some(last) if last.start <= range.start && range.end <= last.end => {}
                Some(last) if last.end == range.start => last.end = range.end,
                _ if !full => ranges.push(range.clone()),
                _ => {
                    *ranges = Vec::from([Range {
                        start: 0,
                        end: GUEST_END,
                    }])
                }
            }
            drop(ranges);
            waiting.any.store(true, Ordering::Release);
        }
    }

    /// What this processor is to take out of its tables, from now on its own affair.
    pub(super) fn take(&self, processor: u32) -> Vec<Range<u64>> {
        match self.0.get(processor as usize) {
            // A look is cheaper than a change, and there is nothing most of the time.
            Some(waiting) if waiting.any.load(Ordering::Relaxed) && waiting.any.swap(false, Ordering::Acquire) => {
                mem::take(&mut *waiting.ranges.lock())
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 4096;

    #[test]
    fn each_processor_gets_what_was_given_back_once_and_neighbours_together() {
        let given = GivenBack::new(2);
        given.give(&(PAGE..2 * PAGE));
        given.give(&(2 * PAGE..3 * PAGE));
        given.give(&(8 * PAGE..9 * PAGE));
        assert_eq!(given.take(0), [PAGE..3 * PAGE, 8 * PAGE..9 * PAGE]);
        assert_eq!(given.take(0), []);
        given.give(&(0..PAGE));
        assert_eq!(given.take(1), [PAGE..3 * PAGE, 8 * PAGE..9 * PAGE, 0..PAGE]);
        assert_eq!(given.take(2), [], "there is no such processor");
    }

    proptest! {
        #[test]
        fn whatever_is_given_back_is_covered_by_a_bounded_list(pages in proptest::collection::vec(0_u64..1000, 0..600)) {
            let given = GivenBack::new(1);
            for page in &pages {
                given.give(&(page * PAGE..(page + 1) * PAGE));
            }
            let taken = given.take(0);
            prop_assert!(taken.len() <= MOST);
            for page in pages {
                prop_assert!(taken.iter().any(|range| range.contains(&(page * PAGE))));
            }
        }
    }
}
