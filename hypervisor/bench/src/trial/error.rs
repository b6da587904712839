use std::{
    path::PathBuf,
    process::{Command, ExitStatus},
};

use super::program::{end_of, line};

/// Why something could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// A program or a file is not there; the sentence says which, and what brings it.
    #[error("{0}")]
    Missing(String),
    /// What was asked for cannot be, on this machine; the sentence says why, and what can.
    #[error("{0}")]
    Refused(String),
    /// A program does not start.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Its path.
        program: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A program ended otherwise than with status 0.
    #[error("`{command}` ended with {status}{}", behind(.said))]
    Failed {
        /// Its command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        said: String,
    },
    /// A program does not end.
    #[error("`{command}` did not end within {limit:?}{}", behind(.said))]
    Late {
        /// Its command line.
        command: String,
        /// How long it had.
        limit: std::time::Duration,
        /// The end of what it said.
        said: String,
    },
    /// A program ended well and did not say what it says if it works.
    #[error("`{command}` did not say {expected:?}{}", behind(.said))]
    Silent {
        /// Its command line.
        command: String,
        /// What it should have said.
        expected: String,
        /// The end of what it did say.
        said: String,
    },
    /// A system call or a file failed.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was to be done.
        doing: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// What was found is not what it has to be.
    #[error("{0}")]
    Found(String),
    /// A signal asked for the end.
    #[error("interrupted")]
    Interrupted,
}

impl TrialError {
    /// An error of the system while doing this.
    pub fn system<E: Into<std::io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        |source| Self::System {
            doing,
            source: source.into(),
        }
    }

    /// This command does not start.
    pub fn start(command: &Command) -> impl FnOnce(std::io::Error) -> Self {
        let program = command.get_program().to_string_lossy().into_owned();
        |source| Self::Start { program, source }
    }

    /// This command ended with such a status, and said this.
    #[must_use]
    pub fn failed(command: &Command, status: ExitStatus, said: &str) -> Self {
        Self::Failed {
            command: line(command),
            status,
            said: end_of(said),
        }
    }

    /// An error with this file: `action` is `read`, `write`, ….
    pub fn file<E: Into<std::io::Error>>(action: &str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        Self::system(format!("{action} {}", path.into().display()))
    }
}

/// What a program said, if anything.
fn behind(said: &str) -> String {
    match said.trim() {
        "" => String::new(),
        said => format!(", and said: {said}"),
    }
}
