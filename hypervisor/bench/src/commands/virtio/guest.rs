//! A guest whose exits are counted.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use chiton_bench::trial::{Result, TrialError};

/// A guest program, and the `chiton` to run it.
#[derive(Clone, Debug)]
pub(super) struct Program {
    chiton: PathBuf,
    guest: PathBuf,
}

/// A guest that runs.
pub(super) struct Running(Child);

/// What a guest left when it ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// What it printed and nobody has read.
    pub(super) output: String,
    /// How many exits it made: those to the process, and those to the kernel alone.
    pub(super) exits: f64,
}

impl Program {
    pub(super) fn new(chiton: &Path, guest: &Path) -> Self {
        Self {
            chiton: chiton.to_owned(),
            guest: guest.to_owned(),
        }
    }

    /// A run of it with these options of `chiton run` and these arguments. There is no jail round it, whoever calls: it is
    /// the machine that is measured.
    pub(super) fn command(&self, options: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.chiton);
        command.args(["run", "--no-jail"]).args(options).arg(&self.guest);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts it, and has its exits counted.
    pub(super) fn start(&self, options: &[&str], arguments: &[&str]) -> Result<Running> {
        let mut command = self.command(&[&["--exits"], options].concat(), arguments);
        Ok(Running(command.spawn().map_err(TrialError::start(&command))?))
    }

    /// Runs it to its end, and has its exits counted.
    pub(super) fn run(&self, options: &[&str], arguments: &[&str]) -> Result<Ended> {
        self.start(options, arguments)?.end()
    }
}

impl Running {
    /// Waits for its first line, by which it says that it is ready.
    pub(super) fn ready(mut self) -> Result<Self> {
        let mut byte = [0];
        while byte[0] != b'\n' {
            let read = self.0.stdout.as_mut().map_or(Ok(0), |out| out.read(&mut byte));
            if !matches!(read, Ok(1)) {
                let ended = self.end()?;
                return Err(TrialError::Found(format!("the guest ended early: {}", ended.output)));
            }
        }
        Ok(self)
    }

    /// Waits for its end, which must be a good one.
    pub(super) fn end(mut self) -> Result<Ended> {
        let mut texts = [String::new(), String::new()];
        let read = |from: Option<&mut dyn Read>, to: &mut String| from.map_or(Ok(0), |from| from.read_to_string(to));
        let stdout = self.0.stdout.as_mut().map(|out| out as &mut dyn Read);
        // Neither is more than a pipe holds.
        read(stdout, &mut texts[0]).map_err(TrialError::system("read the guest's output"))?;
        let stderr = self.0.stderr.as_mut().map(|err| err as &mut dyn Read);
        read(stderr, &mut texts[1]).map_err(TrialError::system("read the table of exits"))?;
        let status = self.0.wait().map_err(TrialError::system("wait for the guest"))?;
        let [output, said] = texts;
        match exits(&said).filter(|_| status.success()) {
            Some(exits) => Ok(Ended {
                output,
                exits: exits as f64,
            }),
            None => Err(TrialError::Found(format!(
                "the guest ended with {status}: {output}{said}"
            ))),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All exits, from the table of `--exits`.
pub(super) fn exits(words: &str) -> Option<u64> {
    let count = |name: &str| -> Option<u64> {
        let line = words.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(count("all ")? + count("ioeventfd ")?)
}

/// The time in a line such as `20 operations of 4096 bytes in 870032620 ns`, in seconds.
pub(super) fn seconds(output: &str) -> Result<f64> {
    let words = output.split_once(" in ").map(|(_, rest)| rest);
    let ns = words.and_then(|words| words.split(' ').next()?.parse::<f64>().ok());
    ns.map(|ns| ns / 1e9)
        .ok_or_else(|| TrialError::Found(format!("no time in: {output}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(
            seconds("20 operations of 4096 bytes in 870000000 ns\n").ok(),
            Some(0.87)
        );
        assert!(seconds("nothing").is_err());
    }
}
