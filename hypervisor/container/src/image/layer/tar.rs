//! Reads tar archives (POSIX.1-2017 pax, ustar and GNU) entry by entry.
//!
//! The crate `tar` decodes and encodes headers. The reading is ours, because there the length of the
//! extended headers of an entry has no bound, and the archive is hostile.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::super::Limits;

/// Archives are made of blocks.
const BLOCK: u64 = 512;
/// The most pieces a sparse file may be of.
const PIECES: usize = 100_000;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
    Fifo,
    /// A character or block device.
    Device,
    /// Anything else.
    Other(u8),
}

/// What stands in the headers of an entry.
#[derive(Clone, Debug)]
pub(in super::super) struct Entry {
    pub(in super::super) kind: Kind,
    pub(in super::super) path: Vec<u8>,
    pub(in super::super) link: Vec<u8>,
    pub(in super::super) mode: u32,
    pub(in super::super) uid: u64,
    pub(in super::super) gid: u64,
    /// Seconds since 1970 and nanoseconds.
    pub(in super::super) mtime: (i64, u32),
    /// Bytes of the file, holes included.
    pub(in super::super) size: u64,
    /// Extended attributes.
    pub(in super::super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where in the file the stored bytes belong, if not one behind the other from its start.
    sparse: Option<Vec<Piece>>,
    /// Stored bytes.
    stored: u64,
}

/// Stored bytes of a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    offset: u64,
    length: u64,
}

/// Why an archive cannot be read on.
#[derive(Debug)]
pub(in super::super) enum Broken {
    /// The stream ended or failed.
    Io(io::Error),
    /// The archive is not one: at this entry, for this reason.
    Format(Vec<u8>, String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

type Result<T> = std::result::Result<T, Broken>;

/// What extended headers say of the entry behind them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    sparse_major: Option<u64>,
    sparse_old: bool,
}

/// An archive that is being read.
pub(in super::super) struct Archive<R> {
    inner: R,
    /// What is left of the entry's stored bytes.
    left: u64,
    /// What follows to fill the block.
    padding: u64,
    /// Bytes read.
    position: u64,
}

impl<R: Read> Archive<R> {
    pub(in super::super) const fn new(inner: R) -> Self {
        Self {
            inner,
            left: 0,
            padding: 0,
            position: 0,
        }
    }

    /// Where the stored bytes of the entry begin, until they are read.
    pub(in super::super) const fn position(&self) -> u64 {
        self.position
    }

    pub(in super::super) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; what was not read of the last is passed over. None at the end.
    pub(in super::super) fn next(&mut self) -> Result<Option<Entry>> {
        self.pass(self.left + self.padding)?;
        (self.left, self.padding) = (0, 0);
        let mut extended = Extended::default();
        loop {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let name = header.path_bytes().into_owned();
            let wrong = |why: &str| Broken::Format(name.clone(), why.into());
            let size = number(&header.as_old().size, header.entry_size());
            let size = size.map_err(|error| wrong(&error.to_string()))?;
            match header.entry_type() {
                EntryType::XHeader => extended.read_pax(&self.extension(&name, size)?, &name)?,
                EntryType::XGlobalHeader => drop(self.extension(&name, size)?),
                EntryType::GNULongName => extended.path = Some(until_zero(self.extension(&name, size)?)),
                EntryType::GNULongLink => extended.link = Some(until_zero(self.extension(&name, size)?)),
                _ => return self.entry(&header, extended).map(Some),
            }
        }
    }

