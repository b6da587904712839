//! What can go wrong in a task, in words for whoever typed it.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
};

/// Why a task ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file or directory cannot be used.
    #[error("cannot {doing} {path}: {source}", path = path.display())]
    File {
        /// The verb: read, write, create.
        doing: &'static str,
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A program did not start.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// Its name.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// A program failed; its own words are above or in `output`.
    #[error("`{command}` failed ({status})\n{output}")]
    Command {
        /// The whole command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed, if that was not shown already; what of a long output says why.
        output: String,
    },
    /// Something this task needs is not on the machine; the words say how to get it.
    #[error("{0}")]
    Missing(String),
    /// What the user asked for makes no sense; the words say what would.
    #[error("{0}")]
    Usage(String),
    /// The nested machine did not do what it was started for.
    #[error("{what}\nThe last lines of its console ({log}):\n{tail}", log = log.display())]
    Machine {
        /// What happened.
        what: String,
        /// Where the whole console output is.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// A program ended with this status, and has said why: there is nothing to add.
    #[error("a program ended with the status {0}; it has said why")]
    Said(i32),
    /// A check found something; it was printed already.
    #[error("{0}")]
    Found(String),
}

/// The result of a task.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}
