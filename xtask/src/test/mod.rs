//! `cargo xtask test`: everything that must hold, step by step.

mod bare;
pub(crate) mod calls;
mod e2e;
mod fuzz;
mod loom;
mod miri;
mod unit;

use std::{
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;

use crate::{
    check,
    error::{Error, Result},
    ui::seconds,
};

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
}

impl Args {
    /// All steps, and nothing may be missing.
    pub(crate) fn ci() -> Self {
        Self {
            only: Vec::new(),
            strict: true,
            fuzz_seconds: 10,
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

/// How a step ended.
#[derive(Debug)]
enum Outcome {
    /// With a word on what was done.
    Passed(String),
    Failed,
    Skipped(String),
}

/// Runs the steps, prints a table of them, and returns 0 if none failed.
pub(crate) fn run(args: &Args) -> i32 {
    let strict = args.strict || std::env::var_os("CI").is_some_and(|ci| ci == "true" || ci == "1");
    let steps = if args.only.is_empty() {
        Step::value_variants()
    } else {
        &args.only
    };
    let mut table = Vec::new();
    // The nested machine leaves a processor to Miri, which has little to say until it ends, and so is last.
    let mut early = None;
    for &step in steps {
        if step == Step::Qemu && steps.contains(&Step::Miri) {
            early = Some((thread::spawn(miri::run), Instant::now()));
        }
        let name = step.name();
        eprintln!("\n── {name} {}", "─".repeat(70 - name.len()));
        let begun = early.take_if(|_| step == Step::Miri);
        let (result, start) = match begun {
            Some((miri, start)) => (miri.join().expect("it does not panic"), start),
            None => {
                let start = Instant::now();
                (step.run(args), start)
            }
        };
        let outcome = match result {
            Ok(note) => Outcome::Passed(note),
            Err(Error::Missing(reason)) if !strict => Outcome::Skipped(reason),
            Err(error) => {
                eprintln!("error: {error}");
                Outcome::Failed
            }
        };
        table.push((name, outcome, start.elapsed()));
    }
    report(&table)
}

fn report(table: &[(String, Outcome, Duration)]) -> i32 {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    println!("\nstep   result    time");
    for (name, outcome, took) in table {
        let (result, note) = match outcome {
            Outcome::Passed(note) => ("passed", note.as_str()),
            Outcome::Failed => ("FAILED", ""),
            Outcome::Skipped(reason) => ("skipped", reason.lines().next().unwrap_or_default()),
        };
        match outcome {
            Outcome::Passed(_) => passed += 1,
            Outcome::Failed => failed += 1,
            Outcome::Skipped(_) => skipped += 1,
        }
        println!(
            "{}",
            format!("{name:<6} {result:<8} {:>12}  {note}", seconds(*took)).trim_end()
        );
    }
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    i32::from(failed > 0)
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
    fn a_run_without_tests_is_no_success() {
        assert!(counted("test result: ok. 0 passed; 0 failed; 12 filtered out\n").is_err());
        assert!(counted("").is_err());
    }
}
