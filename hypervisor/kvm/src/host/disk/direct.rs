//! Direct I/O: past the page cache, between the medium and guest memory.
//!
//! The kernel wants offset, length and addresses aligned. What is not aligned (a guest need not,
//! section 5.2.5) goes through the page cache, which Linux keeps in step with direct I/O.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use chiton_shared::memory::Window;
use rustix::fs::{AtFlags, StatxFlags, statx};

/// Alignment where the kernel (before Linux 6.1) does not say: that of a page, which suits every
/// medium.
const UNKNOWN: u64 = 4096;

/// The second descriptor of a disk, opened with `O_DIRECT`.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    /// What addresses in memory are a multiple of.
    memory: usize,
    /// What offsets and lengths are a multiple of.
    offset: u64,
}

impl Direct {
    /// Opens the same file once more. An error of kind `InvalidInput` or `Unsupported` means that
    /// its file system has no direct I/O.
    pub(super) fn open(file: &File, write: bool) -> io::Result<Self> {
        let same = format!("/proc/self/fd/{}", file.as_raw_fd());
        let direct = OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(libc::O_DIRECT)
            .open(same)?;
        let (memory, offset) = alignment(&direct)?;
        Ok(Self {
            file: direct,
            memory,
            offset,
        })
    }

    /// The descriptor, if this transfer is aligned.
    pub(super) fn takes(&self, at: u64, windows: &[Window<'_>]) -> Option<BorrowedFd<'_>> {
        let aligned = |window: &Window<'_>| {
            window.as_ptr().addr().is_multiple_of(self.memory) && (window.len() as u64).is_multiple_of(self.offset)
        };
        (at.is_multiple_of(self.offset) && windows.iter().all(aligned)).then(|| self.file.as_fd())
    }
}

/// What memory and offsets have to be aligned to.
fn alignment(file: &File) -> io::Result<(usize, u64)> {
    let Ok(found) = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return Ok((UNKNOWN as usize, UNKNOWN));
    };
    if found.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Ok((UNKNOWN as usize, UNKNOWN));
    }
    match (found.stx_dio_mem_align, found.stx_dio_offset_align) {
        (0, _) | (_, 0) => Err(io::ErrorKind::Unsupported.into()),
        (memory, offset) => Ok((memory as usize, offset.into())),
    }
}
