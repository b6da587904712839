//! What the devices' bytes go to and come from on a Linux host.

pub(crate) mod complaint;
pub mod console;
pub mod disk;
pub mod folder;
pub(crate) mod pages;
pub mod ports;
pub(crate) mod random;
pub mod socket_file;
pub mod stderr;
pub mod tap;
pub mod vsock;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use chiton_shared::memory::Window;

/// A transfer between a descriptor and guest memory, without a copy in between.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transfer {
    Read,
    Write,
    ReadAt(u64),
    WriteAt(u64),
}

/// Most windows one system call takes (`IOV_MAX` is 1024; a chain has at most 256).
const BATCH: usize = 256;

/// Does one system call's worth of a transfer; the count may be less than what the windows hold.
pub(crate) fn transfer(fd: BorrowedFd<'_>, windows: &[Window<'_>], what: Transfer) -> io::Result<usize> {
    let mut room = [MaybeUninit::uninit(); BATCH];
    let iovecs = iovecs_of(windows, &mut room);
    let (fd, list, count) = (fd.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as libc::c_int);
    loop {
        // SAFETY: each iovec is the range of a window, valid while the windows are borrowed; the
        // kernel reads or writes it as a device would, which a window allows.
        let done = unsafe {
            match what {
                Transfer::Read => libc::readv(fd, list, count),
                Transfer::Write => libc::writev(fd, list, count),
                Transfer::ReadAt(offset) => libc::preadv(fd, list, count, offset.cast_signed()),
                Transfer::WriteAt(offset) => libc::pwritev(fd, list, count, offset.cast_signed()),
            }
        };
        if done >= 0 {
            return Ok(done.cast_unsigned());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Receives from a socket, as [`transfer`] reads. Also whether something else than bytes came, such as
/// descriptors, which are closed; what follows it waits for the next call.
pub(crate) fn receive(fd: BorrowedFd<'_>, windows: &[Window<'_>]) -> io::Result<(usize, bool)> {
    let mut room = [MaybeUninit::uninit(); BATCH];
    let iovecs = iovecs_of(windows, &mut room);
    // SAFETY: a header of zeros is valid, and has room for neither a name nor anything but bytes.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = iovecs.as_mut_ptr();
    header.msg_iovlen = iovecs.len() as _;
    loop {
        // SAFETY: as in `transfer`; the header and its list are this function's own.
        let done = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, 0) };
        if done >= 0 {
            return Ok((done.cast_unsigned(), header.msg_flags & libc::MSG_CTRUNC != 0));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// What the kernel is to fill or to read, as much as there is room for. What is not needed of the room is not
/// touched: most transfers have one window.
fn iovecs_of<'r>(windows: &[Window<'_>], room: &'r mut [MaybeUninit<libc::iovec>; BATCH]) -> &'r mut [libc::iovec] {
    let count = windows.len().min(BATCH);
    for (iovec, window) in room.iter_mut().zip(windows) {
        iovec.write(iovec_of(window.as_ptr(), window.len()));
    }
    // SAFETY: the first `count` of the room have just been written, and nobody else has them.
    unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast(), count) }
}

const fn iovec_of(start: *mut u8, len: usize) -> libc::iovec {
    libc::iovec {
        iov_base: start.cast(),
        iov_len: len,
    }
}

/// Reads or writes one datagram.
///
/// # Safety
///
/// Each iovec must be memory that `call` may read or write.
unsafe fn transfer_iovecs(
    fd: BorrowedFd<'_>,
    iovecs: &[libc::iovec],
    call: unsafe extern "C" fn(libc::c_int, *const libc::iovec, libc::c_int) -> libc::ssize_t,
) -> io::Result<usize> {
    loop {
        // SAFETY: the caller's promise.
        let done = unsafe { call(fd.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as libc::c_int) };
        if done >= 0 {
            return Ok(done.cast_unsigned());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
