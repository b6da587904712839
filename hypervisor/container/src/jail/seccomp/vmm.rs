//! The list for a process that runs a virtual machine.
//!
//! It is a beginning: calls that a device loop and a processor thread of any small machine monitor
//! make. Whoever runs the machine measures its own (`Otherwise::Log` shows what is missing) and gives
//! the requests that it makes of its devices.

use libc::*;

use super::{Filter, Otherwise};

/// Threads, memory, event loops, files and sockets that are open already; `ioctl` with these requests
/// only. Anything else kills the process.
#[must_use]
pub fn vmm(requests: &[u32]) -> Filter {
    Filter::new(CALLS, Otherwise::Kill)
        .allow_if(SYS_ioctl, 1, requests)
        // It would do by the ring what the list keeps from being done by calls.
        .missing(SYS_io_uring_setup)
}

#[rustfmt::skip]
const CALLS: &[i64] = &[
    // Descriptors that are open.
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_fsync,
    SYS_fdatasync, SYS_fallocate, SYS_ftruncate, SYS_lseek, SYS_fstat, SYS_close, SYS_fcntl, SYS_dup2,
    SYS_recvfrom, SYS_recvmsg, SYS_sendto, SYS_sendmsg, SYS_accept4, SYS_shutdown,
    // Files of the jail's own root, and only of that: there is nothing else.
    SYS_open, SYS_openat, SYS_openat2, SYS_stat, SYS_lstat, SYS_newfstatat, SYS_statx, SYS_fstatfs, SYS_statfs, SYS_getdents64,
    SYS_readlink, SYS_readlinkat, SYS_mkdirat, SYS_unlinkat, SYS_renameat, SYS_renameat2, SYS_getcwd, SYS_fchmod, SYS_utimensat,
    // Memory.
    SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_brk,
    // Waiting.
    SYS_poll, SYS_ppoll, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait, SYS_epoll_pwait, SYS_eventfd2,
    SYS_timerfd_create, SYS_timerfd_settime, SYS_futex, SYS_clock_gettime, SYS_clock_nanosleep, SYS_nanosleep,
    SYS_sched_yield,
    // Threads and signals. `clone3` cannot be filtered by flags; without capabilities, and with the limit on
    // user namespaces that a jail sets, it makes no namespace.
    SYS_clone, SYS_clone3, SYS_set_robust_list, SYS_rseq, SYS_set_tid_address, SYS_sched_getaffinity, SYS_gettid, SYS_getpid,
    SYS_tgkill, SYS_tkill, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack, SYS_signalfd4,
    SYS_restart_syscall, SYS_getrandom,
];