    /// Reads some of the file's bytes. [`Archive::copy`] puts them where they belong.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..room])?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive ends within a file",
            ));
        }
        self.left -= count as u64;
        self.position += count as u64;
        Ok(count)
    }

    /// Gives `write` all bytes of the entry with their offsets in the file, in order, holes left out.
    pub(in super::super) fn copy<E: From<io::Error>>(
        &mut self,
        entry: &Entry,
        mut write: impl FnMut(u64, &[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let whole = [Piece {
            offset: 0,
            length: entry.stored,
        }];
        let mut buffer = vec![0; 64 << 10];
        for piece in entry.sparse.as_deref().unwrap_or(&whole) {
            let mut done = 0;
            while done < piece.length {
                let room = usize::try_from(piece.length - done)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len());
                let count = self.read(&mut buffer[..room])?;
                if count == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                write(piece.offset + done, &buffer[..count])?;
                done += count as u64;
            }
        }
        Ok(())
    }

    /// A header, its sum checked; none where two blocks of zeros, or nothing, end the archive.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0; BLOCK as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => {
                    return Err(Broken::Format(
                        Vec::new(),
                        "the archive ends within a header: it is no tar archive, or cut short".into(),
                    ));
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.position += BLOCK;
        if block == [0; BLOCK as usize] {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum: u32 = block[..148]
            .iter()
            .chain(&block[156..])
            .map(|b| u32::from(*b))
            .sum::<u32>()
            + 8 * 32;
        match header.cksum() {
            Ok(stated) if stated == sum => Ok(Some(header)),
            _ => {
                let name = header.path_bytes().into_owned();
                Err(Broken::Format(
                    name,
                    "the sum of its header is wrong: this is no tar archive, or damaged".into(),
                ))
            }
        }
    }

    fn extension(&mut self, name: &[u8], size: u64) -> Result<Vec<u8>> {
        if size > Limits::HEADER {
            let why = format!(
                "an extended header of {size} bytes is more than the {} allowed",
                Limits::HEADER
            );
            return Err(Broken::Format(name.to_vec(), why));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.inner.read_exact(&mut bytes)?;
        self.position += size;
        self.pass(size.next_multiple_of(BLOCK) - size)?;
        Ok(bytes)
    }

    fn entry(&mut self, header: &Header, extended: Extended) -> Result<Entry> {
        let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let path = extended.sparse_name.unwrap_or(path);
        let wrong = |why: String| Broken::Format(path.clone(), why);
        let number = |field: &[u8], result| number(field, result).map_err(|error| wrong(error.to_string()));
        let old = header.as_old();
        let mut kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => Kind::Device,
            other => Kind::Other(other.as_byte()),
        };
        // So wrote archivers older than the type.
        if kind == Kind::File && path.ends_with(b"/") {
            kind = Kind::Folder;
        }
        let stored = match extended.size {
            Some(size) => size,
            None => number(&old.size, header.entry_size())?,
        };
        self.left = stored;
        self.padding = stored
            .checked_next_multiple_of(BLOCK)
            .ok_or_else(|| wrong(format!("its size {stored} cannot be")))?
            - stored;
        let mut entry = Entry {
            kind,
            link: extended
                .link
                .or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
                .unwrap_or_default(),
            mode: number(&old.mode, header.mode().map(u64::from))? as u32,
            uid: extended.uid.map_or_else(|| number(&old.uid, header.uid()), Ok)?,
            gid: extended.gid.map_or_else(|| number(&old.gid, header.gid()), Ok)?,
            mtime: match extended.mtime {
                Some(time) => time,
                None => (number(&old.mtime, header.mtime())?.cast_signed(), 0),
            },
            size: stored,
            stored,
            xattrs: extended.xattrs,
            sparse: None,
            path,
        };
        let pieces = if header.entry_type() == EntryType::GNUSparse {
            Some(self.gnu_pieces(header, &mut entry)?)
        } else if extended.sparse_major == Some(1) {
            entry.size = extended.sparse_size.unwrap_or(stored);
            Some(self.pax_pieces(&mut entry)?)
        } else if extended.sparse_old || extended.sparse_major.is_some() {
            let why = "it is a sparse file of an old kind: make the archive with GNU tar's --sparse-version=1.0";
            return Err(Broken::Format(entry.path, why.into()));
        } else {
            None
        };
        if let Some(pieces) = &pieces {
            check_pieces(pieces, &entry).map_err(|why| Broken::Format(entry.path.clone(), why))?;
        }
        entry.sparse = pieces;
        Ok(entry)
    }

    /// The map of a sparse file of GNU's own kind: in the header, and in blocks behind it.
    fn gnu_pieces(&mut self, header: &Header, entry: &mut Entry) -> Result<Vec<Piece>> {
        let wrong = |why: &str| Broken::Format(entry.path.clone(), why.into());
        let gnu = header
            .as_gnu()
            .ok_or_else(|| wrong("it is a sparse file without a map"))?;
        let mut pieces = Vec::new();
        let mut take = |parts: &[tar::GnuSparseHeader]| -> Result<()> {
            for part in parts.iter().filter(|part| !part.is_empty()) {
                let (offset, length) = (part.offset(), part.length());
                let (Ok(offset), Ok(length)) = (offset, length) else {
                    return Err(wrong("the map of a sparse file is no numbers"));
                };
                pieces.push(Piece { offset, length });
                if pieces.len() > PIECES {
                    return Err(wrong("a sparse file has too many pieces"));
                }
            }
            Ok(())
        };
        take(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.inner.read_exact(block.as_mut_bytes())?;
            self.position += BLOCK;
            take(block.sparse())?;
            more = block.is_extended();
        }
        entry.size = gnu.real_size().map_err(|error| wrong(&error.to_string()))?;
        Ok(pieces)
    }

    /// The map of a sparse file of pax format 1.0: lines of decimal numbers before the file's bytes.
    fn pax_pieces(&mut self, entry: &mut Entry) -> Result<Vec<Piece>> {
        let path = entry.path.clone();
        let wrong = || Broken::Format(path.clone(), "the map of a sparse file is no numbers".into());
        let mut block = [0; BLOCK as usize];
        let mut at = block.len();
        let before = self.left;
        let mut number = || -> Result<u64> {
            let mut value = 0_u64;
            for digits in 0.. {
                if at == block.len() {
                    let mut filled = 0;
                    while filled < block.len() {
                        match self.read(&mut block[filled..])? {
                            0 => return Err(wrong()),
                            count => filled += count,
                        }
                    }
                    at = 0;
                }
                let byte = block[at];
                at += 1;
                match byte {
                    b'\n' if digits > 0 => break,
                    b'0'..=b'9' if digits < 20 => {
                        let next = value
                            .checked_mul(10)
                            .and_then(|v| v.checked_add(u64::from(byte - b'0')));
                        value = next.ok_or_else(wrong)?;
                    }
                    _ => return Err(wrong()),
                }
            }
            Ok(value)
        };
        let count = number()?;
        if count > PIECES as u64 {
            return Err(Broken::Format(path.clone(), "a sparse file has too many pieces".into()));
        }
        let mut pieces = Vec::new();
        for _ in 0..count {
            let offset = number()?;
            let length = number()?;
            pieces.push(Piece { offset, length });
        }
        entry.stored -= before - self.left;
        Ok(pieces)
    }

    fn pass(&mut self, count: u64) -> Result<()> {
        let passed = io::copy(&mut (&mut self.inner).take(count), &mut io::sink())?;
        self.position += passed;
        if passed == count {
            return Ok(());
        }
        Err(Broken::Format(Vec::new(), "the archive ends within a file".into()))
    }
}

