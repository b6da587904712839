//! Files of the host: the folders given by `--folder`.
//!
//! A path begins with the folder's name: with `--folder /home/me/src` there is `src/main.rs`.
//! A `/` in front changes nothing, and the empty path or `/` lists the folders. A path with `..` is
//! refused, and symbolic links are seen but not followed.
//!
//! Each call is a message to the host and one exit, or a few. A processor that waits for the answer
//! keeps others from the same folder meanwhile.
//!
//! ```no_run
//! use chiton_guest::fs::{self, File};
//!
//! # fn main() -> Result<(), fs::FsError> {
//! let text = fs::read("src/main.rs")?;
//! let mut file = File::create("src/copy.rs")?;
//! file.write_all(&text)?;
//! file.flush()?;
//! for entry in fs::read_dir("src")? {
//!     chiton_guest::println!("{}", entry.name);
//! }
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod file;
mod folders;
mod path;

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;

use chiton_shared::virtio::p9::{Attributes, Entry, Qid};

pub use client::Client;
pub use error::{FsError, Reason};
pub use file::File;
use folders::{names, with};
pub use path::Path;

/// What something in a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// Something that can be neither read nor written here.
    Other,
}

/// One thing in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name; what is not UTF-8 is replaced, and such a file cannot be opened.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What a file or directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its kind.
    pub kind: Kind,
    /// Its size in bytes.
    pub len: u64,
    /// Its permissions, as Linux has them.
    pub permissions: u32,
    /// When it was last written: nanoseconds since 1970.
    pub modified_ns: u64,
}

impl From<Attributes> for Metadata {
    fn from(attributes: Attributes) -> Self {
        let [seconds, ns] = attributes.modified;
        Self {
            kind: match attributes.mode >> 12 {
                4 => Kind::Directory,
                8 => Kind::File,
                10 => Kind::Link,
                _ => Kind::Other,
            },
            len: attributes.size,
            permissions: attributes.mode & 0o7777,
            modified_ns: seconds.saturating_mul(1_000_000_000).saturating_add(ns),
        }
    }
}

impl From<&Entry<'_>> for DirEntry {
    fn from(entry: &Entry<'_>) -> Self {
        Self {
            name: String::from_utf8_lossy(entry.name).into_owned(),
            kind: match (entry.kind, entry.qid.kind) {
                (Entry::DIRECTORY, _) | (0, Qid::DIRECTORY) => Kind::Directory,
                (Entry::FILE, _) => Kind::File,
                (Entry::LINK, _) => Kind::Link,
                _ => Kind::Other,
            },
        }
    }
}

/// What is in a directory, in the host's order, without `.` and `..`.
///
/// # Errors
///
/// [`FsError`].
pub fn read_dir(path: &str) -> Result<Vec<DirEntry>, FsError> {
    if Path::new(path)?.is_top() {
        return Ok(names()
            .map(|name| DirEntry {
                name: name.into(),
                kind: Kind::Directory,
            })
            .collect());
    }
    with(path, |client, path| client.read_dir(path))
}

/// What a file or directory is.
///
/// # Errors
///
/// [`FsError`].
pub fn metadata(path: &str) -> Result<Metadata, FsError> {
    with(path, |client, path| client.metadata(path))
}

/// All bytes of a file.
///
/// # Errors
///
/// [`FsError`].
pub fn read(path: &str) -> Result<Vec<u8>, FsError> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Removes a file, or a directory that is empty.
///
/// # Errors
///
/// [`FsError`].
pub fn remove(path: &str) -> Result<(), FsError> {
    with(path, |client, path| client.remove(path))
}

/// Makes a directory in one that is there.
///
/// # Errors
///
/// [`FsError`].
pub fn create_dir(path: &str) -> Result<(), FsError> {
    with(path, |client, path| client.create_dir(path))
}

/// Moves a file or directory within a folder, over a file that is there.
///
/// # Errors
///
/// [`FsError`]; [`Reason::OtherFolder`] if the paths are in different folders.
pub fn rename(from: &str, to: &str) -> Result<(), FsError> {
    let target = Path::new(to)?;
    if Path::new(from)?.folder() != target.folder() {
        return Err(FsError::new(to, Reason::OtherFolder));
    }
    with(from, |client, path| client.rename(path, &target))
}
