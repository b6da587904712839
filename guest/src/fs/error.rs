//! What can go wrong with files.

use alloc::borrow::ToOwned;
use alloc::string::String;

use chiton_shared::virtio::p9::Errno;

use crate::queue::QueueError;

/// What went wrong, and with which path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct FsError {
    /// The path, as it was given.
    pub path: String,
    /// Why.
    pub reason: Reason,
}

impl FsError {
    pub(super) fn new(path: &str, reason: Reason) -> Self {
        Self {
            path: path.to_owned(),
            reason,
        }
    }
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// There is no such folder.
    #[error("there is no such folder; start the guest with --folder PATH")]
    NoFolder,
    /// There is nothing of that name.
    #[error("there is no such file")]
    NotFound,
    /// It is there already.
    #[error("it is there already")]
    Exists,
    /// Something on the way is no directory, or it is itself none.
    #[error("it is not a directory, or something on the way to it is none")]
    NotDirectory,
    /// A directory cannot be used as a file.
    #[error("it is a directory")]
    IsDirectory,
    /// A directory with something in it.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The folder is read-only.
    #[error("the folder is read-only; start the guest with --folder PATH:rw")]
    ReadOnly,
    /// The host does not allow it.
    #[error("the host does not permit it")]
    Denied,
    /// A symbolic link, which is not followed.
    #[error("it is a symbolic link, which a guest cannot follow")]
    Link,
    /// A device, socket or pipe of the host.
    #[error("it is neither a file nor a directory")]
    Special,
    /// Another file system, mounted in the folder.
    #[error("it is another file system, mounted there, which a guest cannot enter")]
    Mount,
    /// The host's disk is full.
    #[error("the host has no space left")]
    NoSpace,
    /// The path has `..`, a zero byte, or a name that is too long.
    #[error("the path has `..`, a zero byte, or a name of more than 255 bytes")]
    Path,
    /// More is open than can be.
    #[error("too many files are open")]
    TooManyOpen,
    /// The two paths are in different folders.
    #[error("it is in another folder")]
    OtherFolder,
    /// The host took no byte of what was written.
    #[error("the host takes no more bytes")]
    NothingWritten,
    /// Another error of the host.
    #[error("the host failed with error {0}")]
    Host(u32),
    /// The device's answer means nothing.
    #[error("the device gave an answer that means nothing")]
    Answer,
    /// The device failed.
    #[error("{0}")]
    Device(#[from] QueueError),
}

impl From<Errno> for Reason {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::NotFound,
            Errno::EXIST => Self::Exists,
            Errno::NOTDIR => Self::NotDirectory,
            Errno::ISDIR => Self::IsDirectory,
            Errno::NOTEMPTY => Self::NotEmpty,
            Errno::ROFS => Self::ReadOnly,
            Errno::PERM | Errno::ACCES => Self::Denied,
            Errno::LOOP => Self::Link,
            Errno::NXIO => Self::Special,
            Errno::XDEV => Self::Mount,
            Errno::NOSPC => Self::NoSpace,
            Errno::NAMETOOLONG => Self::Path,
            Errno::MFILE => Self::TooManyOpen,
            Errno(number) => Self::Host(number),
        }
    }
}
