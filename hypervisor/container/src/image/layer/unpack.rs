//! An archive to a folder as overlayfs wants it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::super::error::Doing;
use super::super::spec::Descriptor;
use super::super::store::{check, open_top};
use super::super::{Digest, Error, Hashing, Limits, Result};
use super::beneath::{self, Beneath};
use super::bounded::{Bounded, Over};
use super::path::{self, shown};
use super::tar::{Archive, Broken, Entry, Kind};
use super::whiteout::{self, Meaning};
use super::{Owners, xattr};

/// Bits of a mode that chmod takes.
const MODE_BITS: u32 = 0o7777;
/// Zeros of this size and alignment become a hole.
const HOLE: usize = 4096;
/// How many bytes the paths of all folders may have together: they are remembered to the end.
const FOLDER_NAMES: u64 = 256 << 20;

/// What stands for an entry's name when it is about what follows the last.
const BEHIND: &[u8] = b"(behind the last entry)";
/// What stands for it when no entry is looked at.
const WHOLE: &[u8] = b"(whichever)";

/// What of a layer was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Device nodes: a jail brings its own.
    pub devices: u64,
    /// Extended attributes that are not kept, or that only root could set.
    pub xattrs: u64,
    /// Owners other than root, where nothing can be given away.
    pub owners: u64,
}

/// Unpacks the layer `blob`, read by `reader`, into the empty folder `top`.
///
/// What is read must have the blob's digest and size, and what comes out of it `diff_id`. Both are
/// known at the end only: until this returns, nobody may use what is there.
///
/// # Errors
///
/// If a digest is wrong, the archive is broken, an entry is refused, a limit exceeded, or a file
/// cannot be made. The folder then holds what was unpacked so far; the caller removes it.
pub fn unpack(
    reader: &mut dyn Read,
    blob: &Descriptor,
    diff_id: Digest,
    top: &Path,
    limits: Limits,
    owners: Owners,
) -> Result<Skipped> {
    let what = blob.digest.to_string();
    let reading = || format!("read layer {what}");
    let bounded = Bounded::new(Hashing::new(reader), limits).doing(reading)?;
    let mut stream = Hashing::new(bounded);
    let result = unpack_archive(&mut stream, &what, top, limits, owners);
    // A layer that is not what was promised is better called that than by what is wrong in it.
    match &result {
        // The stream goes on behind the archive's end, and counts.
        Ok(_) => drop(io::copy(&mut stream, &mut io::sink()).map_err(|error| over(error, &what, BEHIND))?),
        Err(Error::Entry { .. }) => {}
        Err(_) => return result,
    }
    let found = packed_right(stream, blob)?;
    let skipped = result?;
    unpacked_right(blob, diff_id, found)?;
    Ok(skipped)
}

/// Checks the layer `blob`, read by `reader`, without unpacking it: its digest and size, and that what comes out of it has
/// the digest `diff_id`.
///
/// # Errors
///
/// If one of them is wrong, the layer is damaged, or a limit exceeded.
pub fn verify(reader: &mut dyn Read, blob: &Descriptor, diff_id: Digest, limits: Limits) -> Result<()> {
    let what = blob.digest.to_string();
    let bounded = Bounded::new(Hashing::new(reader), limits).doing(|| format!("read layer {what}"))?;
    let mut stream = Hashing::new(bounded);
    let read = io::copy(&mut stream, &mut io::sink());
    match &read {
        // It need not be read to its end to be too much.
        Err(error) if Over::of(error).is_some() => {}
        _ => unpacked_right(blob, diff_id, packed_right(stream, blob)?)?,
    }
    read.map(drop).map_err(|error| over(error, &what, WHOLE))
}

/// Checks what was read of a layer, to its end, and returns the digest of what came out of it.
fn packed_right<R: Read>(stream: Hashing<Bounded<Hashing<R>>>, blob: &Descriptor) -> Result<Digest> {
    let (bounded, found, _) = stream.finish();
    let mut packed = bounded.into_packed();
    io::copy(&mut packed, &mut io::sink()).doing(|| format!("read layer {}", blob.digest))?;
    let (_, digest, size) = packed.into_inner().into_inner().finish();
    check(|| format!("layer {}", blob.digest), blob, digest, size)?;
    Ok(found)
}

