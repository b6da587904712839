//! How a step ended, and how a step in a process of its own tells it.

use std::{
    fs,
    mem::MaybeUninit,
    path::Path,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With a word on what was done.
    Passed(String),
    /// And what is wrong.
    Failed(String),
    /// It cannot run here, and why.
    Missing(String),
}

/// How a step ended, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) outcome: Outcome,
    /// From its start to its end.
    pub(super) time: Duration,
    /// Of all processors, for itself and the programs that it ran.
    pub(super) processors: Duration,
}

impl Report {
    /// Runs a step in this process, which runs no other meanwhile, and says what is wrong.
    pub(super) fn of(step: impl FnOnce() -> Result<String>) -> Self {
        let (start, before) = (Instant::now(), spent());
        let outcome = match step() {
            Ok(note) => Outcome::Passed(note),
            Err(Error::Missing(reason)) => {
                eprintln!("missing: {reason}");
                Outcome::Missing(reason)
            }
            Err(error) => {
                eprintln!("error: {error}");
                Outcome::Failed(error.to_string())
            }
        };
        Self {
            outcome,
            time: start.elapsed(),
            processors: spent().saturating_sub(before),
        }
    }

    /// A step whose process ended without a word.
    pub(super) fn failed(time: Duration) -> Self {
        Self {
            outcome: Outcome::Failed("its process left no word of how it ended".into()),
            time,
            processors: Duration::ZERO,
        }
    }

    /// Writes it into a file.
    pub(super) fn leave(&self, file: &Path) -> Result<()> {
        fs::write(file, self.line()).map_err(Error::file("write", file))
    }

    /// Reads what [`Report::leave`] wrote, and removes it.
    pub(super) fn take(file: &Path) -> Option<Self> {
        let line = fs::read_to_string(file).ok()?;
        let _ = fs::remove_file(file);
        Self::parse(&line)
    }

    fn line(&self) -> String {
        let (word, note) = match &self.outcome {
            Outcome::Passed(note) => ("passed", note.as_str()),
            Outcome::Failed(what) => ("failed", what.as_str()),
            Outcome::Missing(reason) => ("missing", reason.as_str()),
        };
        let (time, processors) = (self.time.as_millis(), self.processors.as_millis());
        format!("{word} {time} {processors} {note}")
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        let word = words.next()?;
        let time = Duration::from_millis(words.next()?.parse().ok()?);
        let processors = Duration::from_millis(words.next()?.parse().ok()?);
        let note = words.next()?.to_owned();
        let outcome = match word {
            "passed" => Outcome::Passed(note),
            "failed" => Outcome::Failed(note),
            "missing" => Outcome::Missing(note),
            _ => return None,
        };
        Some(Self {
            outcome,
            time,
            processors,
        })
    }
}

/// The time of processors that this process has used, and those of its children that have ended.
fn spent() -> Duration {
    let of = |who| {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the pointer is to a whole `rusage`, which is valid when it is all zeros too.
        let usage = unsafe {
            libc::getrusage(who, usage.as_mut_ptr());
            usage.assume_init()
        };
        let time = |of: libc::timeval| {
            let whole = Duration::from_secs(u64::try_from(of.tv_sec).unwrap_or_default());
            whole + Duration::from_micros(u64::try_from(of.tv_usec).unwrap_or_default())
        };
        time(usage.ru_utime) + time(usage.ru_stime)
    };
    of(libc::RUSAGE_SELF) + of(libc::RUSAGE_CHILDREN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_leaves_is_read_back() {
        for outcome in [
            Outcome::Passed("42 tests".into()),
            Outcome::Passed(String::new()),
            Outcome::Failed("a test:\n  left: 1\n".into()),
            Outcome::Missing("no QEMU:\ninstall it".into()),
        ] {
            let report = Report {
                outcome,
                time: Duration::from_millis(1234),
                processors: Duration::from_millis(2345),
            };
            assert_eq!(Report::parse(&report.line()), Some(report));
        }
        assert_eq!(Report::parse("passed 1"), None);
        assert_eq!(Report::parse("perhaps 1 2 "), None);
    }

    #[test]
    fn the_work_of_children_counts() {
        let report = Report::of(|| {
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", "n=0; while [ $n -lt 200000 ]; do n=$((n + 1)); done"]);
            shell.status().expect("a shell");
            Ok(String::new())
        });
        assert!(report.processors > Duration::from_millis(10), "{report:?}");
    }
}
