//! `cargo xtask test`: everything that must hold, step by step.

mod bare;
pub(crate) mod calls;
mod e2e;
mod fuzz;
mod lanes;
mod loom;
mod miri;
mod outcome;
mod unit;

use std::path::PathBuf;

use clap::ValueEnum;

use crate::{
    check,
    error::{Error, Result},
    ui::seconds,
};
use outcome::{Outcome, Report};

/// How many lines of what is wrong with a step are told again at the end.
const WHAT_FAILED: usize = 60;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// The sources are formatted.
    Fmt,
    /// Clippy has nothing to say.
    Lint,
    /// The reference and the book have no broken links.
    Doc,
    /// Licences and sources of the dependencies.
    Deny,
    /// Tests beside the code.
    Unit,
    /// Real guests on this machine's KVM.
    E2e,
    /// The same real guests on the KVM of a nested machine.
    Qemu,
    /// The same guests on bare metal, in Bochs and in QEMU.
    Bare,
    /// Every interleaving of driver and device on a ring.
    Loom,
    /// Hostile input, for a short while.
    Fuzz,
    /// No undefined behaviour in rings, devices and loader.
    Miri,
}

impl Step {
    fn run(self, args: &Args) -> Result<String> {
        let silent = |()| String::new();
        match self {
            Self::Fmt => check::fmt::run(true).map(silent),
            Self::Lint => check::lint::run().map(silent),
            Self::Doc => check::doc::run().map(silent),
            Self::Deny => check::deny::run().map(silent),
            Self::Unit => unit::run(),
            Self::E2e => e2e::host(),
            Self::Qemu => e2e::qemu(),
            Self::Bare => bare::run(),
            Self::Loom => loom::run(),
            Self::Miri => miri::run(),
            Self::Fuzz => fuzz::run(args.fuzz_seconds),
        }
    }

    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these steps.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Step>,
    /// A step that cannot run here is a failure; always so where CI=true.
    #[arg(long)]
    pub(crate) strict: bool,
    /// How long each fuzz target runs.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    fuzz_seconds: u32,
    /// Where a step that runs in a process of its own leaves how it ended.
    #[arg(long, hide = true, value_name = "FILE", requires = "only")]
    outcome: Option<PathBuf>,
}

impl Args {
    /// All steps, and nothing may be missing.
    pub(crate) fn ci() -> Self {
        Self {
            only: Vec::new(),
            strict: true,
            fuzz_seconds: 10,
            outcome: None,
        }
    }
}

/// Arguments of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakArgs {
    /// How many are killed.
    #[arg(long, default_value_t = 1000)]
    kills: u32,
    /// What follows from the same seed is the same, but for the time that things take.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Kills supervisors, jailed processes and importers at random moments, and looks for what is left.
///
/// # Errors
///
/// If anything is, or nothing can be run here.
pub(crate) fn soak(args: &SoakArgs) -> Result<()> {
    e2e::soak(args.kills, args.seed)
}

/// Runs the steps, prints a table of them, and returns 0 if none failed.
pub(crate) fn run(args: &Args) -> i32 {
    let strict = args.strict || std::env::var_os("CI").is_some_and(|ci| ci == "true" || ci == "1");
    let steps = if args.only.is_empty() {
        Step::value_variants()
    } else {
        &args.only
    };
    let reports = match (steps, &args.outcome) {
        ([step], Some(file)) => {
            let report = Report::of(|| step.run(args));
            return match report.leave(file) {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("error: {error}");
                    1
                }
            };
        }
        ([step], None) => vec![Report::of(|| step.run(args))],
        _ => lanes::run(steps, args),
    };
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    println!("\nstep   result           time   processors");
    for (step, report) in steps.iter().zip(&reports) {
        let (result, note) = match &report.outcome {
            Outcome::Passed(note) => ("passed", note.as_str()),
            Outcome::Failed(_) => ("FAILED", ""),
            Outcome::Missing(reason) if strict => ("FAILED", reason.as_str()),
            Outcome::Missing(reason) => ("skipped", reason.as_str()),
        };
        match result {
            "passed" => passed += 1,
            "skipped" => skipped += 1,
            _ => failed += 1,
        }
        let (name, note) = (step.name(), note.lines().next().unwrap_or_default());
        let (time, cpu) = (seconds(report.time), seconds(report.processors));
        println!(
            "{}",
            format!("{name:<6} {result:<8} {time:>12} {cpu:>12}  {note}").trim_end()
        );
    }
    // Once more where it is found: behind all that the steps have printed.
    for (step, report) in steps.iter().zip(&reports) {
        if let Outcome::Failed(what) = &report.outcome {
            println!("\n{}: {}", step.name(), end_of(what));
        }
    }
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    i32::from(failed > 0)
}

/// The end of a text: all of it, or as much as is read at a glance.
fn end_of(text: &str) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(WHAT_FAILED)..].join("\n")
}

/// How many tests passed, in words, by the lines with which test programs end.
///
/// # Errors
///
/// If there was none: a filter or a `cfg` that matches nothing must not look like success.
fn counted(output: &str) -> Result<String> {
    let results = output.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    let passed: u32 = results
        .filter_map(|line| line.split(' ').next()?.parse::<u32>().ok())
        .sum();
    if passed == 0 {
        return Err(Error::Found("no test ran".into()));
    }
    Ok(format!("{passed} tests"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_over_all_programs() {
        let output = "running 2 tests\ntest result: ok. 2 passed; 0 failed\ntest result: ok. 40 passed; 0 failed\n";
        assert_eq!(counted(output).unwrap(), "42 tests");
    }

    #[test]
    fn of_much_the_end_is_told() {
        let text: String = (0..99).map(|n| format!("{n}\n")).collect();
        let end = end_of(&text);
        assert!(end.starts_with("39\n") && end.ends_with("\n98"), "{end}");
        assert_eq!(end_of("a\n"), "a");
    }

    #[test]
    fn a_run_without_tests_is_no_success() {
        assert!(counted("test result: ok. 0 passed; 0 failed; 12 filtered out\n").is_err());
        assert!(counted("").is_err());
    }
}
