//! System call filters: what a thread may ask of the kernel.
//!
//! A [`Filter`] is a list of calls, some with conditions on arguments, and what happens at any other
//! call. It is compiled outside, before there is a jail. Threads of a jailed process inherit its
//! filter, and may add one of their own, which can only take away.

mod ordinary;
mod program;
mod refused;
mod vmm;

use std::collections::BTreeMap;

use libc::{sock_filter, sock_fprog};

use super::clone::{checked, last_error};
use super::error::{At, Failure, Step};
use program::{Condition, Entry, Fate, Test, compile};

pub use ordinary::ordinary;
pub use refused::Refused;
pub use vmm::{Thread, narrow, vmm};

/// What happens at a call that is not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Otherwise {
    /// The process is killed by SIGSYS, and the kernel's audit log has the number of the call.
    #[default]
    Kill,
    /// The call fails with this error.
    Errno(u32),
    /// It is allowed, and the kernel's audit log has its number: for finding out what a list lacks.
    Log,
}

/// A list of calls that are allowed.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Each with its rules, one of which must hold; without any it is always allowed.
    allowed: BTreeMap<i64, Vec<Vec<Condition>>>,
    otherwise: Otherwise,
    missing: Vec<i64>,
}

impl Filter {
    /// A filter that allows these calls, and those without which a jail cannot be finished: `write`,
    /// `close`, `exit`, `exit_group`, `rt_sigreturn`, those with which memory is got and given back, and for
    /// another filter `prctl` and `seccomp`.
    #[must_use]
    pub fn new(calls: &[i64], otherwise: Otherwise) -> Self {
        let needed = [
            libc::SYS_write,
            libc::SYS_close,
            libc::SYS_exit,
            libc::SYS_exit_group,
            libc::SYS_rt_sigreturn,
            libc::SYS_brk,
            libc::SYS_mmap,
            libc::SYS_munmap,
            libc::SYS_mremap,
            libc::SYS_madvise,
            libc::SYS_prctl,
            libc::SYS_seccomp,
        ];
        Self {
            allowed: calls.iter().chain(&needed).map(|call| (*call, Vec::new())).collect(),
            otherwise,
            missing: Vec::new(),
        }
    }

    /// Changes what happens at other calls.
    #[must_use]
    pub fn otherwise(mut self, otherwise: Otherwise) -> Self {
        self.otherwise = otherwise;
        self
    }

    /// Allows a call if an argument, of which the kernel uses 32 bits, is one of these.
    ///
    /// So `ioctl` is filtered by request number: `allow_if(libc::SYS_ioctl, 1, &requests)`.
    #[must_use]
    pub fn allow_if(self, call: i64, argument: u8, values: &[u32]) -> Self {
        let conditions = values.iter().map(|value| vec![(argument, Test::Is(*value))]);
        self.rules(call, conditions.collect())
    }

    /// Allows a call unless an argument, of which the kernel uses 32 bits, is one of these.
    #[must_use]
    fn allow_unless(self, call: i64, argument: u8, values: &[u32]) -> Self {
        let conditions = values.iter().map(|value| (argument, Test::IsNot(*value))).collect();
        self.rules(call, vec![conditions])
    }

    /// Allows a call if these bits of an argument are 0.
    #[must_use]
    fn allow_without_bits(self, call: i64, argument: u8, bits: u32) -> Self {
        self.rules(call, vec![vec![(argument, Test::Without(bits))]])
    }

    /// Lets a call fail as on a kernel that does not have it, so that programs take another way.
    #[must_use]
    fn missing(mut self, call: i64) -> Self {
        self.allowed.insert(call, Vec::new());
        self.missing.push(call);
        self
    }

    fn rules(mut self, call: i64, mut rules: Vec<Vec<Condition>>) -> Self {
        // An argument beyond the sixth is a mistake in a list of ours, and allows nothing.
        rules.retain(|rule| !rule.is_empty() && rule.iter().all(|(argument, _)| *argument < 6));
        // A call without any rule would be allowed whatever its arguments.
        if !rules.is_empty() {
            self.allowed.entry(call).or_default().extend(rules);
        }
        self
    }

    /// Compiles the filter.
    pub(super) fn compile(&self) -> Program {
        let others = match self.otherwise {
            Otherwise::Kill => Fate::Kill,
            Otherwise::Errno(errno) => Fate::Errno(errno),
            Otherwise::Log => Fate::Log,
        };
        let entry = |(call, rules): (&i64, &Vec<_>)| {
            let entry = match rules.as_slice() {
                _ if self.missing.contains(call) => Entry::Always(Fate::Errno(libc::ENOSYS as u32)),
                [] => Entry::Always(Fate::Allow),
                _ => Entry::If(rules.clone(), Fate::Allow),
            };
            (*call as u32, entry)
        };
        Program(compile(self.allowed.iter().map(entry).collect(), others))
    }

    /// Installs the filter for the calling thread and those that it starts.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn install(&self) -> Result<(), Failure> {
        self.compile().install()
    }
}

/// A filter that kills at these calls, and at `ioctl` with these requests, and allows all others: to be put before one
/// that knows what is allowed.
fn forbid(calls: &[i64], requests: &[u32]) -> Program {
    let kill = |call: &i64| (*call as u32, Entry::Always(Fate::Kill));
    let requests = requests.iter().map(|request| vec![(1, Test::Is(*request))]);
    let ioctl = (libc::SYS_ioctl as u32, Entry::If(requests.collect(), Fate::Kill));
    Program(compile(calls.iter().map(kill).chain([ioctl]).collect(), Fate::Allow))
}

/// A filter as the kernel reads it.
#[derive(Debug)]
pub(super) struct Program(Vec<sock_filter>);

impl Program {
    pub(super) fn install(&self) -> Result<(), Failure> {
        let what = || format!("a filter of {} instructions", self.0.len());
        let program = sock_fprog {
            // BPF_MAXINSNS is 4096; what is longer is refused, not cut.
            len: u16::try_from(self.0.len()).map_err(|_| Failure::refused(Step::Seccomp, what()))?,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: a flag of this thread, which takes four numbers.
        checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).at(Step::Seccomp, what)?;
        // SAFETY: the kernel reads `len` instructions from `filter`, which outlive the call, and writes nothing.
        let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if answer == 0 {
            Ok(())
        } else {
            Err(last_error()).at(Step::Seccomp, what)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_values_allow_nothing() {
        let filter = Filter::new(&[libc::SYS_read], Otherwise::Kill).allow_if(libc::SYS_ioctl, 1, &[]);
        assert!(!filter.allowed.contains_key(&libc::SYS_ioctl));
    }
}
