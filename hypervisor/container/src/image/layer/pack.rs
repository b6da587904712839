//! A folder, such as the upper folder of an overlay, to an archive.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use tar::{EntryType, Header};

use super::super::error::Doing;
use super::super::store::{Found, open_folder, open_top, walk};
use super::super::{Digest, Error, Hashing, Result};
use super::path::shown;
use super::whiteout::{self, Meaning};
use super::{Owners, xattr};

/// How long a name may be in a header; longer ones go to an extended header.
const NAME: usize = 100;
/// The largest owner in a header: seven octal digits.
const MAX_ID: u32 = 0o777_7777;
/// The largest size in a header: eleven octal digits.
const MAX_SIZE: u64 = 0o777_7777_7777;

/// What was packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The digest of the archive.
    pub diff_id: Digest,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Its entries.
    pub entries: u64,
    /// Sockets and device nodes, which are left out.
    pub skipped: u64,
}

/// Writes a folder as an archive, overlayfs's whiteouts as the image specification writes them.
/// The same tree gives the same bytes.
///
/// The folder may belong to somebody hostile who changes it meanwhile: no link is followed.
///
/// # Errors
///
/// If something cannot be read or written, changes meanwhile, has a name that means a whiteout in an
/// archive, or depends on a lower layer in a way that an archive cannot say.
pub fn pack(top: &Path, to: &mut dyn Write, owners: Owners) -> Result<Packed> {
    let mut packer = Packer {
        top,
        owners,
        to: Hashing::new(to),
        entries: 0,
        skipped: 0,
        links: HashMap::new(),
    };
    walk(&open_top(top)?, &mut |found| packer.found(found))?;
    packer.to.write_all(&[0; 1024]).at("write the archive of", top)?;
    let (_, diff_id, bytes) = packer.to.finish();
    Ok(Packed {
        diff_id,
        bytes,
        entries: packer.entries,
        skipped: packer.skipped,
    })
}

