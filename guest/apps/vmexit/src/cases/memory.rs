//! Memory: the first touch of a page, and page walks.

use alloc::alloc::{Layout, alloc, dealloc};

use chiton_guest::host;
use chiton_guest::shared::measure::place;
use vmexit_cases::memory::{PAGE, WARM_PAGES, chase, first_touch};
use vmexit_cases::{Clock, Done, Meter};

use super::Case;
use crate::options::Options;

/// A large page, in bytes.
const LARGE: usize = 2 << 20;
/// How many pages a repeat of the first touch takes, which it does not give back: pages are new only once.
const FRESH: usize = 512;

pub fn all<C: Clock>() -> [Case; 11] {
    [
        Case::any("first_touch", |meter, _| touch::<C>(meter)),
        Case::any("write_protected", |meter, options| write_protected::<C>(meter, options)),
        Case::any("write_read_only", |meter, options| write_read_only::<C>(meter, options)),
        Case::any("walk_heap_warm", |meter, _| walk_heap::<C>(meter)),
        Case::any("walk_heap_cold", |meter, _| walk_heap_cold::<C>(meter)),
        Case::any("walk_4k_warm", |m, o| walk::<C>(m, o, 0, true)),
        Case::any("walk_4k_cold", |m, o| walk::<C>(m, o, 0, false)),
        Case::any("walk_2m_warm", |m, o| walk::<C>(m, o, 1, true)),
        Case::any("walk_2m_cold", |m, o| walk::<C>(m, o, 1, false)),
        Case::any("walk_1g_warm", |m, o| walk::<C>(m, o, 2, true)),
        Case::any("walk_1g_cold", |m, o| walk::<C>(m, o, 2, false)),
    ]
}

/// Memory of the heap that nobody gets again.
fn keep(pages: usize, align: usize) -> Result<*mut u8, &'static str> {
    let layout = Layout::from_size_align(pages * PAGE, align).map_err(|_| "no such memory")?;
    // SAFETY: the layout has a size.
    let start = unsafe { alloc(layout) };
    if start.is_null() {
        return Err("the guest has too little memory left");
    }
    Ok(start)
}

fn touch<C: Clock>(meter: &mut Meter<'_>) -> Done {
    let start = keep(FRESH, PAGE)?;
    // The allocator has written to the first page behind it, and to none within.
    // SAFETY: the pages were allocated, and are used for nothing else.
    unsafe { first_touch::<C>(meter, start, FRESH) }
}

/// The first write to each of some pages, since the host has protected them.
fn write_protected<C: Clock>(meter: &mut Meter<'_>, options: &Options) -> Done {
    const PAGES: usize = 64;
    options.has_places()?;
    let start = keep(PAGES, PAGE)?;
    // SAFETY: the pages were allocated.
    unsafe { start.write_bytes(1, PAGES * PAGE) };
    let mut page = 0;
    meter.each_after::<C, _>(
        || {
            if page == 0 {
                host::ring(place::port(place::PROTECT), 0);
            }
            let at = start.wrapping_add(page * PAGE);
            page = (page + 1) % PAGES;
            at
        },
        // SAFETY: the pages were allocated, and are used for nothing else.
        |at| unsafe { at.write_volatile(1) },
    )
}

/// A write to a page that is there, and may not be written: the host's program takes it.
fn write_read_only<C: Clock>(meter: &mut Meter<'_>, options: &Options) -> Done {
    if options.read_only == 0 {
        return Err("the host of this machine maps no page that may not be written");
    }
    let at = options.read_only as *mut u32;
    // SAFETY: the host has said that a page is there, which nothing is kept in.
    meter.each::<C>(|| unsafe { at.write_volatile(0) })
}

fn walk_heap<C: Clock>(meter: &mut Meter<'_>) -> Done {
    let start = keep(WARM_PAGES, LARGE)?;
    // SAFETY: as above.
    unsafe { chase::<C>(meter, start, WARM_PAGES) }
}

/// Through more of the heap than a translation buffer holds; the memory is the same each time.
fn walk_heap_cold<C: Clock>(meter: &mut Meter<'_>) -> Done {
    const PAGES: usize = 2048;
    let layout = Layout::from_size_align(PAGES * PAGE, PAGE).map_err(|_| "no such memory")?;
    let start = keep(PAGES, PAGE)?;
    // SAFETY: the pages were allocated, and are used for nothing else.
    let done = unsafe { chase::<C>(meter, start, PAGES) };
    // SAFETY: they came from the allocator by this layout, and the chase is over.
    unsafe { dealloc(start, layout) };
    done
}

/// Through the region that the host has mapped three times, by pages of one of the sizes.
fn walk<C: Clock>(meter: &mut Meter<'_>, options: &Options, size: usize, warm: bool) -> Done {
    let start = options.walk[size];
    let pages = options.walk_length as usize / PAGE;
    if pages < WARM_PAGES {
        return Err("the host of this machine maps no region for page walks");
    }
    if start == 0 {
        return Err("the host of this machine has no pages of this size for its guests");
    }
    let pages = if warm { WARM_PAGES } else { pages };
    // SAFETY: the host has said that memory is there for this, and only this case uses it now.
    unsafe { chase::<C>(meter, start as *mut u8, pages) }
}
