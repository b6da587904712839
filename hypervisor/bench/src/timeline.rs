//! The phases of a start, as `chiton` tells them: lines of JSON on a descriptor that it inherits, one of each process.
//!
//! ```text
//!  this program   spawn ─┐                                                          ┌─ wait
//!  supervisor            └ exec │ options … open devices │ jail stands │ … guest ─┐ │
//!  the guest's process                            clone … filter … guest … end ─┐ └ remove cgroups …
//! ```
//!
//! The guest's process is a copy of the supervisor's, and so are its phases up to then. One sequence comes of both:
//! those of the guest's process, and then what the supervisor does when that has ended.

use std::{
    fs::File,
    io::{Read, Seek},
    os::fd::{AsRawFd, RawFd},
    process::{Command, Stdio},
};

use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    time::{ClockId, clock_gettime},
};
use serde::Deserialize;

use crate::trial::{Result, TrialError};

/// The version that is read.
const FORMAT: &str = "chiton-timeline/1";

/// The variable that has the number of the descriptor.
const VARIABLE: &str = "CHITON_TIMELINE";

/// The end of this phase is when a guest executes its first instruction.
const LAST_BEFORE_GUEST: &str = "device loop";

/// Phases, one after the other, from before `exec` to after the end, without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waterfall {
    /// Name and nanoseconds of each, in order; no name is there twice.
    pub phases: Vec<(String, u64)>,
}

impl Waterfall {
    /// How long it took in all, in nanoseconds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.phases.iter().map(|(_, took)| took).sum()
    }

    /// From before `exec` to the guest's first instruction, in nanoseconds; if there was one.
    #[must_use]
    pub fn to_first_instruction(&self) -> Option<u64> {
        let last = self.phases.iter().position(|(name, _)| name == LAST_BEFORE_GUEST)?;
        Some(self.phases[..=last].iter().map(|(_, took)| took).sum())
    }

    /// What the lines of a start say, which was begun and seen to have ended at these times of `CLOCK_MONOTONIC`, in
    /// nanoseconds.
    ///
    /// # Errors
    ///
    /// If the lines are not what a start of this version writes, or contradict each other.
    pub fn of(text: &str, spawned: u64, ended: u64) -> Result<Self> {
        let wrong = |what: String| TrialError::Found(format!("the phases that chiton wrote are of no use: {what}"));
        let lines: Vec<Line> = text
            .lines()
            .map(|line| serde_json::from_str(line).map_err(|error| wrong(error.to_string())))
            .collect::<Result<_>>()?;
        if let Some(line) = lines.iter().find(|line| line.timeline != FORMAT) {
            let found = &line.timeline;
            return Err(wrong(format!("they are {found:?}, and this program reads {FORMAT:?}")));
        }
        let of = |process: &str| lines.iter().find(|line| line.process == process);
        let guest = of("guest").ok_or_else(|| wrong("no guest's process told of any".into()))?;
        let late = |name: &str| wrong(format!("{name} ends before it begins"));
        let mut phases = vec![("exec", guest.begin_ns.checked_sub(spawned).ok_or_else(|| late("exec"))?)];
        let mut at = guest.begin_ns;
        for (name, took) in &guest.phases {
            at = at.checked_add(*took).ok_or_else(|| late(name))?;
            phases.push((name, *took));
        }
        if let Some(supervisor) = of("supervisor") {
            let mut over = supervisor.begin_ns;
            let mut after = false;
            for (name, took) in &supervisor.phases {
                over = over.checked_add(*took).ok_or_else(|| late(name))?;
                // It waits in the phase that it calls so.
                after |= name == "guest";
                if after {
                    let name = if name == "guest" { "process ends" } else { name };
                    phases.push((name, over.checked_sub(at).ok_or_else(|| late(name))?));
                    at = over;
                }
            }
        }
        phases.push(("exit", ended.checked_sub(at).ok_or_else(|| late("exit"))?));
        Ok(Self {
            phases: with_names_of_their_own(phases),
        })
    }
}

/// A second phase of the same name is called `NAME (2)`.
fn with_names_of_their_own(phases: Vec<(&str, u64)>) -> Vec<(String, u64)> {
    let name = |at: usize| {
        let name = phases[at].0;
        match phases[..at].iter().filter(|(other, _)| *other == name).count() {
            0 => name.to_owned(),
            before => format!("{name} ({})", before + 1),
        }
    };
    (0..phases.len()).map(|at| (name(at), phases[at].1)).collect()
}

/// A line, as `chiton` writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    timeline: String,
    process: String,
    begin_ns: u64,
    phases: Vec<(String, u64)>,
}

/// Where `chiton` writes its phases: memory, so that nobody has to read while it runs.
#[derive(Debug)]
pub struct Recorder(File);

