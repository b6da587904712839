//! Discards and zeros: what the file system does at once, or else zeros that are written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// How many zeros are written at a time, in bytes. They are made when they are needed: in the program they would be part
/// of its size.
const PIECE: u64 = 64 << 10;

/// Gives the bytes' place back. Whoever cannot do that leaves them as they are.
pub(super) fn discard(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match try_fallocate(file, FallocateFlags::PUNCH_HOLE, offset, len) {
        Ok(_) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Fills the bytes with zeros, by the quickest of three ways that works here.
pub(super) fn write_zeroes(file: &File, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
    if unmap && try_fallocate(file, FallocateFlags::PUNCH_HOLE, offset, len)? {
        return Ok(());
    }
    if try_fallocate(file, FallocateFlags::ZERO_RANGE, offset, len)? {
        return Ok(());
    }
    let zeros = vec![0; len.min(PIECE) as usize];
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let piece = (end - at).min(PIECE);
        file.write_all_at(&zeros[..piece as usize], at)?;
        at += piece;
    }
    Ok(())
}

/// Whether it was done; `false` if this file cannot do that.
fn try_fallocate(file: &File, how: FallocateFlags, offset: u64, len: u64) -> Result<bool, Errno> {
    loop {
        match fallocate(file, how | FallocateFlags::KEEP_SIZE, offset, len) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV | Errno::PERM) => return Ok(false),
            Err(errno) => return Err(errno),
        }
    }
}
