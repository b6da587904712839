//! Memory: the first touch of a page, and loads of which each says where the next one is.

use crate::{Clock, Done, Meter};

/// The smallest page, in bytes.
pub const PAGE: usize = 4096;
/// How many loads a sample of [`chase`] has: many, since one is about as short as the clock's own cost.
pub const LOADS: u32 = 64;
/// How many pages a warm chase goes through: few enough for any processor's first translation buffer.
pub const WARM_PAGES: usize = 32;
/// Distance between the places of two pages in a chase, in bytes, so that they are not all in the same set of the
/// caches.
const LINE: usize = 64;

/// The first write to each page of a region that nobody has touched, a page a sample.
///
/// # Errors
///
/// None: it is the result of a case.
///
/// # Safety
///
/// So many pages from there on have to be memory that is used for nothing else.
pub unsafe fn first_touch<C: Clock>(meter: &mut Meter<'_>, start: *mut u8, pages: usize) -> Done {
    meter.at_most(pages.saturating_sub(16), 16);
    let mut page = 0;
    meter.each_after::<C, _>(
        || {
            let at = start.wrapping_add(page * PAGE);
            page += 1;
            at
        },
        // SAFETY: the caller's promise; there are no more samples and warm-ups than pages.
        |at| unsafe { at.write_volatile(1) },
    )
}

/// Loads through a region, one in each page, in an order that no prefetcher guesses: each load has the address of
/// the next. A sample has [`LOADS`] of them.
///
/// # Errors
///
/// None: it is the result of a case.
///
/// # Safety
///
/// So many pages from there on have to be memory that is used for nothing else.
pub unsafe fn chase<C: Clock>(meter: &mut Meter<'_>, start: *mut u8, pages: usize) -> Done {
    // SAFETY: the caller's promise.
    let first = unsafe { link(start, pages) };
    // Once round, so that every page is there.
    // SAFETY: `link` has made a ring.
    let mut at = unsafe { follow(first, pages) };
    meter.of(LOADS);
    meter.each::<C>(|| {
        // SAFETY: as above.
        at = unsafe { follow(core::hint::black_box(at), LOADS as usize) };
    })
}

/// Makes a ring of pointers through all pages, and returns one of its places.
///
/// # Safety
///
/// As [`chase`].
pub unsafe fn link(start: *mut u8, pages: usize) -> *const u64 {
    let place = |page: usize| {
        let line = page * LINE % PAGE;
        start.wrapping_add(page * PAGE + line).cast::<u64>()
    };
    // A ring in order first; then Sattolo's shuffle, which leaves a single ring, on what each place holds.
    for page in 0..pages {
        // SAFETY: within the region.
        unsafe { place(page).write(place(page) as u64) };
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for page in (1..pages).rev() {
        // xorshift64: any order that is not a pattern will do, and the same each time is best.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let other = (state % page as u64) as usize;
        // SAFETY: within the region, and not the same.
        unsafe { core::ptr::swap(place(page), place(other)) };
    }
    place(0)
}

/// So many loads, each from where the last one says.
///
/// # Safety
///
/// The pointer has to be one of a ring that [`link`] has made.
#[inline(always)]
unsafe fn follow(mut at: *const u64, loads: usize) -> *const u64 {
    for _ in 0..loads {
        // SAFETY: the caller's promise.
        at = unsafe { at.read_volatile() } as *const u64;
    }
    at
}
