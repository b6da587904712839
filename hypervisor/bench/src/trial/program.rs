use std::{
    fs::File,
    io::{Read, Seek},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{Interrupt, Result, TrialError};
use crate::output::Live;

/// The longest that a program is quoted, in bytes.
const QUOTED: usize = 300;

/// How long a program may take that is not timed.
const LIMIT: Duration = Duration::from_secs(30);

/// A program to time.
#[derive(Debug)]
pub struct Program {
    /// Its name in the table.
    pub name: String,
    command: Command,
}

impl Program {
    /// A command that needs no input.
    #[must_use]
    pub fn new(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self {
            name: name.to_owned(),
            command,
        }
    }

    /// The command itself.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Its command line, as a person would write it.
    #[must_use]
    pub fn line(&self) -> String {
        line(&self.command)
    }

    /// Runs it, and makes sure that it says this on standard output or standard error and ends well.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn try_out(&mut self, expected: &str) -> Result<String> {
        let said = run(&mut self.command)?;
        if !said.contains(expected) {
            return Err(TrialError::Silent {
                command: self.line(),
                expected: expected.into(),
                said: end_of(&said),
            });
        }
        Ok(said)
    }

    /// From before `exec` to after its end. What it says is thrown away.
    ///
    /// # Errors
    ///
    /// If it does not start, or ends with another status than zero.
    pub fn time(&mut self) -> Result<Duration> {
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let status = self.command.status();
        let took = start.elapsed();
        let status = status.map_err(TrialError::start(&self.command))?;
        if !status.success() {
            return Err(TrialError::failed(&self.command, status, ""));
        }
        Ok(took)
    }
}

/// What a program says, both on standard output and standard error, if it ends well.
///
/// # Errors
///
/// If it does not start, or ends with another status than zero.
pub fn answer(command: &mut Command) -> Result<String> {
    run(command.stdin(Stdio::null()))
}

/// What it says, if it ends well and in time.
fn run(command: &mut Command) -> Result<String> {
    // Not a pipe, which it might fill, and which might be held by what it leaves behind.
    let failed = "make memory for what a program says";
    let memory = memfd_create("chiton-bench", MemfdFlags::CLOEXEC).map_err(TrialError::system(failed))?;
    let mut memory = File::from(memory);
    let streams = memory.try_clone().and_then(|out| Ok((out, memory.try_clone()?)));
    let (out, errors) = streams.map_err(TrialError::system(failed))?;
    let child = command.stdout(out).stderr(errors).spawn();
    let mut child = child.map_err(TrialError::start(command))?;
    let status = ended(&mut child);
    if !matches!(status, Ok(Some(_))) {
        // Whoever has just ended needs none.
        let _ = child.kill();
        let _ = child.wait();
    }
    let status = status.map_err(TrialError::system("wait for a program"))?;
    let mut said = Vec::new();
    memory
        .rewind()
        .and_then(|()| memory.read_to_end(&mut said))
        .map_err(TrialError::system(failed))?;
    let said = String::from_utf8_lossy(&said).into_owned();
    match status {
        Some(status) if status.success() => Ok(said),
        Some(status) => Err(TrialError::failed(command, status, &said)),
        None => Err(TrialError::Late {
            command: line(command),
            limit: LIMIT,
            said: end_of(&said),
        }),
    }
}

/// Waits for the end of a program, and for as long as one is waited for: how long it took is told from this.
fn ended(child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let left = Timespec::try_from(left).map_err(std::io::Error::other)?;
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            // A signal that asks for the end: the program has it too, or it is told when that is over.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The last words of what a program said.
pub(super) fn end_of(said: &str) -> String {
    let said = said.trim();
    said[said.ceil_char_boundary(said.len().saturating_sub(QUOTED))..].to_owned()
}

/// A command line, as a person would write it.
pub(super) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// A program in PATH, or where root has its own.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Runs all programs one after the other, `runs` times, after a few rounds to get warm. What comes back is the
/// nanoseconds of each, round by round.
///
/// # Errors
///
/// If a program fails, or a signal asks for the end.
pub fn interleaved(programs: &mut [Program], runs: usize, interrupt: &Interrupt, live: &Live) -> Result<Vec<Vec<u64>>> {
    const WARM: usize = 3;
    let mut all = vec![Vec::with_capacity(runs); programs.len()];
    for round in 0..runs + WARM {
        live.part(round, runs + WARM, "rounds");
        for (program, samples) in programs.iter_mut().zip(&mut all) {
            let took = program.time();
            interrupt.check()?;
            if round >= WARM {
                samples.push(u64::try_from(took?.as_nanos()).unwrap_or(u64::MAX));
            } else {
                took?;
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::new("sh", command)
    }

    #[test]
    fn a_program_works_if_it_ends_well_and_says_what_it_should() {
        assert!(shell("echo hello >&2").try_out("hello").is_ok());
        let silent = shell("echo hullo").try_out("hello").unwrap_err().to_string();
        assert_eq!(silent, "`sh -c echo hullo` did not say \"hello\", and said: hullo");
        let failed = shell("echo why; exit 3").try_out("why").unwrap_err().to_string();
        assert!(failed.contains("exit status: 3, and said: why"), "{failed}");
        assert!(shell("exit 3").time().is_err());
        assert!(shell("sleep 0.01").time().unwrap() >= Duration::from_millis(10));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Program::new("x", Command::new("/no/such/program")).time().unwrap_err();
        assert!(
            error.to_string().starts_with("cannot start /no/such/program: "),
            "{error}"
        );
        assert_eq!(find("no-such-program"), None);
        assert!(find("sh").is_some());
    }

    #[test]
    fn long_words_are_cut_in_front() {
        let long = format!("{}ä the end", "é".repeat(QUOTED));
        assert!(end_of(&long).ends_with("ä the end") && end_of(&long).len() <= QUOTED);
    }
}
