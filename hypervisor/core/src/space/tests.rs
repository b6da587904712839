use alloc::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::paging::testing::Pages;
use crate::paging::{Npt, Pat};

const LARGE: u64 = 2 << 20;
const MEMORY: u64 = 4 * LARGE;

/// A guest's memory, of which nobody reads or writes a byte, with what its only processor shall take out.
fn space(pages: usize) -> (Space<Npt>, Arc<GivenBack>) {
    /// Where all memory is: nowhere that anybody looks.
    struct Nowhere;
    // SAFETY: it gives out no page.
    unsafe impl Physical for Nowhere {
        fn allocate(&self) -> Option<u64> {
            None
        }

        unsafe fn release(&self, _page: u64) {}

        fn pointer(&self, _physical: u64) -> *mut u8 {
            core::ptr::dangling_mut()
        }
    }
    // SAFETY: no window is made of it.
    let ram = unsafe { GuestRam::new(&Nowhere, 1 << 30, MEMORY) }.unwrap();
    let physical = Box::leak(Box::new(Pages::new(pages)));
    let format = Npt::new(true, 40, Pat::RESET);
    let given_back = Arc::new(GivenBack::new(1));
    let space = Space::new(physical, format, ram, Size::Huge).unwrap();
    (space.with_given_back(Some((Arc::clone(&given_back), 0))), given_back)
}

#[test]
fn a_page_that_was_given_back_is_out_of_the_tables_until_it_is_touched() {
    let (mut space, given_back) = space(16);
    assert_eq!(space.demand(LARGE, |_| ()), Ok(Demand::Mapped));
    let page = LARGE + 0x5000;
    given_back.give(&(page..page + 0x1000));
    let mut forgotten = 0;
    space.take_out(|_| forgotten += 1);
    assert_eq!(forgotten, 1, "the large page was split: the processor may remember it");
    assert_eq!(space.table.translate(page), None);
    assert!(space.table.translate(page - 1).is_some() && space.table.translate(page + 0x1000).is_some());
    space.take_out(|_| forgotten += 1);
    assert_eq!(forgotten, 1, "there was nothing more");
    assert_eq!(space.demand(page, |_| ()), Ok(Demand::Mapped));
    let (host, found) = space.table.translate(page).unwrap();
    assert_eq!((Some(host), found.size), (space.host(page), Size::Small));
}

#[test]
fn what_is_not_mapped_is_given_back_without_a_word_to_the_processor() {
    let (mut space, given_back) = space(16);
    given_back.give(&(0..MEMORY));
    space.take_out(|_| panic!("the processor remembers nothing"));
}

#[test]
fn without_a_page_for_a_table_a_piece_of_a_large_page_stays() {
    let (mut space, given_back) = space(3);
    assert_eq!(space.demand(0, |_| ()), Ok(Demand::Mapped));
    given_back.give(&(0..0x1000));
    space.take_out(|_| ());
    assert!(space.table.translate(0).is_some());
    given_back.give(&(0..MEMORY));
    space.take_out(|_| ());
    assert_eq!(space.table.translate(0), None, "all of it needs no table");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
    /// What was given back and not touched since is in no table; all else is as it was.
    #[test]
    fn tables_hold_what_was_touched_and_not_given_back(
        steps in proptest::collection::vec((0..MEMORY / 0x1000, 0_u64..600, any::<bool>()), 1..24),
    ) {
        let (mut space, given_back) = space(64);
        let mut mapped = BTreeSet::new();
        for (first, count, touch) in steps {
            if touch {
                if space.demand(first * 0x1000, |_| ()).unwrap() == Demand::Mapped {
                    let (start, path) = space.table.pages(first * 0x1000..first * 0x1000 + 1).next().unwrap();
                    let size = path.page().unwrap().size.bytes();
                    for page in start / 0x1000..(start + size) / 0x1000 {
                        prop_assert!(mapped.insert(page));
                    }
                }
            } else {
                let last = (first + count).min(MEMORY / 0x1000);
                given_back.give(&(first * 0x1000..last * 0x1000));
                let mut forgotten = false;
                space.take_out(|_| forgotten = true);
                let before = mapped.len();
                mapped.retain(|page| !(first..last).contains(page));
                prop_assert!(forgotten || mapped.len() == before);
            }
            for page in 0..MEMORY / 0x1000 {
                prop_assert_eq!(space.table.translate(page * 0x1000).is_some(), mapped.contains(&page));
            }
        }
    }
}
