//! What a process may do beyond the walls: nothing.

use std::ffi::CString;
use std::os::fd::RawFd;

use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitiesSecureBits as Bits, CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities,
    set_capabilities_secure_bits, set_no_new_privs,
};

use super::clone::{checked, last_error};
use super::error::{At, Failure, Step};
use super::user::{Who, become_who};

/// `KEYCTL_JOIN_SESSION_KEYRING` (`keyctl(2)`).
const JOIN_SESSION_KEYRING: libc::c_long = 1;

/// Gives up all privileges, in an order in which each step is still allowed.
pub(super) fn drop_all(who: &Who) -> Result<(), Failure> {
    step("a new session keyring", new_keyring())?;
    // No core file: it would hold what the caller had in memory.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    step("no core files", setrlimit(Resource::Core, none))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    step("the bounding set", empty_bounding_set())?;
    step("secure bits", lock_secure_bits())?;
    become_who(who)?;
    step("the ambient set", clear_ambient_capability_set())?;
    let nothing = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    step("capabilities", set_capabilities(None, nothing))?;
    step("no_new_privs", set_no_new_privs(true))?;
    // Nobody else in the jail can trace this process or look into its memory and descriptors, and its
    // /proc/PID/exe, which is a file of the host, is closed to them.
    step("not dumpable", set_dumpable_behavior(DumpableBehavior::NotDumpable))
}

/// Has the kernel kill this process when its parent dies. It forgets that whenever ids change.
pub(super) fn die_with_parent() -> Result<(), Failure> {
    step(
        "the parent's death",
        set_parent_process_death_signal(Some(Signal::KILL)),
    )
}

fn step(what: &str, result: Result<(), Errno>) -> Result<(), Failure> {
    result.at(Step::Privileges, || what.into())
}

/// The caller's keys stay with the caller.
fn new_keyring() -> Result<(), Errno> {
    // SAFETY: a null name asks for a keyring without one.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0) };
    match if answer == -1 { Err(last_error()) } else { Ok(()) } {
        // A kernel without keys has none to keep.
        Err(Errno::NOSYS) => Ok(()),
        other => other,
    }
}

/// Program files can then give nothing back.
fn empty_bounding_set() -> Result<(), Errno> {
    for capability in 0..64 {
        // SAFETY: PR_CAPBSET_DROP takes the number of a capability.
        match checked(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            // The kernel knows no more.
            Err(Errno::INVAL) if capability > 0 => break,
            other => other.map(drop)?,
        }
    }
    Ok(())
}

/// User 0 is a user like any other, for good (`capabilities(7)`).
fn lock_secure_bits() -> Result<(), Errno> {
    set_capabilities_secure_bits(
        Bits::NO_ROOT
            | Bits::NO_ROOT_LOCKED
            | Bits::NO_SETUID_FIXUP
            | Bits::NO_SETUID_FIXUP_LOCKED
            | Bits::KEEP_CAPS_LOCKED
            | Bits::NO_CAP_AMBIENT_RAISE
            | Bits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )
}

/// Closes all descriptors but the standard streams and those to keep.
pub(super) fn close_others(keep: &[RawFd]) -> Result<(), Failure> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Failure> {
    // SAFETY: nothing here uses these descriptors any more: whatever owned one ends with `_exit` or is
    // replaced, without destructors.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    let result = if answer == -1 { Err(last_error()) } else { Ok(()) };
    result.at(Step::Privileges, || format!("closing descriptors {first} to {last}"))
}

/// Leaves nothing of the caller's environment but what is named.
pub(super) fn set_environment(variables: &[CString]) -> Result<(), Failure> {
    // SAFETY: this process has one thread, so nobody reads the environment meanwhile.
    step("the environment", checked(unsafe { libc::clearenv() }).map(drop))?;
    for variable in variables {
        // putenv keeps the pointer, so the string is given away.
        // SAFETY: as above, and the string lives until the process ends.
        let answer = unsafe { libc::putenv(variable.clone().into_raw()) };
        step("the environment", checked(answer).map(drop))?;
    }
    Ok(())
}
