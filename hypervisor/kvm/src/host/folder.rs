//! A folder of the host, for a guest to see.
//!
//! Every lookup is one name below a descriptor, by `openat2` with `RESOLVE_BENEATH`, without
//! symbolic links. What is found is an `O_PATH` descriptor, which does nothing to the file; only
//! when it is known to be a regular file or a directory is it opened, by its number in
//! `/proc/self/fd`, so that nothing can be put in its place meanwhile.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use chiton_core::devices::p9::{Access, Tree};
use chiton_shared::virtio::p9::{Attributes, Entry, Errno, MAX_TAG, Qid, Statistics};
use rustix::fs::{
    self, AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, Stat, fstat, mkdirat, openat, openat2,
    renameat, unlinkat,
};
use rustix::io::Errno as Os;

/// Why a folder cannot be given to a guest.
#[derive(Debug, thiserror::Error)]
pub enum FolderOpenError {
    /// It is not there.
    #[error("the folder {0} does not exist: make it with `mkdir {path}`", path = .0.display())]
    Missing(PathBuf),
    /// It is something else.
    #[error("{0} is not a folder: give the guest the folder it is in, or a file as a disk (--disk)")]
    Kind(PathBuf),
    /// It cannot be opened.
    #[error("cannot open the folder {path}: {source}")]
    Open {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is in `/proc`.
    #[error("the folder {0} is in /proc, whose files are no files: give the guest another one")]
    Proc(PathBuf),
    /// Its name cannot be told to the guest.
    #[error("the guest cannot call the folder {0} by its name, which must be UTF-8 of 1 to {MAX_TAG} bytes: rename it")]
    Name(PathBuf),
}

/// A folder that is open. The guest knows it by the last component of its path.
#[derive(Debug)]
pub struct Folder {
    root: OwnedFd,
    /// The descriptors of this process, by number.
    own: OwnedFd,
    name: String,
    writable: bool,
}

impl Folder {
    /// Opens a folder, for the guest to read, or to write too.
    ///
    /// # Errors
    ///
    /// [`FolderOpenError`].
    pub fn open(path: impl AsRef<Path>, writable: bool) -> Result<Self, FolderOpenError> {
        let path = path.as_ref();
        let fail = |errno: Os| match errno {
            Os::NOENT => FolderOpenError::Missing(path.to_owned()),
            Os::NOTDIR => FolderOpenError::Kind(path.to_owned()),
            errno => FolderOpenError::Open {
                path: path.to_owned(),
                source: errno.into(),
            },
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(fs::CWD, path, flags, Mode::empty()).map_err(fail)?;
        if fs::fstatfs(&root).map_err(fail)?.f_type == fs::PROC_SUPER_MAGIC {
            return Err(FolderOpenError::Proc(path.to_owned()));
        }
        let own = openat(fs::CWD, "/proc/self/fd", flags, Mode::empty()).map_err(|errno| FolderOpenError::Open {
            path: "/proc/self/fd".into(),
            source: errno.into(),
        })?;
        let full = std::fs::canonicalize(path).map_err(|source| FolderOpenError::Open {
            path: path.to_owned(),
            source,
        })?;
        let name = match full.file_name() {
            Some(name) => name.to_str(),
            None => Some("root"),
        };
        let name = name
            .filter(|name| (1..=MAX_TAG).contains(&name.len()))
            .ok_or_else(|| FolderOpenError::Name(path.to_owned()))?
            .to_owned();
        Ok(Self {
            root,
            own,
            name,
            writable,
        })
    }

    /// What the guest calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn check_writable(&self) -> Result<(), Errno> {
        if self.writable { Ok(()) } else { Err(Errno::ROFS) }
    }

    /// Opens what this descriptor stands for.
    fn reopen(&self, node: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        openat(&self.own, node.as_raw_fd().to_string(), flags, Mode::empty()).map_err(errno)
    }

    fn open_node(&self, node: &OwnedFd, access: Access) -> Result<OwnedFd, Errno> {
        if access.write || access.truncate {
            self.check_writable()?;
        }
        match FileType::from_raw_mode(fstat(node).map_err(errno)?.st_mode) {
            FileType::Directory if access.write || access.truncate => Err(Errno::ISDIR),
            FileType::Directory => self.reopen(node, OFlags::RDONLY | OFlags::DIRECTORY),
            FileType::RegularFile => {
                let mut flags = match (access.read, access.write) {
                    (true, true) => OFlags::RDWR,
                    (false, true) => OFlags::WRONLY,
                    _ => OFlags::RDONLY,
                };
                flags.set(OFlags::TRUNC, access.truncate);
                self.reopen(node, flags)
            }
            FileType::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::NXIO),
        }
    }
}