/// The pieces must be in order, within the file, and be what is stored.
fn check_pieces(pieces: &[Piece], entry: &Entry) -> std::result::Result<(), String> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for piece in pieces {
        let next = piece
            .offset
            .checked_add(piece.length)
            .filter(|next| *next <= entry.size && piece.offset >= end);
        end = next.ok_or("the pieces of a sparse file overlap, or lie beyond its end")?;
        sum += piece.length;
    }
    if sum != entry.stored {
        return Err(format!(
            "the pieces of a sparse file are {sum} bytes, but {} are stored",
            entry.stored
        ));
    }
    Ok(())
}

impl Extended {
    fn read_pax(&mut self, bytes: &[u8], name: &[u8]) -> Result<()> {
        let wrong = |what: &str| Broken::Format(name.to_vec(), format!("its extended header is wrong at {what}"));
        let mut rest = bytes;
        while !rest.is_empty() {
            let (key, value, behind) = record(rest).ok_or_else(|| wrong("a record"))?;
            rest = behind;
            let text = || std::str::from_utf8(value).map_err(|_| wrong("a value"));
            let number = || text()?.parse::<u64>().map_err(|_| wrong("a number"));
            match key {
                // An empty value takes the record away, and the header's own field counts.
                b"path" => self.path = Some(value.to_vec()).filter(|path| !path.is_empty()),
                b"linkpath" => self.link = Some(value.to_vec()).filter(|path| !path.is_empty()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.uid = Some(number()?),
                b"gid" => self.gid = Some(number()?),
                b"mtime" => self.mtime = Some(time(text()?).ok_or_else(|| wrong("mtime"))?),
                b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
                b"GNU.sparse.realsize" => self.sparse_size = Some(number()?),
                b"GNU.sparse.major" => self.sparse_major = Some(number()?),
                b"GNU.sparse.map" | b"GNU.sparse.numblocks" => self.sparse_old = true,
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Key and value of the first record, `LENGTH KEY=VALUE\n`, and what follows it. The crate `tar` splits
/// at line ends, which the value of an attribute may contain.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

/// `seconds[.fraction]`, as pax writes times.
fn time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let (seconds, nanoseconds): (i64, u32) = (whole.parse().ok()?, digits.parse().ok()?);
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

/// A number of a header; a field that was not filled in is zero.
fn number(field: &[u8], result: io::Result<u64>) -> io::Result<u64> {
    match result {
        Err(_) if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
        result => result,
    }
}

fn until_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_hold_line_ends() {
        assert_eq!(
            record(b"8 a=b\nc\n6 x=y\n"),
            Some((&b"a"[..], &b"b\nc"[..], &b"6 x=y\n"[..]))
        );
        for text in [
            "", "6 a=b", "99 a=b\n", "6a=b\n", "0 a=b\n", "6 a-b\n", "-6 a=b\n", "1 a=b\n",
        ] {
            assert_eq!(record(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn times_have_fractions_and_may_be_before_1970() {
        assert_eq!(time("12"), Some((12, 0)));
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("12.0000000019"), Some((12, 1)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        for text in ["", ".", "x", "1.x", "1.-5", "99999999999999999999"] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
