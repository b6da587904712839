//! Folders of files: walked without following a link, removed, summed up.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::error::Doing;
use super::super::{Digest, Error, Result};

/// The deepest folder that is walked: each level takes a descriptor.
const DEPTH: usize = 512;

/// What a walk finds.
pub(in super::super) struct Found<'a> {
    /// The folder it is in.
    pub(in super::super) parent: BorrowedFd<'a>,
    /// Its name there.
    pub(in super::super) name: &'a CStr,
    /// Its path from the top.
    pub(in super::super) path: &'a Path,
    pub(in super::super) stat: Stat,
}

impl Found<'_> {
    pub(in super::super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Opens a folder, not through a link.
pub(in super::super) fn open_folder(parent: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Opens the top of a tree.
pub(in super::super) fn open_top(path: &Path) -> Result<OwnedFd> {
    open_folder(rustix::fs::CWD, path).at("open folder", path)
}

/// Calls `visit` for everything below a folder, sorted by name, a folder before what is in it.
pub(in super::super) fn walk(top: &OwnedFd, visit: &mut dyn FnMut(&Found<'_>) -> Result<()>) -> Result<()> {
    walk_below(top.as_fd(), &mut PathBuf::new(), 0, visit)
}

fn walk_below(
    folder: BorrowedFd<'_>,
    path: &mut PathBuf,
    depth: usize,
    visit: &mut dyn FnMut(&Found<'_>) -> Result<()>,
) -> Result<()> {
    if depth > DEPTH {
        return Err(Error::document(
            path.display(),
            format!("folders are nested more than {DEPTH} deep"),
        ));
    }
    for name in names(folder).at("read folder", path)? {
        path.push(OsStr::from_bytes(name.to_bytes()));
        let stat = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW).at("look at", path)?;
        let found = Found {
            parent: folder,
            name: &name,
            path,
            stat,
        };
        visit(&found)?;
        if found.kind() == FileType::Directory {
            let inner = open_folder(folder, &name).at("open folder", path)?;
            walk_below(inner.as_fd(), path, depth + 1, visit)?;
        }
        path.pop();
    }
    Ok(())
}

/// What a folder holds, sorted, so that the order is the same everywhere.
pub(in super::super) fn names(folder: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Removes a folder with everything in it, also what its modes and owners would keep its owner from removing.
pub(super) fn remove(path: &Path) -> Result<()> {
    match crate::jail::remove_tree(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.at("remove", path),
    }
}

/// What a tree holds: how much, and a digest of names, kinds, modes, owners, sizes and link targets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) digest: Option<Digest>,
    /// How many entries have another owner than the layer says: it was unpacked by one who has no other ids.
    #[serde(default)]
    pub(super) lost_owners: u64,
}

impl Summary {
    /// Of what is below this folder.
    pub(super) fn of(top: &Path) -> Result<Self> {
        let mut this = Self::default();
        let mut hash = Sha256::new();
        walk(&open_top(top)?, &mut |found| {
            let stat = &found.stat;
            // The size of a folder is the file system's own business.
            let size = if found.kind() == FileType::RegularFile {
                stat.st_size
            } else {
                0
            };
            this.entries += 1;
            this.bytes += u64::try_from(size).unwrap_or_default();
            hash.update(found.path.as_os_str().as_bytes());
            hash.update([0]);
            let words = [
                u64::from(stat.st_mode),
                u64::from(stat.st_uid),
                u64::from(stat.st_gid),
                size.cast_unsigned(),
                stat.st_rdev,
            ];
            for word in words {
                hash.update(word.to_le_bytes());
            }
            if found.kind() == FileType::Symlink {
                let target = rustix::fs::readlinkat(found.parent, found.name, Vec::new());
                hash.update(target.at("read link", found.path)?.to_bytes_with_nul());
            }
            Ok(())
        })?;
        this.digest = Some(hash.into());
        Ok(this)
    }
}
