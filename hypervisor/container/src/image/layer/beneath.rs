//! Files below one folder, and nowhere else, whatever the names say.
//!
//! The folder above a file is opened by `openat2` with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS: the
//! kernel itself keeps the path below the top and off links. What is done then is done to a single
//! name in that folder, by calls that do not follow a link either.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// The mode of folders that an archive leaves out.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);

/// A folder that files are made below.
pub(super) struct Beneath {
    top: OwnedFd,
    /// The folder that was used last: entries come folder by folder.
    last: Option<(Vec<OsString>, OwnedFd)>,
}

/// Why a folder cannot be reached.
pub(super) fn reason(error: Errno) -> String {
    match error {
        Errno::LOOP => "a folder above it is a symbolic link".into(),
        Errno::NOTDIR => "a folder above it is no folder".into(),
        Errno::XDEV => "its path leads out of the layer".into(),
        error => std::io::Error::from(error).to_string(),
    }
}

impl Beneath {
    pub(super) const fn new(top: OwnedFd) -> Self {
        Self { top, last: None }
    }

    pub(super) const fn top(&self) -> &OwnedFd {
        &self.top
    }

    /// The folder with this path, made if it is missing.
    pub(super) fn folder(&mut self, parts: &[&OsStr]) -> Result<&OwnedFd, Errno> {
        if parts.is_empty() {
            return Ok(&self.top);
        }
        let known = self.last.as_ref().is_some_and(|(path, _)| path.iter().eq(parts.iter()));
        if !known {
            let folder = match self.open(parts, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(Errno::NOENT) => self.make_folders(parts)?,
                opened => opened?,
            };
            let path = parts.iter().map(|part| (*part).to_owned()).collect();
            self.last = Some((path, folder));
        }
        self.last.as_ref().map(|(_, folder)| folder).ok_or(Errno::NOENT)
    }

    /// Forgets the folder that was used last: it may be about to be replaced.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// Opens what has this path, which no link is part of.
    pub(super) fn open(&self, parts: &[&OsStr], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path: std::path::PathBuf = parts.iter().collect();
        let path = if parts.is_empty() {
            std::path::Path::new(".")
        } else {
            &path
        };
        rustix::fs::openat2(
            &self.top,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    }

    fn make_folders(&self, parts: &[&OsStr]) -> Result<OwnedFd, Errno> {
        let mut folder = self.top.try_clone().map_err(|_| Errno::MFILE)?;
        for part in parts {
            let made = rustix::fs::mkdirat(&folder, *part, FOLDER_MODE);
            folder = match made {
                Ok(()) | Err(Errno::EXIST) => open_inner(&folder, part, OFlags::RDONLY | OFlags::DIRECTORY)?,
                Err(error) => return Err(error),
            };
            if made.is_ok() {
                // Whatever the umask is.
                rustix::fs::fchmod(&folder, FOLDER_MODE)?;
            }
        }
        Ok(folder)
    }
}

/// Opens one name in a folder, not through a link.
pub(super) fn open_inner(folder: impl AsFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        folder,
        name,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
}

/// What one name in a folder is, if it is there.
pub(super) fn look(folder: impl AsFd, name: &OsStr) -> Result<Option<(FileType, Stat)>, Errno> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((FileType::from_raw_mode(stat.st_mode), stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
