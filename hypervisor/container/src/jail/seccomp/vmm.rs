//! The list for a process that runs a virtual machine.
//!
//! Measured: it is what `strace -f` saw of jailed guests in the end-to-end tests with
//! `CHITON_TESTS_JAILED` set (consoles, disks, networks, folders, control, interrupts, several processors,
//! the I/O thread), and what reading the code adds. Sockets and ports were not traced, and the trace of
//! control is not complete: theirs is by reading. What is not needed after a jail stands is not here: no file is opened by another way, no
//! socket is made, no program is run, no signal is sent but to threads of this process.

use libc::*;

use super::{Filter, Otherwise};

/// Threads, memory, event loops, files and sockets that are open already; `ioctl` with these requests
/// only. Anything else kills the process.
#[must_use]
pub fn vmm(requests: &[u32]) -> Filter {
    Filter::new(CALLS, Otherwise::Kill)
        .allow_if(SYS_ioctl, 1, requests)
        // Threads share what threads share: with a flag less, it would be a process, or a namespace.
        .allow_if(SYS_clone, 0, &[THREAD])
        // It would do by the ring what the list keeps from being done by calls.
        .missing(SYS_io_uring_setup)
        // Its flags cannot be seen.
        .missing(SYS_clone3)
        // A guest may ask for a socket of the host, and there is none in a jail: it is to hear no, not to die.
        .missing(SYS_socket)
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

#[rustfmt::skip]
const CALLS: &[i64] = &[
    // Consoles, ports and the log.
    SYS_read, SYS_readv, SYS_writev, SYS_dup2, SYS_fcntl,
    // Disks: requests, discards and flushes; folders: the contents of files.
    SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_fallocate, SYS_fdatasync, SYS_fsync, SYS_lseek,
    // Folders: names, sizes, room. Files are those of the jail's own root: there is nothing else.
    SYS_openat, SYS_openat2, SYS_fstat, SYS_newfstatat, SYS_fstatfs, SYS_getdents64, SYS_mkdirat, SYS_unlinkat,
    SYS_renameat, SYS_ftruncate,
    // A guest from an image is read from the root; folders are found; the I/O thread counts processors.
    SYS_open, SYS_stat, SYS_lstat, SYS_readlink, SYS_getcwd, SYS_sched_getaffinity,
    // Sockets that listen already: vsock, ports, control.
    SYS_accept4, SYS_recvfrom, SYS_sendto, SYS_shutdown,
    // Event loops, and waiting.
    SYS_ppoll, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_eventfd2, SYS_futex, SYS_clock_nanosleep,
    // Threads, and their memory.
    SYS_mprotect, SYS_sched_yield, SYS_getpid, SYS_gettid, SYS_tgkill, SYS_sigaltstack, SYS_getrandom,
    // Signals that stop a guest.
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_signalfd4,
    // What the kernel makes of a wait that a signal interrupted.
    SYS_restart_syscall,
    // Where the clock's registers cannot be read without a call.
    SYS_clock_gettime,
    // `abort`: so that it ends as such, and not as a call that is not allowed.
    SYS_tkill,
];
