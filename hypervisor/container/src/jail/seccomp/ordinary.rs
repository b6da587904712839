//! The list for an ordinary program, after the default of docker for a container without capabilities.

use libc::*;

use super::{Filter, Otherwise};

/// Bits of `clone(2)` that make namespaces.
const NAMESPACES: u32 =
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET) as u32;

/// Sockets of virtual machines and of the kernel's ciphers reach past a network namespace.
const FAMILIES: [u32; 2] = [AF_VSOCK as u32, AF_ALG as u32];

/// Requests that type into a terminal, as if the person before it had.
const TYPING: [u32; 2] = [TIOCSTI as u32, TIOCLINUX];
/// `ioctl_console(2)`; pastes into a console.
const TIOCLINUX: u32 = 0x541C;

/// Calls of `asm/unistd_64.h` that the C libraries do not all name.
const IO_PGETEVENTS: i64 = 333;
const FCHMODAT2: i64 = 452;

/// What programs of any kind need, and nothing that makes namespaces, mounts, traces others, loads
/// programs into the kernel, or sets clocks. A call that is not in the list fails with EPERM.
#[must_use]
pub fn ordinary() -> Filter {
    Filter::new(CALLS, Otherwise::Errno(EPERM as u32))
        .allow_without_bits(SYS_clone, 0, NAMESPACES)
        // Its flags are in memory, where a filter cannot look: programs fall back to clone.
        .missing(SYS_clone3)
        .allow_unless(SYS_socket, 0, &FAMILIES)
        .allow_unless(SYS_ioctl, 1, &TYPING)
        .allow_if(SYS_personality, 0, &[0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff])
}

