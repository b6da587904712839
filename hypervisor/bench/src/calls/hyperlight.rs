//! Calls of Hyperlight's, each from pristine state, beside ours: a repeat of one, then a repeat of the other.

use std::path::{Path, PathBuf};
use std::process::Command;

use chiton_kvm::Pool;

use super::{Plan, whole_calls};
use crate::run::{Case, Samples, Unit};
use crate::stats::Summary;
use crate::trial::{TrialError, answer, find};

const PROGRAM: &str = "chiton-peer-hyperlight";
const WHAT: &str = "Hyperlight calls a function of its guest that returns a string, and restores its snapshot";
/// Calls of a repeat: one takes long where ring 0 is interpreted.
const CALLS: usize = 20;
/// So many times as many calls as Hyperlight Chiton is to make.
const GOAL: f64 = 10.0;

/// Measures it, if there is its program in this folder or in PATH.
pub(super) fn measure(plan: Plan<'_>, pool: &Pool, folder: Option<&Path>) -> crate::Result<Case> {
    let skipped = |reason: &str| Case::skipped("Hyperlight: pristine", "call", WHAT, Unit::Nanoseconds, reason);
    let given = folder.map(|folder| folder.join(PROGRAM));
    let Some(program) = given.filter(|path| path.is_file()).or_else(|| find(PROGRAM)) else {
        let how = "`cargo xtask peers` builds it; name its folder with --peers";
        return Ok(skipped(&format!("{PROGRAM} is not there: {how}")));
    };
    // One that does not work here is no failure of ours.
    if let Err(error) = calls(&program, 1) {
        return Ok(skipped(&error.to_string()));
    }
    let (mut theirs, mut restorations, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.repeats {
        let (whole, restored): (Vec<_>, Vec<_>) = calls(&program, CALLS)?.into_iter().unzip();
        theirs.push(Samples::of(whole)?);
        restorations.push(Samples::of(restored)?);
        ours.push(Samples::of(
            whole_calls(pool, b"echo 0123456789abcdef", plan.calls).map_err(crate::Error::Calls)?,
        )?);
    }
    let median = |repeats: &[Samples]| Summary::of(repeats).map_or(0, |summary| summary.p50) as f64 / 1e3;
    let [whole, restored, ours] = [&theirs, &restorations, &ours].map(|repeats| median(repeats));
    let ratio = whole / ours;
    let mut case = Case::measured("Hyperlight: pristine", "call", WHAT, Unit::Nanoseconds, theirs);
    case.note(format!("{restored:.1} us of it restore the snapshot"));
    case.note(format!(
        "{ratio:.0} times as long as a pristine call of 16 bytes of ours, which took {ours:.1} us in turn with it; goal: \
         at least {GOAL} times, {}",
        if ratio >= GOAL { "met" } else { "MISSED" }
    ));
    Ok(case)
}

/// How long so many calls took with the restoration after each, and how long that alone, in nanoseconds.
fn calls(program: &PathBuf, count: usize) -> crate::Result<Vec<(u64, u64)>> {
    let said = answer(Command::new(program).args(["--calls", &count.to_string()]))?;
    let all: Option<Vec<_>> = said.lines().map(parse).collect();
    match all {
        Some(all) if all.len() == count => Ok(all),
        _ => Err(TrialError::Found(format!("{PROGRAM} told of something else than {count} calls: {said:?}")).into()),
    }
}

/// A line: nanoseconds of the call, and of the restoration.
fn parse(line: &str) -> Option<(u64, u64)> {
    let (call, restored) = line.split_once(' ')?;
    let (call, restored): (u64, u64) = (call.parse().ok()?, restored.parse().ok()?);
    Some((call.checked_add(restored)?, restored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_call_and_what_restored_it() {
        assert_eq!(parse("17000000 250000"), Some((17_250_000, 250_000)));
        for line in ["", "1", "1 2 3", "x 1", "18446744073709551615 1"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn who_says_something_else_than_times_is_refused() {
        let error = calls(&PathBuf::from("/bin/echo"), 1).unwrap_err().to_string();
        assert_eq!(
            error,
            "chiton-peer-hyperlight told of something else than 1 calls: \"--calls 1\\n\""
        );
    }
}
