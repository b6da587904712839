//! The memory of a guest that is ready to be called: a file that nobody changes any more, from which
//! any number of machines have their memory, and a page again that a call has written.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use chiton_shared::map;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};

use crate::Error;
use crate::ram::Ram;

/// How memory is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// What is written is in the file.
    Shared,
    /// What is written is a page of the mapping's own, of which the file knows nothing.
    Own,
    /// Nothing is written.
    Read,
}

/// Guest memory that lies in a file and can still be written: the first machine prepares it.
pub(super) fn in_file(bytes: u64) -> Result<Ram, Error> {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    let file = file.map_err(Error::system("make a file for guest memory"))?;
    ftruncate(&file, bytes).map_err(Error::system("make a file for guest memory"))?;
    map_file(&Arc::new(file.into()), Access::Shared, bytes).map(Ram::of)
}

/// Memory as it was when the guest was ready.
pub(super) struct Pristine {
    file: Arc<File>,
    bytes: u64,
    view: GuestMemoryMmap,
}

impl Pristine {
    /// Takes memory that was made [in a file](in_file). Whoever still has it mapped to write makes this fail, so
    /// that nobody can change what others believe in.
    pub(super) fn seal(ram: Arc<Ram>) -> Result<Self, Error> {
        let bytes = ram.bytes();
        let file = ram
            .memory()
            .iter()
            .next()
            .and_then(|region| region.file_offset())
            .map(|f| Arc::clone(f.arc()));
        let file = file.ok_or(Error::Died)?;
        drop(ram);
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&*file, seals).map_err(Error::system("seal guest memory"))?;
        let view = map_file(&file, Access::Read, bytes)?;
        Ok(Self { file, bytes, view })
    }

    /// Memory of a machine's own that begins like this. A page costs nothing until it is written.
    pub(super) fn copy(&self) -> Result<Ram, Error> {
        map_file(&self.file, Access::Own, self.bytes).map(Ram::of)
    }

    /// The pieces of memory, each a slot of KVM, in their order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Range<u64>> {
        pieces(self.bytes)
    }

    /// The bytes at an address, if they lie in one piece.
    pub(super) fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        let slice = self.view.get_slice(GuestAddress(address), len).ok()?;
        // SAFETY: mapped for as long as `self` lives, which the borrow is bound to; the file is sealed, so
        // that nobody in any process can change the bytes.
        Some(unsafe { std::slice::from_raw_parts(slice.ptr_guard().as_ptr(), len) })
    }
}

/// Where memory of this size lies, as [`map`] says.
fn pieces(bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let low = bytes.min(map::LOW_MEMORY_END);
    let high = map::HIGH_MEMORY..map::HIGH_MEMORY + (bytes - low);
    [0..low, high].into_iter().filter(|piece| !piece.is_empty())
}

/// Maps the file's pieces, one behind the other in it.
fn map_file(file: &Arc<File>, access: Access, bytes: u64) -> Result<GuestMemoryMmap, Error> {
    let failed = |reason: String| Error::Memory {
        mib: bytes >> 20,
        reason,
    };
    let (prot, flags) = match access {
        Access::Shared => (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED),
        Access::Own => (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE),
        Access::Read => (libc::PROT_READ, libc::MAP_SHARED),
    };
    let mut regions = Vec::with_capacity(2);
    let mut offset = 0;
    for piece in pieces(bytes) {
        let len = piece.end - piece.start;
        let region = MmapRegionBuilder::new(len as usize)
            .with_mmap_prot(prot)
            .with_mmap_flags(flags | libc::MAP_NORESERVE)
            .with_file_offset(FileOffset::from_arc(Arc::clone(file), offset))
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let region = GuestRegionMmap::new(region, GuestAddress(piece.start));
        regions.push(region.ok_or_else(|| failed("it does not fit".into()))?);
        offset += len;
    }
    GuestMemoryMmap::from_regions(regions).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiton_shared::memory::GuestMemory;

    fn pristine() -> Pristine {
        let ram = in_file(4 << 20).unwrap();
        ram.window(0x1000, 4).unwrap().write(0, b"abcd");
        Pristine::seal(Arc::new(ram)).unwrap()
    }

    #[test]
    fn what_one_copy_writes_is_in_no_other_and_not_in_the_file() {
        let pristine = pristine();
        let (one, other) = (pristine.copy().unwrap(), pristine.copy().unwrap());
        one.window(0x1000, 4).unwrap().write(0, b"wxyz");
        let mut bytes = [0; 4];
        other.window(0x1000, 4).unwrap().read(0, &mut bytes);
        assert_eq!(&bytes, b"abcd");
        assert_eq!(pristine.bytes(0x1000, 4), Some(b"abcd".as_slice()));
    }

    #[test]
    fn memory_that_somebody_can_still_write_is_not_sealed() {
        let ram = Arc::new(in_file(1 << 20).unwrap());
        let error = Pristine::seal(Arc::clone(&ram)).err().unwrap();
        assert!(error.to_string().starts_with("seal guest memory"), "{error}");
    }

    #[test]
    fn bytes_are_those_of_memory_alone() {
        let pristine = pristine();
        assert_eq!(pristine.bytes(0, 4 << 20).map(<[u8]>::len), Some(4 << 20));
        assert_eq!(pristine.bytes(1, 4 << 20), None);
        assert_eq!(pristine.bytes(u64::MAX, 2), None);
    }

    #[test]
    fn memory_beyond_the_hole_lies_behind_it_in_the_file() {
        let found: Vec<_> = pieces(map::LOW_MEMORY_END + 4096).collect();
        assert_eq!(
            found,
            [0..map::LOW_MEMORY_END, map::HIGH_MEMORY..map::HIGH_MEMORY + 4096]
        );
        assert_eq!(pieces(1 << 20).count(), 1);
    }
}