struct Packer<'a> {
    top: &'a Path,
    owners: Owners,
    to: Hashing<&'a mut dyn Write>,
    entries: u64,
    skipped: u64,
    /// Where a file with several names was packed, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Packer<'_> {
    fn refused(&self, path: &Path, why: impl Into<String>) -> Error {
        Error::Entry {
            layer: self.top.display().to_string(),
            entry: shown(path.as_os_str().as_bytes()),
            why: why.into(),
        }
    }

    fn found(&mut self, found: &Found<'_>) -> Result<()> {
        let name = OsStr::from_bytes(found.name.to_bytes());
        if whiteout::is_whiteout(&found.stat) {
            return self.whiteout(found.path, &format_name(name));
        }
        if whiteout::meaning(name) != Meaning::Plain {
            return Err(self.refused(found.path, "its name means a whiteout in an image: rename it"));
        }
        match found.kind() {
            FileType::RegularFile => self.file(found),
            FileType::Directory => self.folder(found),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(found.parent, found.name, Vec::new());
                let target = target.at("read link", found.path)?;
                self.entry(
                    EntryType::Symlink,
                    found.path,
                    target.to_bytes(),
                    &found.stat,
                    0,
                    Vec::new(),
                )
            }
            FileType::Fifo => self.entry(EntryType::Fifo, found.path, b"", &found.stat, 0, Vec::new()),
            _ => {
                self.skipped += 1;
                Ok(())
            }
        }
    }

    fn whiteout(&mut self, path: &Path, name: &[u8]) -> Result<()> {
        let mut full = path
            .parent()
            .map(|parent| parent.as_os_str().as_bytes().to_vec())
            .unwrap_or_default();
        if !full.is_empty() {
            full.push(b'/');
        }
        full.extend(name);
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        self.write(header, &full, b"", Vec::new())
    }

    fn folder(&mut self, found: &Found<'_>) -> Result<()> {
        let folder = open_folder(found.parent, found.name).at("open folder", found.path)?;
        let xattrs = self.xattrs(&folder, found.path)?;
        self.entry(EntryType::Directory, found.path, b"", &found.stat, 0, xattrs)?;
        if whiteout::is_opaque(&folder).at("read attributes of", found.path)? {
            self.whiteout(&found.path.join(whiteout::OPAQUE), whiteout::OPAQUE.as_bytes())?;
        }
        Ok(())
    }

    fn file(&mut self, found: &Found<'_>) -> Result<()> {
        // Not to wait for what may have become a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(found.parent, found.name, flags, Mode::empty()).at("open", found.path)?;
        let stat = rustix::fs::fstat(&file).at("look at", found.path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.refused(found.path, "it changed while it was being packed"));
        }
        if stat.st_size == 0 && whiteout::is_whiteout_file(&file).at("read attributes of", found.path)? {
            let name = format_name(OsStr::from_bytes(found.name.to_bytes()));
            return self.whiteout(found.path, &name);
        }
        let path = found.path.as_os_str().as_bytes();
        if stat.st_nlink > 1 {
            let first = self
                .links
                .entry((stat.st_dev, stat.st_ino))
                .or_insert_with(|| path.to_vec())
                .clone();
            if first != path {
                return self.entry(EntryType::Link, found.path, &first, &stat, 0, Vec::new());
            }
        }
        let xattrs = self.xattrs(&file, found.path)?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        self.entry(EntryType::Regular, found.path, b"", &stat, size, xattrs)?;
        self.content(file, size, found.path)
    }

    fn content(&mut self, file: OwnedFd, size: u64, path: &Path) -> Result<()> {
        let written = io::copy(&mut File::from(file).take(size), &mut self.to).at("pack", path)?;
        if written != size {
            return Err(self.refused(path, "it became shorter while it was being packed"));
        }
        self.pad(size, path)
    }

    fn pad(&mut self, size: u64, path: &Path) -> Result<()> {
        let padding = size.next_multiple_of(512) - size;
        self.to.write_all(&[0; 512][..padding as usize]).at("pack", path)
    }

    /// The attributes that are kept; those that tie it to a lower layer are refused.
    fn xattrs(&self, file: &impl AsFd, path: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut kept = Vec::new();
        for name in xattr::list(file).at("read attributes of", path)? {
            let bytes = name.to_bytes();
            if bytes.ends_with(b".overlay.redirect") || bytes.ends_with(b".overlay.metacopy") {
                let why = "its content is in a lower layer: mount the overlay with redirect_dir=off,metacopy=off";
                return Err(self.refused(path, why));
            }
            if xattr::is_kept(bytes)
                && let Some(value) = xattr::get(file, &name).at("read attributes of", path)?
            {
                kept.push(([b"SCHILY.xattr.", bytes].concat(), value));
            }
        }
        Ok(kept)
    }

    fn entry(
        &mut self,
        kind: EntryType,
        path: &Path,
        link: &[u8],
        stat: &Stat,
        size: u64,
        mut pax: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<()> {
        let (uid, gid) = match self.owners {
            Owners::Mine => (0, 0),
            Owners::Kept { offset } => {
                let own = |id: u32| id.checked_sub(offset);
                let ids = own(stat.st_uid).zip(own(stat.st_gid));
                ids.ok_or_else(|| {
                    let why = format!(
                        "its owner {}:{} is not one of the jail's, which begin at {offset}",
                        stat.st_uid, stat.st_gid
                    );
                    self.refused(path, why)
                })?
            }
        };
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(uid.min(MAX_ID).into());
        header.set_gid(gid.min(MAX_ID).into());
        header.set_size(size.min(MAX_SIZE));
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0).min(MAX_SIZE));
        for (key, id) in [("uid", uid), ("gid", gid)] {
            if id > MAX_ID {
                pax.push((key.into(), id.to_string().into()));
            }
        }
        if size > MAX_SIZE {
            pax.push(("size".into(), size.to_string().into()));
        }
        if stat.st_mtime_nsec != 0 || stat.st_mtime < 0 || stat.st_mtime.cast_unsigned() > MAX_SIZE {
            pax.push(("mtime".into(), time(stat.st_mtime, stat.st_mtime_nsec).into()));
        }
        let mut name = path.as_os_str().as_bytes().to_vec();
        if kind == EntryType::Directory {
            name.push(b'/');
        }
        self.write(header, &name, link, pax)
    }

    /// Writes a header, with an extended one before it where it has to be.
    fn write(&mut self, mut header: Header, name: &[u8], link: &[u8], mut pax: Vec<(Vec<u8>, Vec<u8>)>) -> Result<()> {
        for (key, value) in [("path", name), ("linkpath", link)] {
            if value.len() > NAME {
                pax.push((key.into(), value.to_vec()));
            }
        }
        if !pax.is_empty() {
            let records: Vec<u8> = pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            extended.set_mode(0o644);
            extended.set_uid(0);
            extended.set_gid(0);
            extended.set_mtime(0);
            extended.set_size(records.len() as u64);
            set_names(&mut extended, b"PaxHeaders.0", b"");
            self.header(&extended)?;
            self.to.write_all(&records).at("pack", self.top)?;
            self.pad(records.len() as u64, self.top)?;
        }
        set_names(&mut header, name, link);
        self.entries += 1;
        self.header(&header)
    }

    fn header(&mut self, header: &Header) -> Result<()> {
        self.to
            .write_all(header.as_bytes())
            .at("write the archive of", self.top)
    }
}

/// The name of the whiteout of this name.
fn format_name(name: &OsStr) -> Vec<u8> {
    [whiteout::PREFIX.as_bytes(), name.as_bytes()].concat()
}

/// Writes names, cut to what fits, and the sum.
fn set_names(header: &mut Header, name: &[u8], link: &[u8]) {
    if let Some(ustar) = header.as_ustar_mut() {
        for (field, value) in [(&mut ustar.name, name), (&mut ustar.linkname, link)] {
            let length = value.len().min(field.len());
            field[..length].copy_from_slice(&value[..length]);
        }
    }
    header.set_cksum();
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Seconds and nanoseconds since 1970 as a decimal fraction.
fn time(seconds: i64, nanoseconds: u64) -> String {
    let (sign, whole, part) = match (seconds < 0, nanoseconds) {
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, part) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - part),
        (false, part) => ("", seconds.unsigned_abs(), part),
    };
    let text = format!("{sign}{whole}.{part:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(record(b"a", b"b"), b"6 a=b\n");
        for length in 80..110 {
            let record = record(b"path", &vec![b'x'; length]);
            let stated: usize = std::str::from_utf8(&record[..record.iter().position(|b| *b == b' ').unwrap()])
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(stated, record.len());
        }
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        for (time, text) in [
            ((0, 0), "0"),
            ((12, 500_000_000), "12.5"),
            ((-2, 750_000_000), "-1.25"),
            ((-1, 0), "-1"),
            ((-1, 1), "-0.999999999"),
        ] {
            assert_eq!(super::time(time.0, time.1), text);
        }
    }
}
