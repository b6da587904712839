//! What can go wrong with the record of instances.

use std::io;
use std::path::{Path, PathBuf};

use super::Status;

/// Why something cannot be done with an instance.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// A file of the record cannot be used.
    #[error("cannot {doing} {path}: {source}")]
    File {
        /// What was to be done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the record does not hold what it should.
    #[error("{path} is damaged ({source}): remove the instance with `chiton rm --force`")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Another instance has this name.
    #[error("the name {name} is taken by {id}: remove that one (chiton rm {name}), or choose another name")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// A name that cannot be.
    #[error(
        "`{0}` cannot be a name: use up to 63 letters, digits, `.`, `_` and `-`, and begin with a letter or a digit"
    )]
    Name(String),
    /// Nobody is called this.
    #[error("there is no instance {0}: `chiton ps --all` lists them")]
    NotFound(String),
    /// More than one ID begins like this.
    #[error("`{prefix}` is the beginning of {count} IDs: write more of it")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// How many begin with it.
        count: usize,
    },
    /// It is not in the right part of its life.
    #[error("{name} is {status}: {hint}")]
    Wrong {
        /// Its name.
        name: String,
        /// Where it is in its life.
        status: Status,
        /// What would have to be done first.
        hint: &'static str,
    },
    /// A supervisor has it already.
    #[error("{0} is being run by another process")]
    Busy(String),
    /// A restart policy that is none.
    #[error("`{0}` is not a restart policy: write no, always, unless-stopped, on-failure or on-failure:5")]
    Policy(String),
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was to be done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl InstanceError {
    /// For `map_err`: this could not be done with a file.
    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    /// For `map_err`: this could not be done.
    pub(super) fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            doing,
            source: source.into(),
        }
    }
}