impl Recorder {
    /// Makes it. Every process that is started from now on inherits the descriptor.
    ///
    /// # Errors
    ///
    /// If the system has no such memory.
    pub fn new() -> Result<Self> {
        let memory = memfd_create("chiton-timeline", MemfdFlags::empty());
        memory
            .map(|fd| Self(fd.into()))
            .map_err(TrialError::system("make memory for phases"))
    }

    fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Has a command write its phases here.
    pub fn listen_to(&self, command: &mut Command) {
        command.env(VARIABLE, self.number().to_string());
    }

    /// Runs a command that [writes here](Self::listen_to), and tells its phases. What it says is thrown away.
    ///
    /// # Errors
    ///
    /// If it does not start, ends with another status than zero, or its phases are of no use.
    pub fn record(&mut self, command: &mut Command) -> Result<Waterfall> {
        let failed = "use memory for phases";
        ftruncate(&self.0, 0).map_err(TrialError::system(failed))?;
        self.0.rewind().map_err(TrialError::system(failed))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let spawned = monotonic();
        let status = command.status();
        let ended = monotonic();
        let status = status.map_err(TrialError::start(command))?;
        if !status.success() {
            return Err(TrialError::failed(command, status, ""));
        }
        let mut text = String::new();
        self.0.rewind().map_err(TrialError::system(failed))?;
        self.0.read_to_string(&mut text).map_err(TrialError::system(failed))?;
        Waterfall::of(&text, spawned, ended)
    }
}

/// `CLOCK_MONOTONIC`, in nanoseconds.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(process: &str, begin: u64, phases: &str) -> String {
        format!(
            r#"{{"timeline":"chiton-timeline/1","process":"{process}","begin_ns":{begin},"phases":{phases}}}{}"#,
            "\n"
        )
    }

    fn named(phases: &[(&str, u64)]) -> Vec<(String, u64)> {
        phases.iter().map(|(name, took)| ((*name).to_owned(), *took)).collect()
    }

    #[test]
    fn a_start_without_a_jail_is_one_process() {
        let text = line(
            "guest",
            1100,
            r#"[["options",10],["device loop",5],["guest",50],["end",5]]"#,
        );
        let waterfall = Waterfall::of(&text, 1000, 1200).unwrap();
        let expected = [
            ("exec", 100),
            ("options", 10),
            ("device loop", 5),
            ("guest", 50),
            ("end", 5),
            ("exit", 30),
        ];
        assert_eq!(waterfall.phases, named(&expected));
        assert_eq!((waterfall.total(), waterfall.to_first_instruction()), (200, Some(115)));
    }

    #[test]
    fn a_supervisor_tells_what_comes_after_the_guests_process() {
        let text = line("guest", 1100, r#"[["options",10],["clone",5],["options",1],["end",4]]"#)
            + &line(
                "supervisor",
                1100,
                r#"[["options",10],["jail stands",8],["guest",20],["remove cgroups",7]]"#,
            );
        let waterfall = Waterfall::of(&text, 1000, 1150).unwrap();
        let expected = [
            ("exec", 100),
            ("options", 10),
            ("clone", 5),
            ("options (2)", 1),
            ("end", 4),
            ("process ends", 18),
            ("remove cgroups", 7),
            ("exit", 5),
        ];
        assert_eq!(waterfall.phases, named(&expected));
        assert_eq!((waterfall.total(), waterfall.to_first_instruction()), (150, None));
    }

    #[test]
    fn lines_that_are_of_no_use_are_refused() {
        let good = line("guest", 1100, r#"[["options",10]]"#);
        for (text, spawned, ended, word) in [
            (String::new(), 0, 2000, "no guest's process"),
            ("{".into(), 0, 2000, "EOF"),
            (good.replace("line/1", "line/2"), 0, 2000, "chiton-timeline/2"),
            (good.clone(), 1101, 2000, "exec ends before"),
            (good.clone(), 0, 1109, "exit ends before"),
            (
                line("guest", 9, r#"[["options",18446744073709551615]]"#),
                0,
                9,
                "options ends",
            ),
            (
                good + &line("supervisor", 1100, r#"[["guest",5]]"#),
                0,
                2000,
                "process ends ends",
            ),
        ] {
            let said = Waterfall::of(&text, spawned, ended).unwrap_err().to_string();
            assert!(said.contains(word), "{word}: {said}");
        }
    }

    #[test]
    fn a_program_that_writes_phases_is_recorded_again_and_again() {
        let mut recorder = Recorder::new().unwrap();
        for _ in 0..2 {
            let text = line("guest", monotonic(), "[]");
            let mut command = Command::new("sh");
            command.args(["-c", &format!("echo '{}' >/proc/self/fd/$CHITON_TIMELINE", text.trim())]);
            recorder.listen_to(&mut command);
            // What is written is of before the program began.
            let said = recorder.record(&mut command).unwrap_err().to_string();
            assert!(said.contains("exec ends before it begins"), "{said}");
        }
    }
}
