//! The machine's memory, by the boot loader's map: the heap, pages for VMX and SVM, guest memory.
//!
//! The largest usable region is ours. The heap lies at its start; pages are taken one by one from
//! behind the heap upwards; guest memory is taken from the region's end. Processors share all three, each
//! under a lock of its own.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::{fmt, ptr};

use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind, Optional};
use chiton_bare::block;
use chiton_bare::folder::Room;
use chiton_core::physical::{GuestRam, Physical};
use chiton_shared::map::{LARGE_PAGE, PAGE};
use spin::Mutex;

/// How much the heap has, in bytes, beside what guests write to folders: the loader's tables, device buffers and texts.
const HEAP: u64 = 16 << 20;
/// Which part of the memory is for what they write: one in so many bytes.
const WRITTEN: u64 = 16;

/// A free list under a spin lock.
struct Heap(Mutex<linked_list_allocator::Heap>);

#[global_allocator]
static ALLOCATOR: Heap = Heap(Mutex::new(linked_list_allocator::Heap::empty()));

// SAFETY: the free list hands out each byte once, aligned as asked, and takes it back from
// `dealloc` only; the lock keeps processors apart.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = self.0.lock().allocate_first_fit(layout);
        block.map_or(ptr::null_mut(), |block| block.as_ptr())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = ptr::NonNull::new(block) {
            // SAFETY: the caller has the block from `alloc`, with this layout.
            unsafe { self.0.lock().deallocate(block, layout) };
        }
    }
}

/// Why there is no memory to work with.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    /// The boot loader mapped nothing.
    #[error("the boot loader has not mapped the machine's memory: make the image again with `cargo xtask image`")]
    NotMapped,
    /// Less than the hypervisor itself needs.
    #[error("the largest free piece of this machine's memory has {} KiB, and the hypervisor alone needs {} KiB", .largest >> 10, .needed >> 10)]
    TooLittle {
        /// Bytes of the largest usable region.
        largest: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// More than there is for a guest.
    #[error("the guest is to have {} MiB of memory, and this machine has {} MiB for it: give less with memory=", .wanted >> 20, .there >> 20)]
    TooLarge {
        /// Bytes that were asked for.
        wanted: u64,
        /// Bytes that there are.
        there: u64,
    },
}

/// All memory that is ours.
#[derive(Debug)]
pub(super) struct Memory {
    /// Where physical address zero is mapped.
    offset: u64,
    /// Bytes of all usable regions.
    usable: u64,
    /// What of the heap is for what guests write to folders.
    room: Arc<Room>,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    /// The first page that nobody has had yet.
    next: u64,
    /// The first byte beyond, or of memory that is lent.
    end: u64,
    /// The first byte beyond, when nothing is lent.
    last: u64,
    /// Where each block that is lent begins.
    lent: Vec<u64>,
    /// The page that was given back last, or 0; each such page begins with the one before it.
    returned: u64,
}

impl Memory {
    /// Takes the largest usable region, and makes the heap.
    ///
    /// # Errors
    ///
    /// If it is too small.
    pub(super) fn of(info: &BootInfo) -> Result<Self, MemoryError> {
        let Optional::Some(offset) = info.physical_memory_offset else {
            return Err(MemoryError::NotMapped);
        };
        let size = |region: &&MemoryRegion| region.end - region.start;
        let usable = || {
            info.memory_regions
                .iter()
                .filter(|region| region.kind == MemoryRegionKind::Usable)
        };
        let needed = HEAP + LARGE_PAGE;
        let largest = usable().max_by_key(size).filter(|region| size(region) >= needed);
        let region = largest.ok_or_else(|| MemoryError::TooLittle {
            largest: usable().map(|region| size(&region)).max().unwrap_or(0),
            needed,
        })?;
        let start = region.start.next_multiple_of(PAGE);
        let written = (size(&region) / WRITTEN) & !(PAGE - 1);
        let heap = HEAP + written;
        // SAFETY: the boot loader says that nobody uses the region, and maps it; this is the only
        // call, on the first processor.
        unsafe { ALLOCATOR.0.lock().init((offset + start) as *mut u8, heap as usize) };
        Ok(Self {
            offset,
            usable: usable().map(|region| size(&region)).sum(),
            // The list of free pieces needs some of it too.
            room: Arc::new(Room::new(written as usize / 8 * 7)),
            free: Mutex::new(Free {
                next: start + heap,
                end: region.end & !(PAGE - 1),
                last: region.end & !(PAGE - 1),
                lent: Vec::new(),
                returned: 0,
            }),
        })
    }

    /// Where what guests write to folders goes.
    pub(super) const fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Lends a guest so much memory, which is zero, until `to` returns.
    ///
    /// # Errors
    ///
    /// If there is not so much.
    pub(super) fn lend<T>(&self, bytes: u64, to: impl FnOnce(GuestRam) -> T) -> Result<T, MemoryError> {
        let (ram, start) = self.take(bytes)?;
        for piece in ram.pieces() {
            // SAFETY: the block is taken from the region that is ours alone.
            unsafe { self.pointer(piece.physical).write_bytes(0, piece.bytes as usize) };
        }
        let result = to(ram);
        let mut free = self.free.lock();
        free.lent.retain(|lent| *lent != start);
        // What lies above a block that is lent still is lost until that comes back.
        free.end = free.lent.iter().copied().min().unwrap_or(free.last);
        Ok(result)
    }

    /// Takes a block from the region's end; tells where it begins.
    fn take(&self, bytes: u64) -> Result<(GuestRam, u64), MemoryError> {
        let mut free = self.free.lock();
        let end = free.end & !(LARGE_PAGE - 1);
        let least = free.next.next_multiple_of(LARGE_PAGE);
        // Some is left for pages, of which tables are made.
        let start = block::below(end, bytes, least);
        // SAFETY: the block is taken from the region that is ours alone, and lies where all memory
        // is mapped; nobody else takes it before it is given back.
        let ram = start.and_then(|start| Some((start, unsafe { GuestRam::new(self, start, bytes) }?)));
        let (start, ram) = ram.ok_or(MemoryError::TooLarge {
            wanted: bytes,
            there: end.saturating_sub(least + LARGE_PAGE),
        })?;
        free.end = start;
        free.lent.push(start);
        Ok((ram, start))
    }
}

// SAFETY: pages come from a region that the boot loader calls usable and that is this value's alone, guest memory from
// its other end; the boot loader has mapped all physical memory at `offset`, for ever, in one piece.
unsafe impl Physical for Memory {
    fn allocate(&self) -> Option<u64> {
        let mut free = self.free.lock();
        let page = if free.returned != 0 {
            let page = free.returned;
            // SAFETY: a page that was given back is ours, and begins with the address of the one
            // before it, which `release` wrote there.
            free.returned = unsafe { self.pointer(page).cast::<u64>().read() };
            page
        } else {
            let page = free.next;
            if page + PAGE > free.end {
                return None;
            }
            free.next += PAGE;
            page
        };
        // SAFETY: the page lies in the region that is ours, and nobody has it.
        unsafe { self.pointer(page).write_bytes(0, PAGE as usize) };
        Some(page)
    }

    unsafe fn release(&self, page: u64) {
        let mut free = self.free.lock();
        // SAFETY: whoever gives a page back has it from `allocate` and no longer uses it.
        unsafe { self.pointer(page).cast::<u64>().write(free.returned) };
        free.returned = page;
    }

    fn pointer(&self, physical: u64) -> *mut u8 {
        (self.offset + physical) as *mut u8
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB of memory", self.usable >> 20)
    }
}
