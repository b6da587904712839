//! Process 1 of a jail.
//!
//! The kernel treats it apart: orphans become its children, its death kills all others, and signals
//! from inside reach it only if it asked for them.
//!
//! | [`Init`] | process 1 is | orphans | signals |
//! |---|---|---|---|
//! | `Payload` | the payload itself, such as a machine monitor | the kernel takes them away | as the payload likes |
//! | `Minder` | a process of ours, and the payload its child | reaped | passed on to the payload |

use std::mem::MaybeUninit;

use rustix::io::Errno;

use super::clone::{checked, exit};
use super::privileges::close_others;
use super::seccomp::{Filter, Otherwise};

/// Who is process 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    /// The payload. Orphans are not left as zombies, but the payload cannot wait for children of its own.
    Payload,
    /// A minder, which starts the payload as process 2. Right for programs that do not know that they are
    /// process 1: a signal without a handler would not end them.
    #[default]
    Minder,
}

/// Has the kernel take away orphans without asking (`sigaction(2)`, SIGCHLD ignored).
pub(super) fn ignore_children() {
    // SAFETY: SIG_IGN is no function of ours; no handler runs.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Lets every signal in, as a program expects, and whatever a minder starts.
pub(super) fn unblock_signals() {
    let none = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: an empty set is all zeroes on Linux, and the old one is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
}

/// Gives a program the usual actions: what a process ignores, its programs would ignore too, and Rust's
/// ignore SIGPIPE. Handlers went when the process was copied.
pub(super) fn forget_ignored_signals() {
    // The C library refuses its own two signals, so the kernel is asked. An action of zeroes is SIG_DFL.
    let usual = [0_u64; 4];
    let mask = size_of::<u64>();
    for signal in 1..=64 {
        // SAFETY: rt_sigaction(2) reads the kernel's `sigaction`, which is of this size, and sets no handler.
        // Signals of which the action cannot be set have the usual one.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, usual.as_ptr(), 0, mask) };
    }
}

/// Becomes the minder; only the payload comes back, as a process of its own.
pub(super) fn split(filtered: bool) -> Result<(), Errno> {
    let signals = block_all();
    // SAFETY: this process has one thread.
    let payload = checked(unsafe { libc::fork() })?;
    if payload == 0 {
        unblock_signals();
        return Ok(());
    }
    // It keeps nothing that others could miss, such as the writing end of a pipe. Memory is not given back
    // once there is a filter: that would be a call too.
    let filter = filtered.then(|| Filter::new(CALLS, Otherwise::Kill).compile());
    let alone = close_others(&[]).is_ok()
        && match &filter {
            None => true,
            Some(filter) => filter.install().is_ok(),
        };
    if !alone {
        // The payload dies with it.
        exit(125);
    }
    mind(payload, &signals)
}

/// All that a minder does.
const CALLS: &[i64] = &[libc::SYS_rt_sigtimedwait, libc::SYS_wait4, libc::SYS_kill];

fn block_all() -> libc::sigset_t {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset writes the whole set, which sigprocmask then reads.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut());
        all.assume_init()
    }
}

/// Waits for signals: a child that died is reaped, everything else is the payload's.
fn mind(payload: libc::pid_t, signals: &libc::sigset_t) -> ! {
    loop {
        // SAFETY: the set is whole, and no details are asked for.
        let signal = unsafe { libc::sigwaitinfo(signals, std::ptr::null_mut()) };
        match signal {
            libc::SIGCHLD => reap(payload),
            1.. => {
                // SAFETY: the payload has not been waited for, so its number is still its own.
                unsafe { libc::kill(payload, signal) };
            }
            // Interrupted by a debugger, or by SIGSTOP and SIGCONT.
            _ => {}
        }
    }
}

/// Reaps all that died; ends, and the jail with it, if the payload is among them.
fn reap(payload: libc::pid_t) {
    loop {
        let mut status = 0;
        // SAFETY: `status` is ours to write.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return;
        }
        if pid == payload {
            // Process 1 cannot die of a signal that it sends itself: a shell's convention has to do.
            let code = if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                128 + libc::WTERMSIG(status)
            };
            exit(code);
        }
    }
}
