//! Layers: archives on the way in and out, folders for overlayfs in between (layer.md).
//!
//! | file | what |
//! |---|---|
//! | `compression` | gzip, zstd or neither |
//! | `bounded` | what is unpacked, and no more of it than is allowed |
//! | `tar` | reads an archive entry by entry, each header bounded |
//! | `beneath` | makes files below a folder and nowhere else |
//! | `unpack` | an archive to a folder |
//! | `pack` | a folder to an archive |
//! | `whiteout` | removed names and replaced folders, as archives and as overlayfs write them |
//! | `xattr` | which extended attributes are kept |

mod beneath;
pub(super) mod bounded;
pub(super) mod compression;
mod pack;
mod path;
pub(super) mod tar;
mod unpack;
mod whiteout;
mod xattr;

pub use pack::{Packed, pack};
pub(super) use path::{clean, shown};
pub use unpack::{Skipped, unpack, unpack_archive, verify};
pub use whiteout::{OPAQUE, PREFIX};
pub(super) use whiteout::{is_opaque, is_whiteout};

/// Who owns what is unpacked, and how owners are written when packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// As the archive says, plus an offset: the first id of the range that a user namespace maps.
    Kept {
        /// What is added to user and group ids.
        offset: u32,
    },
    /// All is whose the process is; the archive says root.
    Mine,
}

impl Owners {
    /// As the archive says if this process may give files away, else all are its own.
    #[must_use]
    pub fn ours() -> Self {
        if rustix::process::geteuid().is_root() {
            Self::Kept { offset: 0 }
        } else {
            Self::Mine
        }
    }
}