#[rustfmt::skip]
const CALLS: &[i64] = &[
    // Files.
    SYS_read, SYS_write, SYS_open, SYS_openat, SYS_openat2, SYS_creat, SYS_close, SYS_close_range, SYS_stat, SYS_fstat,
    SYS_lstat, SYS_newfstatat, SYS_statx, SYS_statfs, SYS_fstatfs, SYS_lseek, SYS_pread64, SYS_pwrite64, SYS_readv,
    SYS_writev, SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_access, SYS_faccessat, SYS_faccessat2, SYS_dup,
    SYS_dup2, SYS_dup3, SYS_fcntl, SYS_flock, SYS_fsync, SYS_fdatasync, SYS_truncate, SYS_ftruncate, SYS_fallocate,
    SYS_getdents, SYS_getdents64, SYS_getcwd, SYS_chdir, SYS_fchdir, SYS_rename, SYS_renameat, SYS_renameat2, SYS_mkdir,
    SYS_mkdirat, SYS_rmdir, SYS_link, SYS_linkat, SYS_unlink, SYS_unlinkat, SYS_symlink, SYS_symlinkat, SYS_readlink,
    SYS_readlinkat, SYS_mknod, SYS_mknodat, SYS_chmod, SYS_fchmod, SYS_fchmodat, FCHMODAT2, SYS_chown, SYS_fchown,
    SYS_lchown, SYS_fchownat, SYS_umask, SYS_utime, SYS_utimes, SYS_utimensat, SYS_futimesat, SYS_setxattr,
    SYS_lsetxattr, SYS_fsetxattr, SYS_getxattr, SYS_lgetxattr, SYS_fgetxattr, SYS_listxattr, SYS_llistxattr,
    SYS_flistxattr, SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr, SYS_sync, SYS_syncfs, SYS_sync_file_range,
    SYS_readahead, SYS_fadvise64, SYS_sendfile, SYS_splice, SYS_tee, SYS_vmsplice, SYS_copy_file_range, SYS_inotify_init,
    SYS_inotify_init1, SYS_inotify_add_watch, SYS_inotify_rm_watch, SYS_name_to_handle_at, SYS_memfd_create,
    SYS_io_setup, SYS_io_destroy, SYS_io_submit, SYS_io_cancel, SYS_io_getevents, IO_PGETEVENTS,
    // Memory.
    SYS_mmap, SYS_mprotect, SYS_munmap, SYS_mremap, SYS_msync, SYS_mincore, SYS_madvise, SYS_brk, SYS_mlock, SYS_mlock2,
    SYS_munlock, SYS_mlockall, SYS_munlockall, SYS_remap_file_pages, SYS_pkey_mprotect, SYS_pkey_alloc, SYS_pkey_free,
    SYS_membarrier, SYS_rseq, SYS_arch_prctl, SYS_modify_ldt, SYS_set_thread_area, SYS_get_thread_area,
    // Processes and threads.
    SYS_fork, SYS_vfork, SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid, SYS_getpid,
    SYS_getppid, SYS_gettid, SYS_getpgid, SYS_setpgid, SYS_getpgrp, SYS_getsid, SYS_setsid, SYS_getuid, SYS_geteuid,
    SYS_getresuid, SYS_getgid, SYS_getegid, SYS_getresgid, SYS_getgroups, SYS_setgroups, SYS_setuid, SYS_setgid,
    SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setfsuid, SYS_setfsgid, SYS_capget, SYS_capset,
    SYS_prctl, SYS_seccomp, SYS_landlock_create_ruleset, SYS_landlock_add_rule, SYS_landlock_restrict_self,
    SYS_set_tid_address, SYS_set_robust_list, SYS_get_robust_list, SYS_futex, SYS_futex_waitv, SYS_getrlimit,
    SYS_setrlimit, SYS_prlimit64, SYS_getrusage, SYS_getpriority, SYS_setpriority, SYS_ioprio_get, SYS_ioprio_set,
    SYS_sched_yield, SYS_sched_getparam, SYS_sched_setparam, SYS_sched_getscheduler, SYS_sched_setscheduler,
    SYS_sched_getattr, SYS_sched_setattr, SYS_sched_get_priority_max, SYS_sched_get_priority_min,
    SYS_sched_rr_get_interval, SYS_sched_getaffinity, SYS_sched_setaffinity, SYS_getcpu, SYS_uname, SYS_sysinfo,
    SYS_times, SYS_getrandom, SYS_pidfd_open, SYS_pidfd_send_signal, SYS_restart_syscall,
    // Signals.
    SYS_kill, SYS_tkill, SYS_tgkill, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigpending, SYS_rt_sigtimedwait,
    SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_rt_sigreturn, SYS_rt_sigsuspend, SYS_sigaltstack, SYS_pause,
    SYS_signalfd, SYS_signalfd4,
    // Time.
    SYS_time, SYS_gettimeofday, SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_alarm,
    SYS_getitimer, SYS_setitimer, SYS_timer_create, SYS_timer_settime, SYS_timer_gettime, SYS_timer_getoverrun,
    SYS_timer_delete, SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime,
    // Waiting.
    SYS_poll, SYS_ppoll, SYS_select, SYS_pselect6, SYS_epoll_create, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait,
    SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd, SYS_eventfd2,
    // Pipes, sockets, queues.
    SYS_pipe, SYS_pipe2, SYS_socketpair, SYS_bind, SYS_connect, SYS_listen, SYS_accept, SYS_accept4, SYS_getsockname,
    SYS_getpeername, SYS_getsockopt, SYS_setsockopt, SYS_shutdown, SYS_sendto, SYS_sendmsg, SYS_sendmmsg, SYS_recvfrom,
    SYS_recvmsg, SYS_recvmmsg, SYS_shmget, SYS_shmat, SYS_shmdt, SYS_shmctl, SYS_semget, SYS_semop, SYS_semtimedop,
    SYS_semctl, SYS_msgget, SYS_msgsnd, SYS_msgrcv, SYS_msgctl, SYS_mq_open, SYS_mq_unlink, SYS_mq_timedsend,
    SYS_mq_timedreceive, SYS_mq_notify, SYS_mq_getsetattr,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_is_not_in_the_list() {
        for call in [
            SYS_mount,
            SYS_umount2,
            SYS_pivot_root,
            SYS_chroot,
            SYS_unshare,
            SYS_setns,
            SYS_ptrace,
            SYS_process_vm_readv,
            SYS_process_vm_writev,
            SYS_bpf,
            SYS_perf_event_open,
            SYS_userfaultfd,
            SYS_io_uring_setup,
            SYS_keyctl,
            SYS_add_key,
            SYS_request_key,
            SYS_kexec_load,
            SYS_init_module,
            SYS_finit_module,
            SYS_open_by_handle_at,
            SYS_fsopen,
            SYS_open_tree,
            SYS_move_mount,
            SYS_mount_setattr,
            SYS_swapon,
            SYS_reboot,
            SYS_settimeofday,
            SYS_clock_settime,
            SYS_acct,
            SYS_quotactl,
            SYS_pidfd_getfd,
            SYS_iopl,
            SYS_ioperm,
            SYS_syslog,
        ] {
            assert!(!CALLS.contains(&call), "call {call}");
        }
    }
}
