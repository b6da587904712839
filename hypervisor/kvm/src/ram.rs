//! Guest memory: anonymous pages of this process, which the kernel gives to the guest too.

use std::fs::File;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use chiton_shared::map;
use chiton_shared::memory::{GuestMemory, Window};
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Address, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MemoryRegionAddress,
};

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
    /// Which pages this process may have written, a bit each, once somebody wants to know: KVM knows of the guest's
    /// writes alone.
    touched: OnceLock<Box<[AtomicU64]>>,
}

/// Where memory of so many bytes lies: address and length of each part.
pub(crate) fn parts(bytes: u64) -> impl Iterator<Item = (GuestAddress, u64)> {
    let low = bytes.min(map::LOW_MEMORY_END);
    let high = (bytes > low).then(|| (GuestAddress(map::HIGH_MEMORY), bytes - low));
    std::iter::once((GuestAddress(0), low)).chain(high)
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
        let ranges: Vec<_> = parts(bytes).map(|(start, len)| (start, len as usize)).collect();
        let memory = GuestMemoryMmap::from_ranges(&ranges).map_err(|e| failed(e.to_string()))?;
        Ok(Self {
            memory,
            touched: OnceLock::new(),
        })
    }

    /// Memory whose bytes are those of a file, from an offset on; what is written stays here. Pages are read when they
    /// are touched, so that it takes as long for much memory as for little.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if this process cannot have so much, or the file has not.
    pub(crate) fn of_file(file: &File, offset: u64, bytes: u64) -> Result<Self, Error> {
        let failed = |reason: String| Error::Memory {
            mib: bytes >> 20,
            reason,
        };
        let mut at = offset;
        let mut regions = Vec::with_capacity(2);
        for (start, len) in parts(bytes) {
            let file = file.try_clone().map_err(|e| failed(e.to_string()))?;
            let region = MmapRegionBuilder::new(len as usize)
                .with_file_offset(FileOffset::new(file, at))
                .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_NORESERVE)
                .build()
                .map_err(|e| failed(e.to_string()))?;
            regions.push(GuestRegionMmap::new(region, start).ok_or_else(|| failed("it ends too high".into()))?);
            at += len;
        }
        let memory = GuestMemoryMmap::from_regions(regions).map_err(|e| failed(e.to_string()))?;
        Ok(Self {
            memory,
            touched: OnceLock::new(),
        })
    }

    /// The file in which it [lies](Self::in_file).
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if it lies in none.
    pub(crate) fn file(&self) -> Result<File, Error> {
        let failed = |reason: String| Error::Memory {
            mib: self.bytes() >> 20,
            reason,
        };
        let region = self.memory.iter().next().and_then(|region| region.file_offset());
        let region = region.ok_or_else(|| failed("it is in no file".into()))?;
        region.file().try_clone().map_err(|error| failed(error.to_string()))
    }

    /// The pieces that a range of memory has, counted from the beginning of memory as if there were no hole in it: where
    /// each is in this process, and its length. Nothing of what is beyond the end.
    pub(crate) fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = (*mut u8, usize)> {
        let mut before = 0;
        self.memory.iter().filter_map(move |region| {
            let here = before..before + region.len();
            before = here.end;
            let (start, end) = (range.start.max(here.start), range.end.min(here.end));
            let place = region.get_host_address(MemoryRegionAddress(start.checked_sub(here.start)?));
            (start < end).then_some((place.ok()?, (end - start) as usize))
        })
    }

    /// From now on, [`take_changes`](Self::take_changes) knows what this process and the guest write. The machine is the
    /// one that has this memory.
    ///
    /// # Errors
    ///
    /// What KVM says.
    pub(crate) fn watch_changes(&self, vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        // SAFETY: the machine has this memory already; only how it is watched changes.
        unsafe { self.attach_with(vm, KVM_MEM_LOG_DIRTY_PAGES) }?;
        let words = (self.bytes() / map::PAGE).div_ceil(64) as usize;
        self.touched
            .get_or_init(|| (0..words).map(|_| AtomicU64::new(0)).collect());
        Ok(())
    }

    /// The pages that may have been written since this was asked last, or since it is being
    /// [watched](Self::watch_changes): a bit for each, counted as by [`pieces`](Self::pieces).
    ///
    /// # Errors
    ///
    /// What KVM says.
    pub(crate) fn take_changes(&self, vm: &VmFd) -> Result<Vec<u64>, kvm_ioctls::Error> {
        let words = self.touched.get().map(|words| &words[..]).unwrap_or_default();
        let mut changes: Vec<_> = words.iter().map(|word| word.swap(0, Ordering::Relaxed)).collect();
        let mut page = 0;
        for (slot, region) in self.memory.iter().enumerate() {
            let log = vm.get_dirty_log(slot as u32, region.len() as usize)?;
            // The hole in memory begins at a multiple of 64 pages.
            let here = changes.iter_mut().skip(page / 64);
            here.zip(log).for_each(|(word, log)| *word |= log);
            page += (region.len() / map::PAGE) as usize;
        }
        Ok(changes)
    }

    /// Remembers that a range of addresses may be written.
    fn touch(&self, address: u64, len: usize) {
        let Some(touched) = self.touched.get() else { return };
        let hole = map::HIGH_MEMORY - map::LOW_MEMORY_END;
        let start = if address >= map::HIGH_MEMORY {
            address - hole
        } else {
            address
        };
        let end = start.saturating_add(len as u64);
        for page in start / map::PAGE..end.div_ceil(map::PAGE) {
            if let Some(word) = touched.get((page / 64) as usize) {
                word.fetch_or(1 << (page % 64), Ordering::Relaxed);
            }
        }
    }

    /// Memory whose bytes are those of a file of this length, to which what is written goes.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if this process cannot have so much.
    pub(crate) fn in_file(file: &File, bytes: u64) -> Result<Self, Error> {
        let failed = |reason: String| Error::Memory {
            mib: bytes >> 20,
            reason,
        };
        let mut at = 0;
        let mut ranges = Vec::with_capacity(2);
        for (start, len) in parts(bytes) {
            let file = file.try_clone().map_err(|e| failed(e.to_string()))?;
            ranges.push((start, len as usize, Some(FileOffset::new(file, at))));
            at += len;
        }
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).map_err(|e| failed(e.to_string()))?;
        Ok(Self {
            memory,
            touched: OnceLock::new(),
        })
    }

    /// Asks the kernel for huge pages where nobody has touched memory yet. Where it has none, small
    /// ones do.
    pub(crate) fn prefer_huge_pages(&self) {
        for region in self.memory.iter() {
            if let Ok(start) = region.get_host_address(MemoryRegionAddress(0)) {
                // SAFETY: mapped memory of this process, of which no byte changes.
                let _ = unsafe { libc::madvise(start.cast(), region.len() as usize, libc::MADV_HUGEPAGE) };
            }
        }
    }

    /// Keeps it out of processes that this one forks: until they run a program of their own they would have it mapped, to
    /// write, too.
    pub(crate) fn keep_from_children(&self) -> Result<(), Error> {
        for region in self.memory.iter() {
            if let Ok(start) = region.get_host_address(MemoryRegionAddress(0)) {
                // SAFETY: mapped memory of this process, of which no byte changes; nothing here goes on in a child.
                let advised = unsafe { libc::madvise(start.cast(), region.len() as usize, libc::MADV_DONTFORK) };
                if advised != 0 {
                    return Err(Error::system("keep guest memory from children")(
                        std::io::Error::last_os_error(),
                    ));
                }
            }
        }
        Ok(())
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
    ///
    /// # Safety
    ///
    /// It must be there for as long as a processor of the machine runs: the guest goes on to write to where it was.
    pub unsafe fn attach(&self, vm: &VmFd) -> Result<(), Error> {
        // SAFETY: as for this function.
        unsafe { self.attach_with(vm, 0) }.map_err(Error::kvm("KVM_SET_USER_MEMORY_REGION"))
    }

    /// As [`attach`](Self::attach), with flags of KVM's for each piece.
    ///
    /// # Safety
    ///
    /// The same.
    pub(crate) unsafe fn attach_with(&self, vm: &VmFd, flags: u32) -> Result<(), kvm_ioctls::Error> {
        for (slot, region) in self.memory.iter().enumerate() {
            let start = region.start_addr();
            let place = region
                .get_host_address(MemoryRegionAddress(0))
                .map_err(|_| kvm_ioctls::Error::new(libc::EFAULT))?;
            let region = kvm_userspace_memory_region {
                slot: slot as u32,
                flags,
                guest_phys_addr: start.raw_value(),
                memory_size: region.len(),
                userspace_addr: place as u64,
            };
            // SAFETY: the range is mapped memory of this process, and stays so while the guest runs, as the caller
            // has promised; nobody makes Rust references into it.
            unsafe { vm.set_user_memory_region(region) }?;
        }
        Ok(())
    }
}

impl GuestMemory for Ram {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        let slice = self.memory.get_slice(GuestAddress(address), len).ok()?;
        let start = NonNull::new(slice.ptr_guard_mut().as_ptr())?;
        self.touch(address, len);
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