fn errno(errno: Os) -> Errno {
    Errno(errno.raw_os_error().unsigned_abs())
}

/// What `name` is in a directory, without opening it.
fn find(directory: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(directory, name, flags, Mode::empty(), beneath()).map_err(errno)
}

fn beneath() -> ResolveFlags {
    // Without other file systems: a guest that is given `/` must not reach this process by `/proc`.
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV
}

const fn qid(kind: FileType, inode: u64) -> Qid {
    let kind = match kind {
        FileType::Directory => Qid::DIRECTORY,
        FileType::Symlink => Qid::LINK,
        _ => Qid::FILE,
    };
    Qid {
        kind,
        version: 0,
        path: inode,
    }
}

fn attributes(stat: &Stat) -> Attributes {
    let time = |seconds: i64, ns: u64| [u64::try_from(seconds).unwrap_or(0), ns];
    Attributes {
        qid: qid(FileType::from_raw_mode(stat.st_mode), stat.st_ino),
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        links: stat.st_nlink,
        size: stat.st_size.unsigned_abs(),
        block_size: stat.st_blksize.unsigned_abs(),
        blocks: stat.st_blocks.unsigned_abs(),
        accessed: time(stat.st_atime, stat.st_atime_nsec),
        modified: time(stat.st_mtime, stat.st_mtime_nsec),
        changed: time(stat.st_ctime, stat.st_ctime_nsec),
    }
}

impl Tree for Folder {
    type Node = OwnedFd;
    type Open = OwnedFd;