fn unpacked_right(blob: &Descriptor, diff_id: Digest, found: Digest) -> Result<()> {
    if found == diff_id {
        return Ok(());
    }
    Err(Error::Mismatch {
        what: format!("layer {}, unpacked,", blob.digest),
        wanted: diff_id,
        found,
    })
}

/// Unpacks an archive that is not compressed into the empty folder `top`.
///
/// # Errors
///
/// As [`unpack`], but for digests.
pub fn unpack_archive(
    reader: &mut dyn Read,
    layer: &str,
    top: &Path,
    limits: Limits,
    owners: Owners,
) -> Result<Skipped> {
    let mut unpacker = Unpacker {
        layer,
        beneath: Beneath::new(open_top(top)?),
        limits,
        owners,
        skipped: Skipped::default(),
        folders: Vec::new(),
        bytes: 0,
        names: 0,
    };
    let mut archive = Archive::new(reader);
    let mut entries = 0;
    let mut last = Vec::new();
    loop {
        let entry = match archive.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(Broken::Io(error)) => return Err(over(error, layer, &last)),
            Err(Broken::Format(path, why)) => {
                let path = if path.is_empty() { &last } else { &path };
                return Err(unpacker.refused(path, why));
            }
        };
        entries += 1;
        if entries > limits.entries {
            return Err(unpacker.limited(&entry, limits.entries, "entries"));
        }
        unpacker.entry(&mut archive, &entry)?;
        last = entry.path;
    }
    unpacker.finish()
}

/// Names the limit, if that is what the error is about.
fn over(error: io::Error, layer: &str, entry: &[u8]) -> Error {
    match Over::of(&error) {
        Some(Over { limit, of }) => Error::Limit {
            layer: layer.to_owned(),
            entry: shown(entry),
            limit,
            of,
        },
        None => match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => Error::Entry {
                layer: layer.to_owned(),
                entry: shown(entry),
                why: format!("the archive is damaged behind it: {error}"),
            },
            _ => Err::<(), _>(error)
                .doing(|| format!("read layer {layer}"))
                .map_or_else(|error| error, |()| unreachable!()),
        },
    }
}

struct Unpacker<'a> {
    layer: &'a str,
    beneath: Beneath,
    limits: Limits,
    owners: Owners,
    skipped: Skipped,
    /// Folders whose modes and times are set at the end: what is made in them would change the times,
    /// and the modes could keep it from being made.
    folders: Vec<(Vec<u8>, u32, Timestamps)>,
    bytes: u64,
    names: u64,
}

