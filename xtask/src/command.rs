//! Runs other programs: quietly with a spinner, or with their output in plain sight.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    error::{Error, Result},
    failures,
    ui::Task,
};

/// Runs `command` and returns what it printed on both outputs.
///
/// # Errors
///
/// If it does not start, or ends with another status than zero; the error holds its output.
pub(crate) fn quietly(task: &Task, command: &mut Command) -> Result<String> {
    let start_error = |source| Error::Start {
        program: name(command),
        source,
    };
    let (reader, writer) = io::pipe().map_err(start_error)?;
    let second = writer.try_clone().map_err(|source| Error::Start {
        program: name(command),
        source,
    })?;
    let child = command.stdin(Stdio::null()).stdout(writer).stderr(second).spawn();
    // The command still holds the pipe's write end; without this the reader waits for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.map_err(|source| Error::Start {
        program: name(command),
        source,
    })?;

    let mut output = String::new();
    for line in BufReader::new(reader).split(b'\n') {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line);
        task.detail(line.trim());
        output.push_str(&line);
        output.push('\n');
    }
    let status = child.wait().map_err(|source| Error::Start {
        program: name(command),
        source,
    })?;
    if status.success() {
        return Ok(output);
    }
    task.clear();
    Err(Error::Command {
        command: shown(command),
        status,
        output,
    })
}

/// Runs `command` with its output in plain sight, and returns what it printed on standard output.
///
/// # Errors
///
/// If it does not start, or ends with another status than zero; the error holds what tests that failed say.
pub(crate) fn openly(command: &mut Command) -> Result<String> {
    let start_error = |source| Error::Start {
        program: name(command),
        source,
    };
    let (reader, writer) = io::pipe().map_err(start_error)?;
    let child = command.stdin(Stdio::null()).stdout(writer).spawn();
    command.stdout(Stdio::null());
    let mut child = child.map_err(|source| Error::Start {
        program: name(command),
        source,
    })?;
    let mut output = String::new();
    for line in BufReader::new(reader).split(b'\n').map_while(std::result::Result::ok) {
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        output.push_str(&line);
        output.push('\n');
    }
    let status = child.wait().map_err(|source| Error::Start {
        program: name(command),
        source,
    })?;
    if status.success() {
        return Ok(output);
    }
    Err(Error::Command {
        command: shown(command),
        status,
        output: failures::of(&output),
    })
}

/// Runs `command` in this one's place, with its input and outputs, and returns its status.
///
/// # Errors
///
/// If it does not start, or ends by a signal.
pub(crate) fn status(command: &mut Command) -> Result<i32> {
    let status = command.status().map_err(|source| Error::Start {
        program: name(command),
        source,
    })?;
    status.code().ok_or_else(|| Error::Command {
        command: shown(command),
        status,
        output: String::new(),
    })
}

/// What `command` prints on standard output, if it starts and succeeds.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where the program `name` is, as the shell would find it.
#[must_use]
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian keeps tools for administrators out of other users' PATH.
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether we are root, who may install packages.
#[must_use]
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Has the kernel kill the program when this one dies.
pub(crate) fn dies_with_us(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec only two system calls are made, which allocate nothing and
    // take no lock.
    unsafe {
        command.pre_exec(move || {
            let kill = Some(rustix::process::Signal::KILL);
            rustix::process::set_parent_process_death_signal(kill)?;
            // The parent may have died before the line above.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::ErrorKind::Interrupted.into())
            }
        });
    }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The whole command line, for people.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// `word` so that a POSIX shell reads it back as one word.
#[must_use]
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_brings_its_words_along() {
        let task = Task::start("failing");
        let error = quietly(&task, Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        let Err(Error::Command { output, status, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!((output.as_str(), status.code()), ("out\nerr\n", Some(3)));
    }

    #[test]
    fn quoting_survives_a_shell() {
        let word = "it's $HOME `x` \"y\" \\ *\n";
        let output = answer(Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(word))));
        assert_eq!(output.as_deref(), Some(word));
    }

    #[test]
    fn a_program_that_is_not_there_is_not_found() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-here"), None);
    }
}
