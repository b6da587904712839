//! What can go wrong with images.

use std::fmt;
use std::io;
use std::path::Path;

use super::Digest;

/// Why something could not be done with an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("cannot {doing}: {source}{}", advice(source))]
    Io {
        /// What was tried, as in "cannot …".
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// What takes all ids of a user could not be done.
    #[error(transparent)]
    Apart(#[from] crate::jail::Error),
    /// A name that is none.
    #[error("`{text}` is no image name: {why}")]
    Name {
        /// What was given.
        text: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A digest that is none.
    #[error("`{text}` is no digest: write sha256: and 64 hexadecimal digits")]
    Digest {
        /// What was given.
        text: String,
    },
    /// There is no such image.
    #[error("there is no image `{name}` in the store: `chiton image ls` lists what there is")]
    NoImage {
        /// Under which name or digest it was looked for.
        name: String,
    },
    /// Several images begin with this digest.
    #[error("several images begin with {prefix}: write more of the digest")]
    Ambiguous {
        /// What was given.
        prefix: String,
    },
    /// A blob that an image needs is not there.
    #[error("blob {digest} is missing from the store: import or pull the image again")]
    NoBlob {
        /// Which.
        digest: Digest,
    },
    /// Content is not what its digest says.
    #[error("{what} does not have the digest it should: {found} instead of {wanted}")]
    Mismatch {
        /// Whose digest.
        what: String,
        /// As promised.
        wanted: Digest,
        /// As computed.
        found: Digest,
    },
    /// Content has not the promised size.
    #[error("{what} has {found} bytes instead of {wanted}")]
    Size {
        /// Whose size.
        what: String,
        /// As promised.
        wanted: u64,
        /// How many there are; where there are more, one more.
        found: u64,
    },
    /// A document says what it must not, or cannot be read.
    #[error("{what}: {why}")]
    Document {
        /// Which document, file or answer.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// An entry of a layer is refused.
    #[error("layer {layer}, entry `{entry}`: {why}")]
    Entry {
        /// Which layer, by digest or path.
        layer: String,
        /// The entry's name, cut where it is long.
        entry: String,
        /// Why.
        why: String,
    },
    /// A limit is exceeded.
    #[error("layer {layer}, entry `{entry}`: more than {limit} {of}")]
    Limit {
        /// Which layer.
        layer: String,
        /// At which entry.
        entry: String,
        /// The limit.
        limit: u64,
        /// What is counted.
        of: &'static str,
    },
    /// A registry refused, or answered what it must not.
    #[error("registry {host}: {why}")]
    Registry {
        /// Which registry.
        host: String,
        /// What happened.
        why: String,
    },
    /// Another process uses what is to be removed.
    #[error("{what} is in use: {why}")]
    Busy {
        /// What.
        what: String,
        /// By whom, what to do.
        why: &'static str,
    },
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// What to do about an error of the system, where that is known.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; `chiton image prune` frees what no image uses",
        io::ErrorKind::ReadOnlyFilesystem => "; set CHITON_HOME to a folder that can be written",
        io::ErrorKind::PermissionDenied => "; run as its owner, or name another; the store is below CHITON_HOME",
        _ => "",
    }
}

impl Error {
    /// A document that cannot be accepted.
    pub(super) fn document(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Document {
            what: what.to_string(),
            why: why.to_string(),
        }
    }
}

/// Adds to an error of the system what was tried.
pub(super) trait Doing<T> {
    /// With what was tried, as in "cannot …".
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;

    /// With a verb and the path it was about.
    fn at(self, verb: &str, path: &Path) -> Result<T>
    where
        Self: Sized,
    {
        self.doing(|| format!("{verb} {}", path.display()))
    }
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| carried(error.into()).unwrap_or_else(|source| Error::Io { doing: what(), source }))
    }
}

/// An error of ours that went through a `Read`, if it is one.
fn carried(error: io::Error) -> std::result::Result<Error, io::Error> {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        let inner = error.into_inner().and_then(|inner| inner.downcast().ok());
        return inner.map(|error| *error).ok_or_else(|| io::ErrorKind::Other.into());
    }
    Err(error)
}

impl From<Error> for io::Error {
    /// For the inside of a `Read`; who reads takes it out again.
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}
