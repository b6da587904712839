//! System call filters: what a thread may ask of the kernel.
//!
//! A [`Filter`] is a list of calls, some with conditions on arguments, and what happens at any other
//! call. It is compiled outside, before there is a jail. Threads of a jailed process inherit its
//! filter, and may add one of their own, which can only take away.

mod ordinary;
mod refused;
mod vmm;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::error::{Failure, Step};

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
    allowed: BTreeMap<i64, Vec<SeccompRule>>,
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
        let conditions = values.iter().map(|value| vec![(argument, Op::Eq, *value)]);
        self.rules(call, conditions.collect())
    }

    /// Allows a call unless an argument, of which the kernel uses 32 bits, is one of these.
    #[must_use]
    fn allow_unless(self, call: i64, argument: u8, values: &[u32]) -> Self {
        let conditions = values.iter().map(|value| (argument, Op::Ne, *value)).collect();
        self.rules(call, vec![conditions])
    }

    /// Allows a call if these bits of an argument are 0.
    #[must_use]
    fn allow_without_bits(self, call: i64, argument: u8, bits: u32) -> Self {
        self.rules(call, vec![vec![(argument, Op::MaskedEq(bits.into()), 0)]])
    }

    /// Lets a call fail as on a kernel that does not have it, so that programs take another way.
    #[must_use]
    fn missing(mut self, call: i64) -> Self {
        self.allowed.insert(call, Vec::new());
        self.missing.push(call);
        self
    }

    fn rules(mut self, call: i64, rules: Vec<Vec<(u8, Op, u32)>>) -> Self {
        let rules = rules.into_iter().filter_map(|conditions| {
            let conditions: Result<Vec<_>, _> = conditions
                .into_iter()
                // The kernel cuts the argument to 32 bits, and so must the filter: else 1 << 32 more is let by.
                .map(|(argument, op, value)| Condition::new(argument, Length::Dword, op, value.into()))
                .collect();
            // An argument beyond the sixth is a mistake in a list of ours, and allows nothing.
            SeccompRule::new(conditions.ok()?).ok()
        });
        let rules: Vec<_> = rules.collect();
        // A call without any rule would be allowed whatever its arguments.
        if !rules.is_empty() {
            self.allowed.entry(call).or_default().extend(rules);
        }
        self
    }

    /// Compiles the filter.
    pub(super) fn compile(&self) -> Result<Programs, Failure> {
        let otherwise = match self.otherwise {
            Otherwise::Kill => SeccompAction::KillProcess,
            Otherwise::Errno(errno) => SeccompAction::Errno(errno),
            Otherwise::Log => SeccompAction::Log,
        };
        let mut programs = vec![program(self.allowed.clone(), otherwise, SeccompAction::Allow)?];
        if !self.missing.is_empty() {
            let missing = self.missing.iter().map(|call| (*call, Vec::new())).collect();
            let action = SeccompAction::Errno(libc::ENOSYS as u32);
            programs.push(program(missing, SeccompAction::Allow, action)?);
        }
        Ok(Programs(programs))
    }

    /// Installs the filter for the calling thread and those that it starts.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn install(&self) -> Result<(), Failure> {
        self.compile()?.install()
    }
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, Failure> {
    SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64)
        .and_then(BpfProgram::try_from)
        .map_err(|error| Failure::refused(Step::Seccomp, error.to_string()))
}

/// A filter that kills at these calls, and at `ioctl` with these requests, and allows all others: to be put before one
/// that knows what is allowed.
fn forbid(calls: &[i64], requests: &[u32]) -> Result<Programs, Failure> {
    let mut rules = Filter::new(&[], Otherwise::Kill)
        .allow_if(libc::SYS_ioctl, 1, requests)
        .allowed;
    rules.retain(|call, _| *call == libc::SYS_ioctl);
    rules.extend(calls.iter().map(|call| (*call, Vec::new())));
    Ok(Programs(vec![program(
        rules,
        SeccompAction::Allow,
        SeccompAction::KillProcess,
    )?]))
}

/// A filter as the kernel reads it.
#[derive(Debug)]
pub(super) struct Programs(Vec<BpfProgram>);

impl Programs {
    pub(super) fn install(&self) -> Result<(), Failure> {
        // The one that allows more is first: the other must still be installed under it.
        for program in self.0.iter() {
            seccompiler::apply_filter(program).map_err(|error| Failure::refused(Step::Seccomp, error.to_string()))?;
        }
        Ok(())
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

    #[test]
    fn every_list_compiles() {
        assert_eq!(ordinary().compile().unwrap().0.len(), 2);
        assert_eq!(vmm(&[0xAE80]).compile().unwrap().0.len(), 2);
    }
}
