//! The memory of a guest that is ready to be called: a file that nobody changes any more, from which
//! any number of machines have their memory, and a page again that a call has written.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use chiton_shared::memory::GuestMemory;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vm_memory::Address;

use crate::Error;
use crate::ram::{self, Ram};

/// Guest memory that lies in a file and can still be written: the first machine prepares it. Of a process that this one
/// forks meanwhile it is kept, which may be about to run a program when it is to be [sealed](Pristine::seal).
pub(super) fn in_file(bytes: u64) -> Result<Ram, Error> {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    let file = file.map_err(Error::system("make a file for guest memory"))?;
    ftruncate(&file, bytes).map_err(Error::system("make a file for guest memory"))?;
    let ram = Ram::in_file(&file.into(), bytes)?;
    ram.keep_from_children()?;
    Ok(ram)
}

/// Memory as it was when the guest was ready.
pub(super) struct Pristine {
    file: File,
    bytes: u64,
    /// A copy that nobody writes.
    view: Ram,
}

impl Pristine {
    /// Takes memory that was made [in a file](in_file). Whoever still has it mapped to write makes this fail, so
    /// that nobody can change what others believe in.
    pub(super) fn seal(ram: Arc<Ram>) -> Result<Self, Error> {
        let (file, bytes) = (ram.file()?, ram.bytes());
        drop(ram);
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).map_err(Error::system("seal guest memory"))?;
        let view = Ram::of_file(&file, 0, bytes)?;
        Ok(Self { file, bytes, view })
    }

    /// Memory of a machine's own that begins like this. A page costs nothing until it is written.
    pub(super) fn copy(&self) -> Result<Ram, Error> {
        Ram::of_file(&self.file, 0, self.bytes)
    }

    /// The pieces of memory, each a slot of KVM, in their order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Range<u64>> {
        ram::parts(self.bytes).map(|(start, len)| start.raw_value()..start.raw_value() + len)
    }

    /// The bytes at an address, if they lie in one piece.
    pub(super) fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        let window = self.view.window(address, len)?;
        // SAFETY: mapped for as long as `self` lives, which the borrow is bound to. The file is sealed, so that nobody
        // in any process can change it, and nobody writes to this mapping of it, which leaves this file as a slice only.
        Some(unsafe { std::slice::from_raw_parts(window.as_ptr(), len) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_child_that_runs_no_program_yet_does_not_keep_memory_from_being_sealed() {
        let ram = in_file(1 << 20).unwrap();
        // As fork(2), but with the descriptors of this process and no copies of them: another test may close one, and
        // see that it is closed.
        let flags = libc::c_long::from(libc::CLONE_FILES | libc::SIGCHLD);
        // SAFETY: the child has a copy of this memory, and makes system calls only, until it is killed.
        let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
        let child = libc::pid_t::try_from(child).unwrap();
        if child == 0 {
            loop {
                // SAFETY: it only waits; it ends with the test at the latest.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::pause();
                }
            }
        }
        assert!(child > 0);
        let sealed = Pristine::seal(Arc::new(ram));
        // SAFETY: the child is this test's own, and has not been waited for.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        assert!(sealed.is_ok(), "{:?}", sealed.err());
    }

    #[test]
    fn bytes_are_those_of_memory_alone() {
        let pristine = pristine();
        assert_eq!(pristine.bytes(0, 4 << 20).map(<[u8]>::len), Some(4 << 20));
        assert_eq!(pristine.bytes(1, 4 << 20), None);
        assert_eq!(pristine.bytes(u64::MAX, 2), None);
    }
}
