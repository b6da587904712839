//! `clone3`: a copy of this process, in namespaces of its own.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// `linux/sched.h`; these flags have more than 32 bits, which the C library's numbers lack.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Which of the two processes this is.
pub(super) enum Side {
    /// The new one.
    Child,
    /// The old one.
    Parent {
        /// The new one's number, as this process sees it.
        pid: libc::pid_t,
        /// The new one.
        pidfd: OwnedFd,
    },
}

/// Copies this process, which has one thread, as `fork` does.
///
/// `flags` are of `clone3(2)`; the kernel forgets signal handlers in the copy. `cgroup` is the
/// directory of a group of cgroup v2, in which the copy begins.
pub(super) fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, Errno> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: every field of `clone_args` is a number, and 0 means "not used" for each.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    args.pidfd = (&raw mut pidfd) as u64;
    // With CLONE_PARENT it is the parent's own signal that counts, and the kernel wants 0.
    if flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(directory) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = directory.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork: the copy has memory of its own and goes on with this
    // stack, and the kernel writes only to `pidfd`, which outlives the call. The process has one
    // thread, so that no lock of the allocator or of the C library is held in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        0 => Ok(Side::Child),
        -1 => Err(last_error()),
        pid => Ok(Side::Parent {
            pid: pid as libc::pid_t,
            // SAFETY: CLONE_PIDFD made the kernel put a new descriptor here, which nobody else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Ends this process at once: no destructors, no handlers, as is right for a copy.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// `errno` of the last call of the C library.
pub(super) fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// A call of the C library that answers -1 where it failed.
pub(super) fn checked(answer: libc::c_int) -> Result<libc::c_int, Errno> {
    if answer == -1 { Err(last_error()) } else { Ok(answer) }
}
