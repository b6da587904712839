//! The ramdisk: a ustar archive (POSIX.1-1988, section 10.1.1), of which files are found by their
//! names.
//!
//! ```text
//!   header, 512 bytes   0 name   124 size, octal   148 checksum   156 type   257 "ustar"
//!   content, in whole blocks of 512 bytes
//!   …
//!   two blocks of zeros
//! ```

use thiserror::Error;

/// Headers and contents begin at multiples of this.
const BLOCK: usize = 512;
/// The longest name: what is longer needs a prefix, and nobody makes such names for us.
const NAME: usize = 100;

/// Why an archive is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RamdiskError {
    /// No boot loader brought one.
    #[error("the boot loader has brought no ramdisk: make the image again with `cargo xtask image`")]
    Missing,
    /// A header's sum is not the one it states.
    #[error("the ramdisk is damaged: the checksum of the header at byte {0} is wrong")]
    Checksum(usize),
    /// A header without the word `ustar`.
    #[error("the ramdisk is no ustar archive: the header at byte {0} is of another kind")]
    Kind(usize),
    /// A content that goes on beyond the archive.
    #[error("the ramdisk is damaged: the file at byte {at} is to have {size} bytes, and the archive ends before")]
    Short {
        /// Where its header is.
        at: usize,
        /// What the header says.
        size: u64,
    },
    /// It does not end with a block of zeros.
    #[error("the ramdisk is damaged: it ends at byte {0}, without a mark of its end")]
    NoEnd(usize),
}

/// An archive in memory, whose headers have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Ramdisk<'a> {
    bytes: &'a [u8],
}

/// A file in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Its path.
    pub name: &'a [u8],
    /// Its content.
    pub content: &'a [u8],
}

impl<'a> Ramdisk<'a> {
    /// Checks an archive from its first header to its end.
    ///
    /// # Errors
    ///
    /// [`RamdiskError`].
    pub fn open(bytes: &'a [u8]) -> Result<Self, RamdiskError> {
        let mut at = 0;
        while let Some((_, next)) = entry(bytes, at)? {
            at = next;
        }
        Ok(Self { bytes })
    }

    /// The files, in their order. What is no regular file is left out.
    pub fn files(&self) -> impl Iterator<Item = File<'a>> + use<'a> {
        let bytes = self.bytes;
        let mut at = 0;
        let entries = core::iter::from_fn(move || {
            // `open` has seen that there is no error.
            let (file, next) = entry(bytes, at).ok().flatten()?;
            at = next;
            Some(file)
        });
        entries.flatten()
    }

    /// The content of the first file of this name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.files().find(|file| file.name == name.as_bytes());
        found.map(|file| file.content)
    }
}

/// The file whose header is at byte `at`, if it is a regular one, and where the next header is;
/// `None` at the archive's end.
fn entry(bytes: &[u8], at: usize) -> Result<Option<(Option<File<'_>>, usize)>, RamdiskError> {
    let header = bytes.get(at..at + BLOCK).ok_or(RamdiskError::NoEnd(at))?;
    if header.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if &header[257..262] != b"ustar" {
        return Err(RamdiskError::Kind(at));
    }
    if octal(&header[148..156]) != Some(sum(header)) {
        return Err(RamdiskError::Checksum(at));
    }
    let size = octal(&header[124..136]).ok_or(RamdiskError::Kind(at))?;
    let short = RamdiskError::Short { at, size };
    let start = at + BLOCK;
    let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
    let content = end.and_then(|end| bytes.get(start..end)).ok_or(short)?;
    let name = header[..NAME].split(|byte| *byte == 0).next().unwrap_or_default();
    // 0 and an old NUL are regular files.
    let file = matches!(header[156], b'0' | 0).then_some(File { name, content });
    Ok(Some((file, (start + content.len()).next_multiple_of(BLOCK))))
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
    use proptest::prelude::*;

    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn files_are_found_by_their_names() {
        let bytes = archive(&[("command", b"guest=a\n"), ("guests/a", &[7; 513]), ("empty", b"")]);
        let ramdisk = Ramdisk::open(&bytes).unwrap();
        assert_eq!(ramdisk.file("command"), Some(&b"guest=a\n"[..]));
        assert_eq!(ramdisk.file("guests/a"), Some(&[7; 513][..]));
        assert_eq!(ramdisk.file("empty"), Some(&b""[..]));
        assert_eq!(ramdisk.file("guests"), None);
        assert_eq!(ramdisk.files().count(), 3);
    }

    #[test]
    fn folders_are_no_files() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        builder.append_data(&mut header, "guests/", &b""[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        assert_eq!(Ramdisk::open(&bytes).unwrap().files().count(), 0);
    }

    #[test]
    fn a_changed_header_is_a_wrong_checksum() {
        let mut bytes = archive(&[("a", b""), ("command", b"guest=a\n")]);
        bytes[BLOCK] ^= 1;
        assert_eq!(Ramdisk::open(&bytes).unwrap_err(), RamdiskError::Checksum(BLOCK));
    }

    #[test]
    fn an_archive_that_was_cut_short_is_refused() {
        let bytes = archive(&[("command", b"guest=a\n")]);
        let cut = |len: usize| Ramdisk::open(&bytes[..len]).unwrap_err();
        assert_eq!(cut(0), RamdiskError::NoEnd(0));
        assert_eq!(cut(512 + 7), RamdiskError::Short { at: 0, size: 8 });
        assert_eq!(cut(1024), RamdiskError::NoEnd(1024));
    }

    #[test]
    fn another_kind_of_file_is_no_archive() {
        let error = Ramdisk::open(&[b'x'; 1024]).unwrap_err();
        assert_eq!(error, RamdiskError::Kind(0));
        assert!(error.to_string().contains("is no ustar archive"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = Ramdisk::open(&bytes);
        }

        #[test]
        fn any_change_of_an_archive_is_answered(at in 0_usize..2560, with: u8) {
            let mut bytes = archive(&[("command", b"guest=a\n"), ("guests/a", &[7; 100])]);
            let at = at % bytes.len();
            bytes[at] = with;
            if let Ok(ramdisk) = Ramdisk::open(&bytes) {
                prop_assert!(ramdisk.files().count() <= 2);
            }
        }
    }
}
