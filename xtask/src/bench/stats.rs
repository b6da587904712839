//! Samples, and what they say.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    ui::Task,
};

/// Durations of one program, in seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub(super) fn push(&mut self, seconds: f64) {
        let at = self.0.partition_point(|other| *other < seconds);
        self.0.insert(at, seconds);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that this part of the samples does not exceed, in seconds.
    pub(super) fn quantile(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0
            .get((part * last as f64).round() as usize)
            .copied()
            .unwrap_or(f64::NAN)
    }

    /// The middle, in seconds.
    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// One divided by each.
    pub(super) fn inverse(&self) -> Self {
        Self(self.0.iter().rev().map(|value| 1.0 / value).collect())
    }

    /// Median, tenth and ninetieth percentile, in units of which a second has `per_second`.
    pub(super) fn columns(&self, per_second: f64) -> String {
        let [middle, low, high] = [0.5, 0.1, 0.9].map(|part| self.quantile(part) * per_second);
        format!("{middle:>9.2} {low:>9.2} {high:>9.2}")
    }
}

/// Median, tenth and ninetieth percentile in one cell of 24 characters; a dash if there is none.
pub(super) fn cell(samples: &Samples, factor: f64) -> String {
    if samples.count() == 0 {
        return format!("{:>24}", "–");
    }
    let decimals = match samples.median() * factor {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let figure = |part: f64| format!("{:.decimals$}", samples.quantile(part) * factor);
    format!("{:>24}", format!("{} ({}-{})", figure(0.5), figure(0.1), figure(0.9)))
}

/// A program to time.
#[derive(Debug)]
pub(super) struct Program {
    /// Its name in the table.
    pub(super) name: String,
    command: Command,
}

impl Program {
    /// A command that needs no input; what it prints is thrown away.
    pub(super) fn new(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self {
            name: name.to_owned(),
            command,
        }
    }

    /// From before exec to after exit.
    ///
    /// # Errors
    ///
    /// If it does not start or ends with another status than zero.
    pub(super) fn time(&mut self) -> Result<Duration> {
        let start = Instant::now();
        let status = self.command.status();
        let took = start.elapsed();
        let program = || self.command.get_program().to_string_lossy().into_owned();
        let status = status.map_err(|source| Error::Start {
            program: program(),
            source,
        })?;
        if status.success() {
            return Ok(took);
        }
        let command = format!("{:?}", self.command);
        Err(Error::Command {
            command,
            status,
            output: String::new(),
        })
    }
}

/// Runs all programs one after the other, `runs` times, after a few rounds to get warm.
///
/// # Errors
///
/// If a program fails.
pub(super) fn interleaved(what: &str, programs: &mut [Program], runs: usize) -> Result<Vec<Samples>> {
    const WARM: usize = 3;
    let task = Task::start(what);
    let mut samples = vec![Samples::default(); programs.len()];
    for round in 0..runs + WARM {
        task.detail(&format!("round {round} of {}", runs + WARM));
        for (program, samples) in programs.iter_mut().zip(&mut samples) {
            let took = program.time()?;
            if round >= WARM {
                samples.push(took.as_secs_f64());
            }
        }
    }
    task.done();
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_taken_from_sorted_samples() {
        let mut samples = Samples::default();
        for value in [5.0, 1.0, 4.0, 2.0, 3.0, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0] {
            samples.push(value);
        }
        assert_eq!(
            [0.0, 0.1, 0.5, 0.9, 1.0].map(|part| samples.quantile(part)),
            [1.0, 2.0, 6.0, 10.0, 11.0]
        );
        assert!(Samples::default().median().is_nan());
        assert_eq!(samples.inverse().median(), 1.0 / 6.0);
        assert_eq!(cell(&samples, 1.0).trim(), "6.00 (2.00-10.00)");
        assert_eq!(cell(&samples, 1e-2).trim(), "0.060 (0.020-0.100)");
        assert_eq!(cell(&Samples::default(), 1.0).trim(), "–");
    }
}