    fn root(&mut self) -> Result<OwnedFd, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.root, 0).map_err(errno)
    }

    fn again(&mut self, node: &OwnedFd) -> Result<OwnedFd, Errno> {
        rustix::io::fcntl_dupfd_cloexec(node, 0).map_err(errno)
    }

    fn child(&mut self, directory: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
        find(directory, name)
    }

    fn attributes(&mut self, node: &OwnedFd) -> Result<Attributes, Errno> {
        Ok(attributes(&fstat(node).map_err(errno)?))
    }

    fn open(&mut self, node: &OwnedFd, access: Access) -> Result<OwnedFd, Errno> {
        self.open_node(node, access)
    }

    fn create(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        access: Access,
        exclusive: bool,
        mode: u32,
    ) -> Result<(OwnedFd, OwnedFd), Errno> {
        self.check_writable()?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat2(directory, name, flags, Mode::from_raw_mode(mode), beneath()) {
            Err(Os::EXIST) if !exclusive => {}
            result => drop(result.map_err(errno)?),
        }
        let node = find(directory, name)?;
        let open = self.open_node(&node, access)?;
        Ok((node, open))
    }

    fn read_at(&mut self, open: &OwnedFd, offset: u64, to: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::pread(open, to, offset).map_err(errno)
    }

    fn write_at(&mut self, open: &OwnedFd, offset: u64, from: &[u8]) -> Result<usize, Errno> {
        rustix::io::pwrite(open, from, offset).map_err(errno)
    }

    fn list(&mut self, open: &OwnedFd, offset: u64, take: &mut dyn FnMut(&Entry<'_>) -> bool) -> Result<(), Errno> {
        fs::seek(open, SeekFrom::Start(offset)).map_err(errno)?;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(open, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(errno)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let mut kind = entry.file_type();
            if kind == FileType::Unknown
                && let Ok(stat) = fs::statat(open, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            {
                kind = FileType::from_raw_mode(stat.st_mode);
            }
            let entry = Entry {
                qid: qid(kind, entry.ino()),
                next: entry.next_entry_cookie(),
                // Linux's number of a kind is the upper part of its mode.
                kind: (kind.as_raw_mode() >> 12) as u8,
                name,
            };
            if !take(&entry) {
                break;
            }
        }
        Ok(())
    }

    fn make_directory(&mut self, directory: &OwnedFd, name: &[u8], mode: u32) -> Result<OwnedFd, Errno> {
        self.check_writable()?;
        mkdirat(directory, name, Mode::from_raw_mode(mode)).map_err(errno)?;
        find(directory, name)
    }

    fn remove(&mut self, directory: &OwnedFd, name: &[u8], is_directory: bool) -> Result<(), Errno> {
        self.check_writable()?;
        let flags = if is_directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        unlinkat(directory, name, flags).map_err(errno)
    }

    fn rename(&mut self, from: &OwnedFd, name: &[u8], to: &OwnedFd, new_name: &[u8]) -> Result<(), Errno> {
        self.check_writable()?;
        renameat(from, name, to, new_name).map_err(errno)
    }

    fn resize(&mut self, node: &OwnedFd, size: u64) -> Result<(), Errno> {
        let write = Access {
            read: false,
            write: true,
            truncate: false,
        };
        fs::ftruncate(self.open_node(node, write)?, size).map_err(errno)
    }

    fn sync(&mut self, open: &OwnedFd) -> Result<(), Errno> {
        fs::fsync(open).map_err(errno)
    }

    fn statistics(&mut self, node: &OwnedFd) -> Result<Statistics, Errno> {
        let s = fs::fstatvfs(node).map_err(errno)?;
        Ok(Statistics {
            kind: 0x0102_1997,
            block_size: u32::try_from(s.f_frsize).unwrap_or(u32::MAX),
            blocks: [s.f_blocks, s.f_bfree, s.f_bavail],
            files: [s.f_files, s.f_ffree],
            id: s.f_fsid,
            name_len: 255,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is gone with the test.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("chiton-folder-{}-{name}", std::process::id()));
            // Of a process that was killed, and had the same number.
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(path.join("in/sub")).unwrap();
            std::fs::write(path.join("secret"), "secret").unwrap();
            std::fs::write(path.join("in/file"), "file").unwrap();
            Self(path)
        }

        fn folder(&self, writable: bool) -> Folder {
            Folder::open(self.0.join("in"), writable).unwrap()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const READ: Access = Access {
        read: true,
        write: false,
        truncate: false,
    };

    #[test]
    fn lookups_stay_beneath_even_with_names_that_are_paths() {
        let place = Place::new("beneath");
        std::os::unix::fs::symlink(place.0.join("secret"), place.0.join("in/link")).unwrap();
        std::os::unix::fs::symlink("..", place.0.join("in/up")).unwrap();
        let mut folder = place.folder(true);
        let root = folder.root().unwrap();
        assert_eq!(folder.child(&root, b"..").unwrap_err(), Errno::XDEV);
        assert_eq!(folder.child(&root, b"../secret").unwrap_err(), Errno::XDEV);
        assert_eq!(folder.child(&root, b"/etc").unwrap_err(), Errno::XDEV);
        assert_eq!(folder.child(&root, b"up/secret").unwrap_err(), Errno::LOOP);
        // A link is seen, and is neither opened nor a way to anywhere.
        let link = folder.child(&root, b"link").unwrap();
        assert_eq!(folder.attributes(&link).unwrap().qid.kind, Qid::LINK);
        assert_eq!(folder.open(&link, READ).unwrap_err(), Errno::LOOP);
        assert_eq!(folder.resize(&link, 0).unwrap_err(), Errno::LOOP);
        let up = folder.child(&root, b"up").unwrap();
        assert_eq!(folder.child(&up, b"secret").unwrap_err(), Errno::NOTDIR);
        assert_eq!(folder.make_directory(&up, b"new", 0o700).unwrap_err(), Errno::NOTDIR);
        assert_eq!(folder.remove(&up, b"secret", false).unwrap_err(), Errno::NOTDIR);
    }

    #[test]
    fn a_read_only_folder_changes_nothing() {
        let place = Place::new("ro");
        let mut folder = place.folder(false);
        let root = folder.root().unwrap();
        let file = folder.child(&root, b"file").unwrap();
        for access in [Access { write: true, ..READ }, Access { truncate: true, ..READ }] {
            assert_eq!(folder.open(&file, access).unwrap_err(), Errno::ROFS);
            assert_eq!(
                folder.create(&root, b"new", access, false, 0o600).unwrap_err(),
                Errno::ROFS
            );
        }
        assert_eq!(folder.resize(&file, 0).unwrap_err(), Errno::ROFS);
        assert_eq!(folder.make_directory(&root, b"new", 0o700).unwrap_err(), Errno::ROFS);
        assert_eq!(folder.remove(&root, b"file", false).unwrap_err(), Errno::ROFS);
        assert_eq!(folder.rename(&root, b"file", &root, b"new").unwrap_err(), Errno::ROFS);
        let open = folder.open(&file, READ).unwrap();
        assert!(folder.write_at(&open, 0, b"x").is_err());
        assert_eq!(std::fs::read(place.0.join("in/file")).unwrap(), b"file");
    }

    #[test]
    fn other_file_systems_and_proc_are_not_given() {
        let mut folder = Folder::open("/", false).unwrap();
        assert_eq!(folder.name(), "root");
        let root = folder.root().unwrap();
        assert_eq!(folder.child(&root, b"proc").unwrap_err(), Errno::XDEV);
        assert!(matches!(
            Folder::open("/proc/self", false),
            Err(FolderOpenError::Proc(_))
        ));
    }
}
