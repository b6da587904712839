//! A ustar archive in memory (POSIX.1-1988, section 10.1.1), read from one header to the next.
//!
//! ```text
//!   header, 512 bytes   0 name   100 mode   108 user   116 group   124 size   136 time   148 checksum
//!                       156 type   257 "ustar"   345 what goes before the name; numbers are octal
//!   content, in whole blocks of 512 bytes
//!   …
//!   two blocks of zeros
//! ```
//!
//! The format guards headers alone, by a sum.

use thiserror::Error;

/// Headers and contents begin at multiples of this.
const BLOCK: usize = 512;

/// Why an archive is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UstarError {
    /// A header's sum is not the one it states.
    #[error("the checksum of the header at byte {0} is wrong")]
    Checksum(usize),
    /// A header without the word `ustar`, or without a number that has to be there.
    #[error("it is no ustar archive: the header at byte {0} is of another kind")]
    Kind(usize),
    /// A content that goes on beyond the archive.
    #[error("the file at byte {at} is to have {size} bytes, and the archive ends before")]
    Short {
        /// Where its header is.
        at: usize,
        /// What the header says.
        size: u64,
    },
    /// It does not end with a block of zeros.
    #[error("it ends at byte {0}, without a mark of its end")]
    NoEnd(usize),
}

/// What an archive holds: a file, a directory, or anything else that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What goes before the name, with a `/` between them; mostly nothing.
    pub prefix: &'a [u8],
    /// Its path.
    pub name: &'a [u8],
    /// What it is.
    pub kind: Kind,
    /// Permissions.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was changed last, in seconds since 1970.
    pub modified: u64,
    /// Its content.
    pub content: &'a [u8],
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// Something else.
    Other,
}

/// The entries of an archive. After an error there are no more.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    /// Where the next header is.
    at: Option<usize>,
}

impl<'a> Entries<'a> {
    /// Those of these bytes, which need be no archive.
    #[must_use]
    pub const fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: Some(0) }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, UstarError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = entry(self.bytes, self.at.take()?).transpose()?;
        Some(found.map(|(entry, next)| {
            self.at = Some(next);
            entry
        }))
    }
}

/// The entry whose header is at byte `at`, and where the next header is; `None` at the archive's end.
fn entry(bytes: &[u8], at: usize) -> Result<Option<(Entry<'_>, usize)>, UstarError> {
    let header = bytes.get(at..at + BLOCK).ok_or(UstarError::NoEnd(at))?;
    if header.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if &header[257..262] != b"ustar" {
        return Err(UstarError::Kind(at));
    }
    if octal(&header[148..156]) != Some(sum(header)) {
        return Err(UstarError::Checksum(at));
    }
    let number = |field: &[u8]| octal(field).ok_or(UstarError::Kind(at));
    let size = number(&header[124..136])?;
    let short = UstarError::Short { at, size };
    let start = at + BLOCK;
    let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
    let content = end.and_then(|end| bytes.get(start..end)).ok_or(short)?;
    let text = |field: &'static [usize; 2]| {
        let field = &header[field[0]..field[1]];
        field.split(|byte| *byte == 0).next().unwrap_or_default()
    };
    // GNU's own format has the word with spaces behind it, and other things there.
    let prefix = if header[262] == 0 { text(&[345, 500]) } else { &[] };
    let entry = Entry {
        prefix,
        name: text(&[0, 100]),
        kind: match header[156] {
            // 0 and an old NUL are regular files.
            b'0' | 0 => Kind::File,
            b'5' => Kind::Directory,
            b'2' => Kind::Link,
            _ => Kind::Other,
        },
        // Seven digits and eleven of them fit.
        mode: number(&header[100..108])? as u32 & 0o7777,
        uid: number(&header[108..116])? as u32,
        gid: number(&header[116..124])? as u32,
        modified: number(&header[136..148])?,
        content,
    };
    Ok(Some((entry, (start + content.len()).next_multiple_of(BLOCK))))
}

/// A number in octal digits, with spaces before it and a space or NUL behind it.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, b' ' | 0));
    let digits = &digits[..end.unwrap_or(digits.len())];
    let mut value: u64 = 0;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value = value.checked_mul(8)?.checked_add(digit.into())?;
    }
    Some(value)
}

/// The sum of a header's bytes, its own field taken for spaces.
fn sum(header: &[u8]) -> u64 {
    let bytes = header.iter().enumerate();
    bytes
        .map(|(i, byte)| u64::from(if (148..156).contains(&i) { b' ' } else { *byte }))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_was_put_in() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = format!("{}/{}", "d".repeat(120), "n".repeat(90));
        for (name, kind) in [("sub/", tar::EntryType::Directory), (&long, tar::EntryType::Regular)] {
            let mut header = tar::Header::new_ustar();
            header.set_path(name).unwrap();
            header.set_entry_type(kind);
            header.set_mode(0o751);
            header.set_uid(7);
            header.set_gid(8);
            header.set_mtime(1_700_000_000);
            let content: &[u8] = if kind.is_file() { b"abc" } else { b"" };
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let entries: Vec<_> = Entries::of(&bytes).map(Result::unwrap).collect();
        let [directory, file] = entries[..] else {
            panic!("two entries")
        };
        assert_eq!(
            (directory.prefix, directory.name, directory.kind),
            (&b""[..], &b"sub/"[..], Kind::Directory)
        );
        assert_eq!((file.prefix.len(), file.name.len(), file.kind), (120, 90, Kind::File));
        assert_eq!(
            (file.mode, file.uid, file.gid, file.modified, file.content),
            (0o751, 7, 8, 1_700_000_000, &b"abc"[..])
        );
    }

    #[test]
    fn there_is_nothing_behind_an_error() {
        let mut entries = Entries::of(b"x");
        assert_eq!(entries.next(), Some(Err(UstarError::NoEnd(0))));
        assert_eq!(entries.next(), None);
    }
}
