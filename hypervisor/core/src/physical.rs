//! The memory of the machine that a bare-metal hypervisor runs on, page by page.
//!
//! Under KVM the host's kernel has it; on bare metal VMCS, VMCB, bitmaps and second-level page
//! tables are made of it.

mod pages;

use core::ptr::NonNull;

use chiton_shared::map;
use chiton_shared::memory::{GuestMemory, Window};

pub use pages::{NoPage, PAGE_SIZE, Pages};

/// Pages of the machine that the hypervisor runs on.
///
/// # Safety
///
/// Page tables are made of these pages, and the processor follows them; [`Pages`] reads and writes through the
/// pointers without asking again. So of an implementation it must be true that
///
/// - a page that [`allocate`](Self::allocate) returns begins at a multiple of [`PAGE_SIZE`], is memory, holds zeros, and
///   is nobody else's until it is given back;
/// - [`pointer`](Self::pointer) of an address in such a page is where that byte is mapped, readable and writable, and
///   the rest of the page behind it, as long as the page is not given back; and pages that lie side by side are
///   mapped side by side;
/// - `pointer` of an address at which the machine has anything else is where that is mapped, or points nowhere that
///   the hypervisor uses otherwise.
pub unsafe trait Physical {
    /// A zeroed 4 KiB page, by its physical address; `None` when there is none left.
    fn allocate(&self) -> Option<u64>;

    /// Gives a page back.
    ///
    /// # Safety
    ///
    /// The page is from [`allocate`](Self::allocate), was not given back since, and neither software nor a processor
    /// uses it any more: no table leads to it, and no translation by it is remembered.
    unsafe fn release(&self, page: u64);

    /// Where the byte at this physical address is mapped for the hypervisor.
    fn pointer(&self, physical: u64) -> *mut u8;
}

/// Guest memory on bare metal: one block of the machine's memory, which begins at a multiple of
/// 2 MiB so that second-level tables can map it in large pages.
///
/// The guest sees it as [`map`] lays it out: what is beyond [`map::LOW_MEMORY_END`] continues at
/// [`map::HIGH_MEMORY`].
#[derive(Clone, Copy, Debug)]
pub struct GuestRam {
    /// Where it begins for the hypervisor.
    mapped: NonNull<u8>,
    /// Its physical address.
    physical: u64,
    bytes: u64,
}

/// A piece of guest memory that is contiguous for the guest and in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamPiece {
    /// Guest-physical address of its first byte.
    pub guest: u64,
    /// Physical address of its first byte.
    pub physical: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

impl GuestRam {
    /// The block of `bytes` bytes at `physical`, a multiple of [`map::LARGE_PAGE`]; `None` if it is
    /// not one.
    ///
    /// # Safety
    ///
    /// The block must be memory that stays mapped, in one piece, where
    /// [`Physical::pointer`] says; nobody may use it but a guest, and this hypervisor through
    /// windows.
    #[must_use]
    pub unsafe fn new(memory: &dyn Physical, physical: u64, bytes: u64) -> Option<Self> {
        let mapped = NonNull::new(memory.pointer(physical))?;
        physical.is_multiple_of(map::LARGE_PAGE).then_some(Self {
            mapped,
            physical,
            bytes,
        })
    }

    /// How much it is, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its pieces, by guest-physical address.
    pub fn pieces(&self) -> impl Iterator<Item = RamPiece> + use<> {
        let low = self.bytes.min(map::LOW_MEMORY_END);
        let pieces = [
            RamPiece {
                guest: 0,
                physical: self.physical,
                bytes: low,
            },
            RamPiece {
                guest: map::HIGH_MEMORY,
                physical: self.physical + low,
                bytes: self.bytes - low,
            },
        ];
        pieces.into_iter().filter(|piece| piece.bytes > 0)
    }

    /// The guest-physical address of what a window shows; `None` if it is no window of this memory.
    #[must_use]
    pub fn address(&self, window: &Window<'_>) -> Option<u64> {
        let offset = window.as_ptr().addr().checked_sub(self.mapped.addr().get())?;
        self.at(offset as u64)
    }

    /// The guest-physical address of the byte that lies so far from the block's beginning.
    fn at(&self, offset: u64) -> Option<u64> {
        let place = self.physical.checked_add(offset)?;
        let mut pieces = self.pieces();
        let piece = pieces.find(|piece| (piece.physical..piece.physical + piece.bytes).contains(&place))?;
        Some(place - piece.physical + piece.guest)
    }

