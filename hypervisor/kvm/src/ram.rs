//! Guest memory: anonymous pages of this process, which the kernel gives to the guest too.

use std::ops::Range;
use std::ptr::NonNull;

use chiton_shared::map;
use chiton_shared::memory::{GuestMemory, Window};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::Error;

const fn align_down(address: u64) -> u64 {
    address & !(map::PAGE - 1)
}

const fn align_up(address: u64) -> u64 {
    align_down(address.saturating_add(map::PAGE - 1))
}

/// Guest memory. Pages cost nothing until the guest or the loader touches them.
#[derive(Debug)]
pub struct Ram {
    memory: GuestMemoryMmap,
}

impl Ram {
    /// Reserves `bytes` of guest memory, laid out as [`map`] says.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if this process cannot have so much.
    pub fn new(bytes: u64) -> Result<Self, Error> {
        let failed = |reason: String| Error::Memory {
            mib: bytes >> 20,
            reason,
        };
        let low = bytes.min(map::LOW_MEMORY_END);
        let mut ranges = vec![(GuestAddress(0), low as usize)];
        if bytes > low {
            ranges.push((GuestAddress(map::HIGH_MEMORY), (bytes - low) as usize));
        }
        let memory = GuestMemoryMmap::from_ranges(&ranges).map_err(|e| failed(e.to_string()))?;
        Ok(Self { memory })
    }

    /// Memory that is mapped already, as [`map`] says.
    pub(crate) const fn of(memory: GuestMemoryMmap) -> Self {
        Self { memory }
    }

    pub(crate) const fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Asks the kernel for huge pages where nobody has touched memory yet. Where it has none, small
    /// ones do.
    pub(crate) fn prefer_huge_pages(&self) {
        for region in self.memory.iter() {
            if let Ok(start) = region.get_host_address(vm_memory::MemoryRegionAddress(0)) {
                // SAFETY: mapped memory of this process, of which no byte changes.
                let _ = unsafe { libc::madvise(start.cast(), region.len() as usize, libc::MADV_HUGEPAGE) };
            }
        }
    }

    /// Has the kernel provide the pages of these ranges, which are about to be written, one after the other:
    /// neighbours at once, since one by one, as they are touched, they take three times as long. Without (Linux
    /// before 5.14), that is how they come.
    pub(crate) fn provide(&self, ranges: impl Iterator<Item = Range<u64>>) {
        let mut run = 0..0;
        for range in ranges {
            if (run.start..=run.end).contains(&align_down(range.start)) {
                run.end = run.end.max(align_up(range.end));
                continue;
            }
            self.provide_run(&run);
            run = align_down(range.start)..align_up(range.end);
        }
        self.provide_run(&run);
    }

    fn provide_run(&self, run: &Range<u64>) {
        let len = (run.end - run.start) as usize;
        if let Some(window) = self.window(run.start, len).filter(|_| len > map::PAGE as usize) {
            // SAFETY: mapped memory of this process, of which no byte changes.
            let _ = unsafe { libc::madvise(window.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) };
        }
    }

    /// How much it is, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.memory.iter().map(GuestMemoryRegion::len).sum()
    }

    /// Gives the memory to a virtual machine.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`].
    pub(crate) fn attach(&self, vm: &VmFd) -> Result<(), Error> {
        self.attach_with(vm, 0)
    }

    /// As [`attach`](Self::attach), with flags of KVM's for each piece.
    pub(crate) fn attach_with(&self, vm: &VmFd, flags: u32) -> Result<(), Error> {
        for (slot, region) in self.memory.iter().enumerate() {
            let start = region.start_addr();
            let place = region
                .get_host_address(vm_memory::MemoryRegionAddress(0))
                .map_err(|e| Error::Memory {
                    mib: region.len() >> 20,
                    reason: e.to_string(),
                })?;
            let region = kvm_userspace_memory_region {
                slot: slot as u32,
                flags,
                guest_phys_addr: start.raw_value(),
                memory_size: region.len(),
                userspace_addr: place as u64,
            };
            // SAFETY: the range is mapped memory of this process; it stays so while the guest
            // runs, since `instance::run` keeps the memory longer than the VM; nobody makes Rust
            // references into it.
            unsafe { vm.set_user_memory_region(region) }.map_err(Error::kvm("KVM_SET_USER_MEMORY_REGION"))?;
        }
        Ok(())
    }
}

impl GuestMemory for Ram {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        let slice = self.memory.get_slice(GuestAddress(address), len).ok()?;
        let start = NonNull::new(slice.ptr_guard_mut().as_ptr())?;
        // SAFETY: vm-memory has checked that the range is mapped, readable and writable; the
        // mapping lives as long as `self`; nobody makes Rust references into guest memory.
        Some(unsafe { Window::new(start, len) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_must_lie_in_memory_as_a_whole() {
        let ram = Ram::new(4 << 20).unwrap();
        assert_eq!(ram.window(0, 4 << 20).map(|w| w.len()), Some(4 << 20));
        assert!(ram.window(1, 4 << 20).is_none());
        assert!(ram.window(u64::MAX, 1).is_none());
        assert!(ram.window(map::DEVICES, 4).is_none());
    }

    #[test]
    fn pages_that_are_provided_are_zero_and_no_others_are_there() {
        let ram = Ram::new(1 << 20).unwrap();
        let beyond = 1 << 30..(1 << 30) + map::PAGE;
        // Neighbours, a page that overlaps, a gap, and what is no memory.
        ram.provide([0x1000..0x1001, 0x1ff0..0x3001, 0x8000..0xa000, beyond].into_iter());
        let start = ram.window(0, 1 << 20).unwrap().as_ptr();
        let mut there = [0_u8; 16];
        // SAFETY: sixteen pages of the mapping, and a byte for each.
        let answer = unsafe { libc::mincore(start.cast(), 16 << 12, there.as_mut_ptr()) };
        assert_eq!(answer, 0);
        let there: Vec<_> = (0..16).filter(|page| there[*page] & 1 != 0).collect();
        assert_eq!(there, [1, 2, 3, 8, 9]);
        let mut bytes = [1; 0x3000];
        ram.window(0x1000, 0x3000).unwrap().read(0, &mut bytes);
        assert_eq!(bytes, [0; 0x3000]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let ram = Ram::new(1 << 20).unwrap();
        ram.window(0x1000, 3).unwrap().write(0, b"abc");
        let mut bytes = [0; 3];
        ram.window(0x1000, 3).unwrap().read(0, &mut bytes);
        assert_eq!(&bytes, b"abc");
    }
}
