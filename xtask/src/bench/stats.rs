//! Samples, and what they say.

use std::{
    fs::File,
    io::Seek,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::fs::{MemfdFlags, memfd_create};

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

    /// Median, tenth and ninetieth percentile, in units of which a second has `per_second`.
    pub(super) fn columns(&self, per_second: f64) -> String {
        let [middle, low, high] = [0.5, 0.1, 0.9].map(|part| self.quantile(part) * per_second);
        format!("{middle:>9.2} {low:>9.2} {high:>9.2}")
    }
}

/// A program to time.
#[derive(Debug)]
pub(super) struct Program {
    /// Its name in the table.
    pub(super) name: String,
    command: Command,
    /// Where it writes when it began and how long its phases took.
    phases: Option<File>,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// From before exec to just before the guest's first instruction; of programs that tell.
    pub(super) first: Option<Duration>,
    /// From before exec to after exit.
    pub(super) whole: Duration,
}

impl Program {
    /// A command that needs no input; what it prints is thrown away.
    pub(super) fn new(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self {
            name: name.to_owned(),
            command,
            phases: None,
        }
    }

    /// Has it run before everything else that this machine does, if this process may ask for that: then it takes as
    /// long as on a machine that has nothing else to do. It must not enter a control group of its own, most of which
    /// allow nobody that.
    pub(super) fn urgent(mut self) -> Self {
        let first = || {
            let parameters = libc::sched_param { sched_priority: 1 };
            // SAFETY: the structure is there for the call, which is this thread's.
            let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
            Ok(())
        };
        // SAFETY: `first` makes one system call and touches no memory but its own.
        unsafe { self.command.pre_exec(first) };
        self
    }

    /// Has it tell when the guest's first instruction comes, as `chiton` and the floor do.
    ///
    /// # Errors
    ///
    /// If there is no memory in which it could.
    pub(super) fn telling(mut self) -> Result<Self> {
        let system = |source: rustix::io::Errno| Error::Found(format!("cannot make memory for phases: {source}"));
        let phases = File::from(memfd_create("phases", MemfdFlags::empty()).map_err(system)?);
        self.command.env("CHITON_TIMELINE", phases.as_raw_fd().to_string());
        self.phases = Some(phases);
        Ok(self)
    }

    /// Runs it once.
    ///
    /// # Errors
    ///
    /// If it does not start or ends with another status than zero.
    pub(super) fn time(&mut self) -> Result<Took> {
        let unread = |source: std::io::Error| Error::Found(format!("cannot use memory for phases: {source}"));
        if let Some(phases) = &mut self.phases {
            phases.set_len(0).and_then(|()| phases.rewind()).map_err(unread)?;
        }
        let (start, began) = (Instant::now(), now());
        let status = self.command.status();
        let whole = start.elapsed();
        let program = || self.command.get_program().to_string_lossy().into_owned();
        let status = status.map_err(|source| Error::Start {
            program: program(),
            source,
        })?;
        if status.success() {
            let Some(phases) = &mut self.phases else {
                return Ok(Took { first: None, whole });
            };
            let text = phases
                .rewind()
                .and_then(|()| std::io::read_to_string(phases))
                .map_err(unread)?;
            let first = first_instruction(&text).and_then(|at| at.checked_sub(began));
            return match first {
                Some(_) => Ok(Took { first, whole }),
                None => Err(Error::Found(format!("{} told of no guest: {text:?}", self.name))),
            };
        }
        let command = format!("{:?}", self.command);
        Err(Error::Command {
            command,
            status,
            output: String::new(),
        })
    }
}

/// What `CLOCK_MONOTONIC` says.
fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// When a guest's first instruction came, by `CLOCK_MONOTONIC`, of a line such as
/// `{"timeline":"chiton-timeline/1","process":"guest","begin_ns":7123,"phases":[["options",51200],["device loop",8100],…`:
/// the phase "device loop" ends with it.
fn first_instruction(line: &str) -> Option<Duration> {
    let (_, rest) = line.split_once("\"begin_ns\":")?;
    let (before, rest) = rest.split_once("\"device loop\",")?;
    let last = rest.split(']').next()?;
    let numbers = before.split([',', ']']).chain([last]);
    let ns: u64 = numbers.filter_map(|word| word.parse::<u64>().ok()).sum();
    Some(Duration::from_nanos(ns))
}

/// Runs all programs one after the other, `runs` times, after a few rounds to get warm. Returns how long they took in
/// all.
///
/// # Errors
///
/// If a program fails.
pub(super) fn interleaved(what: &str, programs: &mut [Program], runs: usize) -> Result<Vec<Samples>> {
    Ok(interleaved_with_first(what, programs, runs)?.1)
}

/// The same. Returns how long it took to the guest's first instruction, of those that tell, and in all.
///
/// # Errors
///
/// If a program fails.
pub(super) fn interleaved_with_first(
    what: &str,
    programs: &mut [Program],
    runs: usize,
) -> Result<(Vec<Samples>, Vec<Samples>)> {
    const WARM: usize = 3;
    let task = Task::start(what);
    let mut firsts = vec![Samples::default(); programs.len()];
    let mut samples = firsts.clone();
    for round in 0..runs + WARM {
        task.detail(&format!("round {round} of {}", runs + WARM));
        for ((program, firsts), samples) in programs.iter_mut().zip(&mut firsts).zip(&mut samples) {
            let took = program.time()?;
            if round < WARM {
                continue;
            }
            samples.push(took.whole.as_secs_f64());
            if let Some(first) = took.first {
                firsts.push(first.as_secs_f64());
            }
        }
    }
    task.done();
    Ok((firsts, samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_instruction_comes_at_the_end_of_the_phase_before_the_guest() {
        let line = r#"{"timeline":"chiton-timeline/1","process":"guest","begin_ns":1000,"phases":[["options",20],["device loop",3],["guest",500]]}"#;
        assert_eq!(first_instruction(line), Some(Duration::from_nanos(1023)));
        let floor = r#"{"timeline":"chiton-timeline/1","process":"guest","begin_ns":7,"phases":[["device loop",0]]}"#;
        assert_eq!(first_instruction(floor), Some(Duration::from_nanos(7)));
        assert_eq!(
            first_instruction(r#"{"begin_ns":1000,"phases":[["options",20]]}"#),
            None
        );
    }

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
    }
}
