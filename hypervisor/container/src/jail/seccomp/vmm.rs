//! The list for a process that runs a virtual machine.
//!
//! Measured thread by thread, with `strace` on jailed guests in the end-to-end tests, as `cargo xtask calls` does it. What
//! was not seen there, and most of what the I/O thread makes (its rare ways: short writes, a full queue), is in the list by
//! reading the code, with its reason. What is not needed after a jail stands is not here: no file is opened by another way,
//! no socket is made, no program is run, no signal is sent but to threads of this process.
//!
//! The process has the whole list while it makes its machine. Then each thread gives up what only others need, by
//! [`narrow`]; a processor may at times do the work of the device loop, and so keeps most of that.

use libc::*;

use super::{Failure, Filter, Otherwise};

/// Threads, memory, event loops, files and sockets that are open already; `ioctl` with these requests
/// only. Anything else kills the process.
#[must_use]
pub fn vmm(requests: &[u32]) -> Filter {
    let calls = CALLS.iter().flat_map(|(_, calls)| *calls).copied();
    let calls: Vec<_> = calls.filter(|call| *call != SYS_clone).collect();
    Filter::new(&calls, Otherwise::Kill)
        .allow_if(SYS_ioctl, 1, requests)
        // Threads share what threads share: with a flag less, it would be a process, or a namespace.
        .allow_if(SYS_clone, 0, &[THREAD])
        // It would do by the ring what the list keeps from being done by calls.
        .missing(SYS_io_uring_setup)
        // Its flags cannot be seen.
        .missing(SYS_clone3)
}

/// What a thread of such a process is for; the least number of bits in a set of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Thread {
    /// It runs a processor, and at times a device.
    Processor = 1,
    /// It is the device loop.
    Devices = 2,
    /// It serves disks and folders.
    Io = 4,
}

/// Takes from the calling thread, and from those it starts, the calls that only other threads make, and these requests
/// of `ioctl`.
///
/// # Errors
///
/// If the kernel refuses it.
pub fn narrow(thread: Thread, requests: &[u32]) -> Result<(), Failure> {
    let of_others = CALLS.iter().filter(|(who, _)| who & thread as u8 == 0);
    let calls: Vec<_> = of_others.flat_map(|(_, calls)| *calls).copied().collect();
    super::forbid(&calls, requests).install()
}

/// As the C library makes a thread.
const THREAD: u32 = (CLONE_VM
    | CLONE_FS
    | CLONE_FILES
    | CLONE_SIGHAND
    | CLONE_THREAD
    | CLONE_SYSVSEM
    | CLONE_SETTLS
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_CLEARTID
    | CLONE_DETACHED) as u32;

const P: u8 = Thread::Processor as u8;
const D: u8 = Thread::Devices as u8;
const ANY: u8 = P | D | Thread::Io as u8;
/// Nobody, once the threads have begun.
const START: u8 = 0;

/// The calls, and which threads make them.
#[rustfmt::skip]
const CALLS: &[(u8, &[i64])] = &[
    // Consoles, ports and the log.
    (ANY, &[SYS_read, SYS_readv, SYS_writev, SYS_fcntl]),
    // The streams become those of the guest.
    (START, &[SYS_dup2]),
    // Disks: requests, discards and flushes; folders: the contents of files.
    (ANY, &[SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_fallocate, SYS_fdatasync, SYS_fsync, SYS_lseek]),
    // Folders: names, sizes, room. Files are those of the jail's own root: there is nothing else.
    (ANY, &[SYS_openat, SYS_openat2, SYS_fstat, SYS_newfstatat, SYS_fstatfs, SYS_getdents64, SYS_mkdirat, SYS_unlinkat,
        SYS_renameat, SYS_ftruncate]),
    // A guest from an image is read from the root, folders are found.
    (START, &[SYS_open, SYS_stat, SYS_lstat, SYS_readlink, SYS_getcwd]),
    // The I/O thread counts processors.
    (START, &[SYS_sched_getaffinity]),
    // Sockets that listen already: vsock, ports, control. What comes with bytes is known by `recvmsg` alone, as is a
    // connection of vsock to the host.
    (P | D, &[SYS_accept4, SYS_recvfrom, SYS_recvmsg, SYS_sendto, SYS_shutdown]),
    // Event loops, and waiting.
    (START, &[SYS_epoll_create1, SYS_eventfd2]),
    (ANY, &[SYS_ppoll, SYS_epoll_ctl, SYS_epoll_pwait, SYS_futex, SYS_clock_nanosleep]),
    // Threads, which only processors start, and their memory.
    (P, &[SYS_clone, SYS_getpid, SYS_gettid]),
    (ANY, &[SYS_mprotect, SYS_sched_yield, SYS_tgkill, SYS_sigaltstack, SYS_getrandom]),
    // Signals that stop a guest.
    (START, &[SYS_signalfd4]),
    (ANY, &[SYS_rt_sigaction, SYS_rt_sigprocmask]),
    // What the kernel makes of a wait that a signal interrupted.
    (ANY, &[SYS_restart_syscall]),
    // Where the clock's registers cannot be read without a call.
    (ANY, &[SYS_clock_gettime]),
    // `abort`: so that it ends as such, and not as a call that is not allowed.
    (ANY, &[SYS_tkill]),
];
