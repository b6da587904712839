//! What this kernel and this machine have of what a jail is made of, for who wants to know before.

use std::io;
use std::ptr::null;

use super::clone::last_error;

/// The version of Landlock's interface (landlock(7)), if there is any.
///
/// # Errors
///
/// ENOSYS if the kernel was built without it, EOPNOTSUPP if it was started without it.
pub fn landlock_version() -> io::Result<i64> {
    const VERSION: libc::c_int = 1;
    // SAFETY: with this flag the kernel looks at nothing, and only answers.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, null::<u8>(), 0_usize, VERSION) };
    if answer < 0 {
        Err(last_error().into())
    } else {
        Ok(answer)
    }
}

/// Whether system calls can be filtered, and who makes others be killed.
///
/// # Errors
///
/// What the kernel answers.
pub fn filters_calls() -> io::Result<()> {
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the kernel reads the action, which outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    if answer < 0 { Err(last_error().into()) } else { Ok(()) }
}

/// Whether the kernel has the call that shows files with other owners (`mount_setattr(2)`), as jails of root need it.
/// Each file system decides for itself.
///
/// # Errors
///
/// If it has not.
pub fn maps_owners() -> io::Result<()> {
    // SAFETY: there is no such descriptor, and no attributes are read.
    let answer = unsafe { libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0, null::<u8>(), 0_usize) };
    match if answer < 0 { last_error() } else { return Ok(()) } {
        rustix::io::Errno::NOSYS => Err(rustix::io::Errno::NOSYS.into()),
        // It is there, and finds the question wanting.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_runs_the_tests_has_what_they_take() {
        filters_calls().unwrap();
        maps_owners().unwrap();
    }
}