impl Unpacker<'_> {
    fn refused(&self, path: &[u8], why: impl Into<String>) -> Error {
        Error::Entry {
            layer: self.layer.to_owned(),
            entry: shown(path),
            why: why.into(),
        }
    }

    fn limited(&self, entry: &Entry, limit: u64, of: &'static str) -> Error {
        Error::Limit {
            layer: self.layer.to_owned(),
            entry: shown(&entry.path),
            limit,
            of,
        }
    }

    /// A call that failed: what the archive may be to blame for is said of the entry.
    fn failed(&self, entry: &Entry, error: Errno) -> Error {
        match error {
            Errno::LOOP | Errno::NOTDIR | Errno::XDEV | Errno::NAMETOOLONG | Errno::INVAL => {
                self.refused(&entry.path, beneath::reason(error))
            }
            _ => Error::Io {
                doing: format!("unpack `{}` of layer {}", shown(&entry.path), self.layer),
                source: error.into(),
            },
        }
    }

    fn entry<R: Read>(&mut self, archive: &mut Archive<R>, entry: &Entry) -> Result<()> {
        let parts = path::parts(&entry.path).map_err(|why| self.refused(&entry.path, why))?;
        if parts.len() as u64 > self.limits.depth {
            return Err(self.limited(entry, self.limits.depth, "folders above one another"));
        }
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > self.limits.bytes {
            return Err(self.limited(entry, self.limits.bytes, "bytes"));
        }
        let Some((name, above)) = parts.split_last() else {
            return self.top(entry);
        };
        // A part above that looks like a whiteout would be taken for one when packed again.
        for part in above {
            match whiteout::meaning(part) {
                Meaning::Plain => {}
                Meaning::Aufs => return Ok(()),
                _ => return Err(self.refused(&entry.path, "a folder above it has the name of a whiteout")),
            }
        }
        match whiteout::meaning(name) {
            Meaning::Plain => self.plain(archive, entry, above, name),
            Meaning::Aufs => Ok(()),
            Meaning::Wrong(why) => Err(self.refused(&entry.path, why)),
            Meaning::Opaque => {
                let folder = self.beneath.folder(above);
                folder
                    .and_then(whiteout::make_opaque)
                    .map_err(|error| self.failed(entry, error))
            }
            Meaning::Gone(gone) => self.gone(above, gone).map_err(|error| self.failed(entry, error)),
        }
    }

    /// The layer's root: only what is said of the folder itself counts.
    fn top(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Folder {
            return Err(self.refused(&entry.path, "the root of a layer can only be a folder"));
        }
        let top = self
            .beneath
            .top()
            .try_clone()
            .doing(|| format!("unpack layer {}", self.layer))?;
        self.dress(entry, &top)?;
        self.later(entry, Vec::new())
    }

    /// A whiteout hides what is below this layer, never what is in it.
    fn gone(&mut self, above: &[&OsStr], name: &OsStr) -> std::result::Result<(), Errno> {
        let parent = self.beneath.folder(above)?;
        match beneath::look(parent, name)? {
            None => whiteout::make(parent, name),
            Some((FileType::Directory, _)) => {
                let folder = beneath::open_inner(parent, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
                whiteout::make_opaque(folder)
            }
            Some(_) => Ok(()),
        }
    }

    fn plain<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        entry: &Entry,
        above: &[&OsStr],
        name: &OsStr,
    ) -> Result<()> {
        match entry.kind {
            Kind::Device => {
                self.skipped.devices += 1;
                return Ok(());
            }
            Kind::Other(kind) => {
                let why = format!("entries of type {:?} are not known", char::from(kind));
                return Err(self.refused(&entry.path, why));
            }
            _ => {}
        }
        // The target first: the entry may replace what its path leads over.
        let target = match entry.kind {
            Kind::HardLink => Some(self.link_target(entry, above, name)?),
            _ => None,
        };
        let hides = self.make_room(entry, above, name)?;
        let parent = self
            .beneath
            .folder(above)
            .map_err(|error| beneath_error(error, self.layer, entry))?;
        let parent = parent.try_clone().doing(|| format!("unpack layer {}", self.layer))?;
        let made = |result: rustix::io::Result<()>, this: &Self| result.map_err(|error| this.failed(entry, error));
        match entry.kind {
            Kind::Folder => {
                match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(self.failed(entry, error)),
                }
                let folder = beneath::open_inner(&parent, name, OFlags::RDONLY | OFlags::DIRECTORY);
                let folder = folder.map_err(|error| self.failed(entry, error))?;
                if hides {
                    made(whiteout::make_opaque(&folder), self)?;
                }
                self.dress(entry, &folder)?;
                self.later(
                    entry,
                    path::joined(&[above, &[name]].concat())
                        .into_os_string()
                        .as_bytes()
                        .to_vec(),
                )
            }
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR);
                let file = File::from(file.map_err(|error| self.failed(entry, error))?);
                self.content(archive, entry, &file)?;
                self.dress(entry, &file)?;
                made(rustix::fs::futimens(&file, &times(entry)), self)
            }
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) || entry.link.len() > Limits::PATH {
                    return Err(self.refused(&entry.path, "the target of a symbolic link is empty or too long"));
                }
                made(
                    rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), &parent, name),
                    self,
                )?;
                self.own(entry, &parent, name)?;
                made(
                    rustix::fs::utimensat(&parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW),
                    self,
                )
            }
            Kind::Fifo => {
                made(
                    rustix::fs::mknodat(&parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0),
                    self,
                )?;
                self.own(entry, &parent, name)?;
                let mode = Mode::from_raw_mode(entry.mode & MODE_BITS);
                // It was just made, in a folder that is ours alone, and is no link.
                made(rustix::fs::chmodat(&parent, name, mode, AtFlags::empty()), self)?;
                made(
                    rustix::fs::utimensat(&parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW),
                    self,
                )
            }
            Kind::HardLink => {
                let (folder, target) = target.ok_or_else(|| self.refused(&entry.path, "it links to nothing"))?;
                made(
                    rustix::fs::linkat(&folder, target.as_os_str(), &parent, name, AtFlags::empty()),
                    self,
                )
            }
            Kind::Device | Kind::Other(_) => Ok(()),
        }
    }

    /// Folder and name of what a hard link links to: a file of this layer.
    fn link_target(&mut self, entry: &Entry, above: &[&OsStr], name: &OsStr) -> Result<(OwnedFd, std::ffi::OsString)> {
        let parts = path::parts(&entry.link)
            .map_err(|why| self.refused(&entry.path, format!("it is a hard link, and of its target: {why}")))?;
        let Some((target, folders)) = parts.split_last() else {
            return Err(self.refused(&entry.path, "it is a hard link to the root"));
        };
        if folders == above && *target == name {
            return Err(self.refused(&entry.path, "it is a hard link to itself"));
        }
        let missing = || {
            self.refused(
                &entry.path,
                format!(
                    "it is a hard link to `{}`, which is not in this layer",
                    shown(&entry.link)
                ),
            )
        };
        let folder = match self.beneath.open(folders, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Err(missing()),
            Err(error) => {
                return Err(self.refused(
                    &entry.path,
                    format!("it is a hard link, and of its target: {}", beneath::reason(error)),
                ));
            }
        };
        match beneath::look(&folder, target).map_err(|error| self.failed(entry, error))? {
            None => Err(missing()),
            Some((FileType::RegularFile | FileType::Symlink | FileType::Fifo, _)) => Ok((folder, (*target).to_owned())),
            Some(_) => Err(self.refused(&entry.path, "it is a hard link to what is no file")),
        }
    }

    /// Removes what an earlier entry left under this name; true if that was a whiteout.
    fn make_room(&mut self, entry: &Entry, above: &[&OsStr], name: &OsStr) -> Result<bool> {
        let parent = self
            .beneath
            .folder(above)
            .map_err(|error| beneath_error(error, self.layer, entry))?;
        let found = beneath::look(parent, name).map_err(|error| beneath_error(error, self.layer, entry))?;
        let flags = match found {
            None => return Ok(false),
            Some((FileType::Directory, _)) if entry.kind == Kind::Folder => return Ok(false),
            Some((FileType::Directory, _)) => AtFlags::REMOVEDIR,
            Some(_) => AtFlags::empty(),
        };
        match rustix::fs::unlinkat(parent, name, flags) {
            Ok(()) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                return Err(self.refused(&entry.path, "it would replace a folder that is not empty"));
            }
            Err(error) => return Err(self.failed(entry, error)),
        }
        self.beneath.forget();
        Ok(found.is_some_and(|(_, stat)| whiteout::is_whiteout(&stat)))
    }

    fn content<R: Read>(&self, archive: &mut Archive<R>, entry: &Entry, file: &File) -> Result<()> {
        let mut writing = None;
        let copied = archive.copy(entry, |offset, bytes| {
            write_sparse(file, offset, bytes).inspect_err(|error| writing = error.raw_os_error())
        });
        match (copied, writing) {
            (Err(error), None) => return Err(over(error, self.layer, &entry.path)),
            (Err(_), Some(code)) => return Err(self.failed(entry, Errno::from_raw_os_error(code))),
            (Ok(()), _) => {}
        }
        rustix::fs::ftruncate(file, entry.size).map_err(|error| self.failed(entry, error))
    }

    /// Owner, mode and extended attributes. In this order: a new owner takes set-user-id bits and
    /// capabilities away. A folder's mode comes later.
    fn dress(&mut self, entry: &Entry, file: &impl AsFd) -> Result<()> {
        if let Some((uid, gid)) = self.owner(entry)? {
            rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(|error| self.not_given(entry, error))?;
        }
        if entry.kind != Kind::Folder {
            let mode = Mode::from_raw_mode(entry.mode & MODE_BITS);
            rustix::fs::fchmod(file, mode).map_err(|error| self.failed(entry, error))?;
        }
        for (name, value) in &entry.xattrs {
            if name.contains(&0) || value.len() > xattr::MAX {
                return Err(self.refused(
                    &entry.path,
                    "an extended attribute has no proper name, or is longer than 64 KiB",
                ));
            }
            if !xattr::is_kept(name) {
                self.skipped.xattrs += 1;
                continue;
            }
            let name = OsStr::from_bytes(name);
            match rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::PERM) if self.owners == Owners::Mine => self.skipped.xattrs += 1,
                Err(error) => {
                    return Err(Error::Io {
                        doing: format!(
                            "set attribute {} of `{}` of layer {}",
                            name.display(),
                            shown(&entry.path),
                            self.layer
                        ),
                        source: error.into(),
                    });
                }
            }
        }
        Ok(())
    }

    fn own(&mut self, entry: &Entry, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        let Some((uid, gid)) = self.owner(entry)? else {
            return Ok(());
        };
        let result = rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        result.map_err(|error| self.not_given(entry, error))
    }

    /// An owner that it cannot have: the numbers are those of a user namespace.
    fn not_given(&self, entry: &Entry, error: Errno) -> Error {
        if error != Errno::INVAL {
            return self.failed(entry, error);
        }
        let (uid, gid) = (entry.uid, entry.gid);
        let why = format!(
            "its owner {uid}:{gid} is none of this user's ids: have root give more of them in /etc/subuid and /etc/subgid"
        );
        self.refused(&entry.path, why)
    }

    /// Who owns it; nobody in particular where owners are not kept.
    fn owner(&mut self, entry: &Entry) -> Result<Option<(Uid, Gid)>> {
        let Owners::Kept { offset } = self.owners else {
            self.skipped.owners += u64::from((entry.uid, entry.gid) != (0, 0));
            return Ok(None);
        };
        // The last number means "as it is".
        let id = |id: u64| u32::try_from(id).ok()?.checked_add(offset).filter(|id| *id != u32::MAX);
        match (id(entry.uid), id(entry.gid)) {
            (Some(uid), Some(gid)) => Ok(Some((Uid::from_raw(uid), Gid::from_raw(gid)))),
            _ => Err(self.refused(&entry.path, format!("its owner {}:{} cannot be", entry.uid, entry.gid))),
        }
    }

    fn later(&mut self, entry: &Entry, path: Vec<u8>) -> Result<()> {
        self.names += path.len() as u64;
        if self.names > FOLDER_NAMES {
            return Err(self.limited(entry, FOLDER_NAMES, "bytes of names of folders"));
        }
        // Where files are not given away, folders must stay open to their one owner.
        let least = if self.owners == Owners::Mine { 0o700 } else { 0 };
        self.folders.push((path, entry.mode & MODE_BITS | least, times(entry)));
        Ok(())
    }

    /// Sets modes and times of folders, the deepest first.
    fn finish(mut self) -> Result<Skipped> {
        // Reversed, so that below comes before above; and stable before that, so that of several
        // entries for one folder the last is the only one that is kept.
        self.folders.sort_by(|a, b| a.0.cmp(&b.0));
        self.folders.reverse();
        self.folders.dedup_by(|later, first| later.0 == first.0);
        for (path, mode, times) in &self.folders {
            let parts = path::parts(path).map_err(|why| self.refused(path, why))?;
            let folder = match self.beneath.open(&parts, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(folder) => folder,
                // Replaced by a later entry.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(error).doing(|| format!("open folder `{}`", shown(path))),
            };
            rustix::fs::fchmod(&folder, Mode::from_raw_mode(*mode)).doing(|| format!("change `{}`", shown(path)))?;
            rustix::fs::futimens(&folder, times).doing(|| format!("change `{}`", shown(path)))?;
        }
        Ok(self.skipped)
    }
}

/// As [`Unpacker::failed`], while the folder is borrowed.
fn beneath_error(error: Errno, layer: &str, entry: &Entry) -> Error {
    match error {
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV | Errno::NAMETOOLONG => Error::Entry {
            layer: layer.to_owned(),
            entry: shown(&entry.path),
            why: beneath::reason(error),
        },
        _ => Error::Io {
            doing: format!("unpack `{}` of layer {layer}", shown(&entry.path)),
            source: error.into(),
        },
    }
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.mtime.0,
        tv_nsec: entry.mtime.1.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Writes what is not zeros; the rest is a hole.
fn write_sparse(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        let to_boundary = HOLE - (offset + at as u64) as usize % HOLE;
        let end = bytes.len().min(at + to_boundary);
        let mut stop = end;
        if bytes[at..end].iter().any(|byte| *byte != 0) {
            // As many blocks at once as are not all zeros.
            while stop < bytes.len() {
                let next = bytes.len().min(stop + HOLE);
                if bytes[stop..next].iter().all(|byte| *byte == 0) {
                    break;
                }
                stop = next;
            }
            file.write_all_at(&bytes[at..stop], offset + at as u64)?;
        }
        at = stop;
    }
    Ok(())
}
