//! The stacks of the processors, each above a page that is not mapped: whoever uses a stack up meets a page fault
//! there, which has a stack of its own, and not the memory of somebody else.
//!
//! ```text
//!   the first processor's        by the boot loader
//!   the others', at a free entry of the PML4:   │ nothing │ stack of number 1 │ nothing │ stack of number 2 │ …
//!                                               └──────── 256 KiB ────────────┘
//! ```

use core::sync::atomic::{AtomicU64, Ordering};

use bootloader_api::BootInfo;
use chiton_core::physical::Physical;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags, PhysFrame, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::memory::Memory;

/// Stack of a processor beyond the first, in bytes.
const STACK: u64 = 128 << 10;
/// How far it is from one to the next: the rest is not mapped.
const STRIDE: u64 = 256 << 10;
/// Entries of the PML4 from here on are of addresses that end with ones: what the boot loader maps by itself is below.
const UPPER_HALF: usize = 256;

/// Where the first processor's stack begins.
static FIRST: AtomicU64 = AtomicU64::new(0);
/// Where the space of the others begins, and ends.
static OTHERS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Notes where the boot loader has put the stack that is in use.
pub(super) fn note_first(info: &BootInfo) {
    FIRST.store(info.kernel_stack_bottom, Ordering::Relaxed);
}

/// Maps stacks for so many other processors, for ever; tells where each ends. Nobody but the calling processor uses the
/// page tables yet. `None` if no memory is left for them, or no address.
pub(super) fn map(memory: &Memory, count: usize) -> Option<impl Fn(usize) -> *mut u8> {
    let root = memory.pointer(Cr3::read_raw().0.start_address().as_u64());
    // SAFETY: the PML4 in use, which is mapped with all memory; the boot loader has left it to us, and this is the
    // only reference to it.
    let table = unsafe { &mut *root.cast::<PageTable>() };
    let (index, _) = table
        .iter()
        .enumerate()
        .skip(UPPER_HALF)
        .find(|(_, entry)| entry.is_unused())?;
    let start = VirtAddr::new_truncate((index as u64) << 39);
    // SAFETY: all tables are mapped at this offset, as all memory is.
    let mut mapper = unsafe { OffsetPageTable::new(table, VirtAddr::from_ptr(memory.pointer(0))) };
    let end_of = move |number: usize| start + (number as u64 + 1) * STRIDE;
    for number in 0..count {
        let end = Page::containing_address(end_of(number));
        let pages = STACK / Size4KiB::SIZE;
        for page in Page::range(end - pages, end) {
            let frame = Frames(memory).allocate_frame()?;
            let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE;
            // SAFETY: the frame is nobody else's, and nothing is mapped there.
            let mapped: Result<_, MapToError<Size4KiB>> =
                unsafe { mapper.map_to(page, frame, flags, &mut Frames(memory)) };
            // What was not mapped is remembered by nobody.
            mapped.ok()?.ignore();
        }
    }
    OTHERS[0].store(start.as_u64(), Ordering::Relaxed);
    OTHERS[1].store(end_of(count).as_u64() - STRIDE, Ordering::Relaxed);
    Some(move |number| end_of(number).as_mut_ptr())
}

/// Whether an address is below a stack, where nothing is mapped.
pub(super) fn is_below_one(address: u64) -> bool {
    let first = FIRST.load(Ordering::Relaxed);
    let [start, end] = OTHERS.each_ref().map(|place| place.load(Ordering::Relaxed));
    let of_others = (start..end).contains(&address) && (address - start) % STRIDE < STRIDE - STACK;
    of_others || (first.saturating_sub(Size4KiB::SIZE)..first).contains(&address)
}

/// Frames for stacks and for the tables that map them.
struct Frames<'a>(&'a Memory);

// SAFETY: a page of `Physical` is nobody else's.
unsafe impl FrameAllocator<Size4KiB> for Frames<'_> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let page = self.0.allocate()?;
        Some(PhysFrame::containing_address(PhysAddr::new(page)))
    }
}

/// Uses the stack up, to show what is said then.
#[inline(never)]
pub(super) fn use_up(depth: u64) -> u64 {
    let block = core::hint::black_box([depth; 64]);
    if block[1] == u64::MAX {
        return depth;
    }
    // Not the last thing that it does, or it would need no stack.
    use_up(depth + 1) + core::hint::black_box(&block)[0]
}
