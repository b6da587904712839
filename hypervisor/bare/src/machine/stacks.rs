//! The stacks of the processors, each above a page that is not mapped: whoever uses a stack up meets a page fault
//! there, which has a stack of its own, and not the memory of somebody else.
//!
//! ```text
//!   the first processor's        by the boot loader
//!   all else, at a free entry of the PML4, for each processor by its number:
//!        │ nothing │ for faults │  nothing  │      stack of the others       │ the next …
//!        0        32           64          128                              256 KiB
//! ```

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bootloader_api::BootInfo;
use chiton_bare::command::MAX_PROCESSORS;
use chiton_core::physical::Physical;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags, PhysFrame, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::memory::Memory;

/// How far it is from one processor's to the next's, in bytes.
const STRIDE: u64 = 256 << 10;
/// Where in that the stack for faults is, and the other.
const FOR_FAULTS: Range<u64> = 32 << 10..64 << 10;
const STACK: Range<u64> = 128 << 10..STRIDE;
/// Entries of the PML4 from here on are of addresses that end with ones: what the boot loader maps by itself is below.
const UPPER_HALF: usize = 256;

/// Where the first processor's stack begins.
static FIRST: AtomicU64 = AtomicU64::new(0);
/// Where the space of all others begins; 0 as long as there is none.
static SPACE: AtomicU64 = AtomicU64::new(0);
/// How many bytes it has at most.
const SPACE_SIZE: u64 = MAX_PROCESSORS as u64 * STRIDE;
/// Whether the stack for faults is to be used up too.
static BOTH: AtomicBool = AtomicBool::new(false);

/// Notes where the boot loader has put the stack that is in use.
pub(super) fn note_first(info: &BootInfo) {
    FIRST.store(info.kernel_stack_bottom, Ordering::Relaxed);
}

/// Maps the stack of a processor beyond the first, for ever; tells where it ends. Nobody but the calling processor uses
/// the page tables yet. `None` if no memory is left, or no address.
pub(super) fn map(memory: &Memory, number: usize) -> Option<VirtAddr> {
    map_range(memory, number, STACK)
}

/// The same of a processor's stack for faults, the first's too.
pub(super) fn map_for_faults(memory: &Memory, number: usize) -> Option<VirtAddr> {
    map_range(memory, number, FOR_FAULTS)
}

fn map_range(memory: &Memory, number: usize, range: Range<u64>) -> Option<VirtAddr> {
    let root = memory.pointer(Cr3::read_raw().0.start_address().as_u64());
    // SAFETY: CR3 has the address of the PML4 in use (SDM volume 3A, section 5.5), which is mapped with all memory; the
    // boot loader has left it to us, and this is the only reference to it.
    let table = unsafe { &mut *root.cast::<PageTable>() };
    if SPACE.load(Ordering::Relaxed) == 0 {
        let mut upper = table.iter().enumerate().skip(UPPER_HALF);
        let (index, _) = upper.find(|(_, entry)| entry.is_unused())?;
        SPACE.store(VirtAddr::new_truncate((index as u64) << 39).as_u64(), Ordering::Relaxed);
    }
    // SAFETY: all tables are mapped at this offset, as all memory is.
    let mut mapper = unsafe { OffsetPageTable::new(table, VirtAddr::from_ptr(memory.pointer(0))) };
    let start = VirtAddr::new(SPACE.load(Ordering::Relaxed)) + number as u64 * STRIDE;
    let end = start + range.end;
    let pages = Page::range(
        Page::containing_address(start + range.start),
        Page::containing_address(end),
    );
    for page in pages {
        let frame = Frames(memory).allocate_frame()?;
        let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE;
        // SAFETY: the frame is nobody else's, and nothing is mapped there, so that the processor remembers no
        // translation of it (SDM volume 3A, section 5.10).
        let mapped: Result<_, MapToError<Size4KiB>> = unsafe { mapper.map_to(page, frame, flags, &mut Frames(memory)) };
        // What was not mapped is remembered by nobody.
        mapped.ok()?.ignore();
    }
    Some(end)
}

/// The stack above an address where nothing is mapped, in words; `None` if the address is not below one.
pub(super) fn above(address: u64) -> Option<&'static str> {
    let first = FIRST.load(Ordering::Relaxed);
    if (first.saturating_sub(Size4KiB::SIZE)..first).contains(&address) {
        return Some("stack");
    }
    let space = SPACE.load(Ordering::Relaxed);
    let offset = address
        .checked_sub(space)
        .filter(|offset| space != 0 && *offset < SPACE_SIZE)?;
    match offset % STRIDE {
        at if at < FOR_FAULTS.start => Some("stack for faults"),
        at if (FOR_FAULTS.end..STACK.start).contains(&at) => Some("stack"),
        _ => None,
    }
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

/// Uses the stack up, to show what is said then, and behind that the stack for faults.
pub(super) fn use_up_both() -> bool {
    BOTH.store(true, Ordering::Relaxed);
    use_up(0) == 0
}

/// Uses the stack for faults up, if that is wanted: once.
pub(super) fn use_up_this_too() {
    if BOTH.swap(false, Ordering::Relaxed) {
        use_up(0);
    }
}

/// Calls itself for ever, or for longer than any stack is.
#[inline(never)]
fn use_up(depth: u64) -> u64 {
    let block = core::hint::black_box([depth; 64]);
    if block[1] == u64::MAX {
        return depth;
    }
    // Not the last thing that it does, or it would need no stack.
    use_up(depth + 1) + core::hint::black_box(&block)[0]
}