    /// The piece that holds a guest-physical address, if memory is there.
    #[must_use]
    pub fn piece(&self, guest: u64) -> Option<RamPiece> {
        self.pieces().find(|piece| {
            guest
                .checked_sub(piece.guest)
                .is_some_and(|offset| offset < piece.bytes)
        })
    }
}

impl GuestMemory for GuestRam {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        let piece = self.pieces().find(|piece| {
            address
                .checked_sub(piece.guest)
                .is_some_and(|offset| offset <= piece.bytes)
        })?;
        let offset = address - piece.guest;
        if len as u64 > piece.bytes - offset {
            return None;
        }
        let at = (piece.physical - self.physical + offset) as usize;
        // SAFETY: `at` and `len` lie in the block, which is mapped in one piece and which only the
        // guest and other windows access, as the caller of `new` promised.
        Some(unsafe { Window::new(self.mapped.add(at), len) })
    }
}

// SAFETY: the block is memory that the language did not allocate, mapped for every processor, and
// accessed through windows alone, whose accesses are atomic.
unsafe impl Send for GuestRam {}
// SAFETY: as above.
unsafe impl Sync for GuestRam {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of the test, as if it began at physical address 2 MiB.
    struct Block(*mut u8);

    // SAFETY: it gives out no page.
    unsafe impl Physical for Block {
        fn allocate(&self) -> Option<u64> {
            None
        }

        unsafe fn release(&self, _page: u64) {}

        fn pointer(&self, physical: u64) -> *mut u8 {
            self.0.wrapping_add((physical - map::LARGE_PAGE) as usize)
        }
    }

    #[test]
    fn a_window_must_lie_in_memory_as_a_whole() {
        let mut memory = vec![0_u64; 1024];
        let block = Block(memory.as_mut_ptr().cast());
        // SAFETY: 8 KiB of this test's own, which are used through windows alone.
        let ram = unsafe { GuestRam::new(&block, map::LARGE_PAGE, 8192) }.unwrap();
        assert_eq!(ram.window(0, 8192).map(|w| w.len()), Some(8192));
        assert!(ram.window(8192, 0).is_some());
        assert!(ram.window(1, 8192).is_none());
        assert!(ram.window(8193, 0).is_none());
        assert!(ram.window(u64::MAX, 1).is_none());
        assert!(ram.window(map::HIGH_MEMORY, 1).is_none());
        assert_eq!(ram.address(&ram.window(4096, 8).unwrap()), Some(4096));
        let other = memory.as_mut_ptr().wrapping_add(1024).cast();
        // SAFETY: of no bytes.
        let other = unsafe { Window::new(NonNull::new(other).unwrap(), 0) };
        assert_eq!(ram.address(&other), None);
        ram.window(4096, 3).unwrap().write(0, b"abc");
        assert_eq!(memory[512].to_le_bytes()[..3], *b"abc");
    }

    #[test]
    fn memory_beyond_three_gigabytes_lies_above_the_devices_for_the_guest_and_in_one_block_here() {
        let mut memory = [0_u64; 1];
        let block = Block(memory.as_mut_ptr().cast());
        // SAFETY: no window is made of it.
        let ram = unsafe { GuestRam::new(&block, map::LARGE_PAGE, map::LOW_MEMORY_END + 4096) }.unwrap();
        let high = RamPiece {
            guest: map::HIGH_MEMORY,
            physical: map::LARGE_PAGE + map::LOW_MEMORY_END,
            bytes: 4096,
        };
        assert_eq!(ram.pieces().nth(1), Some(high));
        assert_eq!(ram.piece(map::HIGH_MEMORY + 4095), Some(high));
        assert_eq!(ram.piece(map::HIGH_MEMORY + 4096), None);
        assert_eq!(ram.piece(map::DEVICES), None);
        assert_eq!(ram.at(map::LOW_MEMORY_END - 1), Some(map::LOW_MEMORY_END - 1));
        assert_eq!(ram.at(map::LOW_MEMORY_END + 1), Some(map::HIGH_MEMORY + 1));
        assert_eq!(ram.at(map::LOW_MEMORY_END + 4096), None);
        assert_eq!(ram.at(u64::MAX), None);
    }

    #[test]
    fn a_block_that_large_pages_cannot_map_is_none() {
        let block = Block(core::ptr::dangling_mut());
        // SAFETY: no window is made of it.
        assert!(unsafe { GuestRam::new(&block, map::LARGE_PAGE + 4096, 4096) }.is_none());
    }
}
