use std::path::PathBuf;

/// What can go wrong with a measurement and its files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is larger than a measurement is.
    #[error("{path} is larger than {limit} bytes: that is no measurement of chiton-bench")]
    Large {
        /// The file.
        path: PathBuf,
        /// How many bytes are read.
        limit: u64,
    },
    /// A file is no JSON, or not what the schema says.
    #[error("{path} is no measurement of chiton-bench: {source}")]
    Form {
        /// The file.
        path: PathBuf,
        /// Where, and what was expected.
        source: serde_json::Error,
    },
    /// A file is of another version of the schema.
    #[error(
        "{path} is of schema {found:?}, and this chiton-bench reads {wanted:?}: measure again, or read it with the version that wrote it"
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says that it is.
        found: String,
        /// What is read.
        wanted: &'static str,
    },
    /// A file has the form of a measurement, and contradicts itself.
    #[error("{path} contradicts itself: {what}")]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// In what.
        what: String,
    },
    /// Something could not be tried.
    #[error(transparent)]
    Trial(#[from] crate::trial::TrialError),
    /// Samples that no file may hold.
    #[error("samples cannot be kept: {0}")]
    Samples(&'static str),
    /// Calls could not be measured.
    #[error(transparent)]
    Calls(#[from] crate::calls::Error),
    /// Exits cannot be measured.
    #[error(transparent)]
    Exits(#[from] crate::exits::ExitsError),
}

/// What a fallible operation of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;
