//! The ramdisk: a [`ustar`](crate::ustar) archive, of which files are found by their names.
//!
//! The format guards headers alone. So the file [`CHECKSUMS`] has a line for each of the others, its
//! CRC-32 and its name, and a file that differs is not given out. The file [`KERNEL`] says what the kernel is, which
//! the boot loader has loaded as it found it.

use alloc::string::{String, ToString};
use core::fmt;

use thiserror::Error;

use crate::ustar::{Entries, Kind, UstarError};

/// The file of checksums: lines of eight hexadecimal digits, two spaces, a name.
pub const CHECKSUMS: &str = "checksums";

/// The file that says what the kernel is: its length in bytes and its CRC-32, as eight hexadecimal digits.
pub const KERNEL: &str = "kernel";

/// What to do about any of it.
pub(crate) const AGAIN: &str = "make the image again with `cargo xtask image`";

/// Why an archive is none, or a file of it is not given out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RamdiskError {
    /// No boot loader brought one.
    #[error("the boot loader has brought no ramdisk: {AGAIN}")]
    Missing,
    /// It is no archive.
    #[error("the ramdisk is damaged: {0}; {AGAIN}")]
    Archive(#[from] UstarError),
    /// It does not tell what its files should be.
    #[error("the ramdisk has no file `checksums`, by which damage is found: {AGAIN}")]
    NoChecksums,
    /// It does not tell what this file should be.
    #[error("the ramdisk's file `checksums` says nothing of {0:?}: {AGAIN}")]
    NotSummed(String),
    /// A file is not what it was.
    #[error("the ramdisk's file {name:?} is damaged: its CRC-32 is {found:08x}, and {stated:08x} was written; {AGAIN}")]
    Damaged {
        /// Its name.
        name: String,
        /// What its bytes come to.
        found: u32,
        /// What [`CHECKSUMS`] says.
        stated: u32,
    },
    /// It does not tell what the kernel should be.
    #[error("the ramdisk has no file `kernel` that says what the kernel is, by which damage is found: {AGAIN}")]
    NoKernel,
    /// The kernel, which runs this, is not what it was.
    #[error("the kernel itself is damaged: it has {found}, and {stated} were written; {AGAIN}")]
    Kernel {
        /// What was loaded.
        found: Sum,
        /// What [`KERNEL`] says.
        stated: Sum,
    },
}

/// What some bytes come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// How many they are.
    pub len: u64,
    /// Their CRC-32.
    pub crc: u32,
}

impl Sum {
    /// That of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            len: bytes.len() as u64,
            crc: crc32fast::hash(bytes),
        }
    }

    /// As [`KERNEL`] has it.
    fn parse(text: &[u8]) -> Option<Self> {
        let (len, crc) = str::from_utf8(text).ok()?.trim_end().split_once(' ')?;
        let digits = |text: &str, radix| text.bytes().all(|byte| char::from(byte).is_digit(radix));
        let good = digits(len, 10) && digits(crc, 16) && crc.len() == 8;
        good.then_some(Self {
            len: len.parse().ok()?,
            crc: u32::from_str_radix(crc, 16).ok()?,
        })
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes with the CRC-32 {:08x}", self.len, self.crc)
    }
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
        Entries::of(bytes).try_for_each(|entry| entry.map(|_| ()))?;
        Ok(Self { bytes })
    }

    /// The files, in their order. What is no regular file is left out.
    pub fn files(&self) -> impl Iterator<Item = File<'a>> + use<'a> {
        // `open` has seen that there is no error.
        let entries = Entries::of(self.bytes).flatten();
        let files = entries.filter(|entry| entry.kind == Kind::File && entry.prefix.is_empty());
        files.map(|entry| File {
            name: entry.name,
            content: entry.content,
        })
    }

    /// The content of the first file of this name, as it was written; `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// [`RamdiskError`] when it is damaged, or nothing tells whether it is.
    pub fn file(&self, name: &str) -> Result<Option<&'a [u8]>, RamdiskError> {
        let Some(content) = self.unchecked(name) else {
            return Ok(None);
        };
        let checksums = self.unchecked(CHECKSUMS).ok_or(RamdiskError::NoChecksums)?;
        let stated = stated(checksums, name).ok_or_else(|| RamdiskError::NotSummed(name.to_string()))?;
        let found = crc32fast::hash(content);
        if found == stated {
            Ok(Some(content))
        } else {
            let name = name.to_string();
            Err(RamdiskError::Damaged { name, found, stated })
        }
    }

    /// Compares the kernel that was loaded with the one that was written.
    ///
    /// # Errors
    ///
    /// [`RamdiskError`] when it is another, or nothing tells whether it is.
    pub fn check_kernel(&self, found: Sum) -> Result<(), RamdiskError> {
        let stated = self.file(KERNEL)?.and_then(Sum::parse).ok_or(RamdiskError::NoKernel)?;
        if found == stated {
            Ok(())
        } else {
            Err(RamdiskError::Kernel { found, stated })
        }
    }

    fn unchecked(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.files().find(|file| file.name == name.as_bytes());
        found.map(|file| file.content)
    }
}

/// The checksum of the file of this name.
fn stated(checksums: &[u8], name: &str) -> Option<u32> {
    let mut lines = checksums.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let (digits, rest) = line.split_at_checked(8)?;
        let named = rest.strip_prefix(b"  ")? == name.as_bytes() && digits.iter().all(u8::is_ascii_hexdigit);
        named.then_some(u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Headers and contents begin at multiples of this.
    const BLOCK: usize = 512;

    /// With checksums.
    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let sums = files
            .iter()
            .map(|(name, content)| format!("{:08x}  {name}\n", crc32fast::hash(content)));
        let sums: String = sums.collect();
        plain_archive(&[files, &[(CHECKSUMS, sums.as_bytes())]].concat())
    }

    fn plain_archive(files: &[(&str, &[u8])]) -> Vec<u8> {
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
        assert_eq!(ramdisk.file("command"), Ok(Some(&b"guest=a\n"[..])));
        assert_eq!(ramdisk.file("guests/a"), Ok(Some(&[7; 513][..])));
        assert_eq!(ramdisk.file("empty"), Ok(Some(&b""[..])));
        assert_eq!(ramdisk.file("guests"), Ok(None));
        assert_eq!(ramdisk.files().count(), 4);
    }

    #[test]
    fn a_file_of_which_a_bit_has_changed_is_not_given_out() {
        let mut bytes = archive(&[("command", b"guest=a\n"), ("guests/a", &[7; 513])]);
        bytes[3 * BLOCK + 400] ^= 0x10;
        let ramdisk = Ramdisk::open(&bytes).unwrap();
        assert!(matches!(ramdisk.file("command"), Ok(Some(_))));
        let error = ramdisk.file("guests/a").unwrap_err();
        assert!(matches!(&error, RamdiskError::Damaged { name, .. } if name == "guests/a"));
        assert!(error.to_string().contains("make the image again"), "{error}");
    }

    #[test]
    fn a_file_of_which_nothing_is_known_is_not_given_out() {
        let bytes = plain_archive(&[("a", b"a")]);
        let open = Ramdisk::open(&bytes).unwrap();
        assert_eq!(open.file("a"), Err(RamdiskError::NoChecksums));
        for sums in [
            "",
            "e8b7be43 a",
            "e8b7be43  aa",
            "e8b7be4x  a",
            "\u{fc}\u{fc}\u{fc}\u{fc}  a",
        ] {
            let bytes = plain_archive(&[("a", b"a"), (CHECKSUMS, sums.as_bytes())]);
            let open = Ramdisk::open(&bytes).unwrap();
            assert_eq!(open.file("a"), Err(RamdiskError::NotSummed("a".into())), "{sums}");
        }
        let bytes = plain_archive(&[("a", b"a"), (CHECKSUMS, b"00000000  b\ne8b7be43  a")]);
        assert_eq!(Ramdisk::open(&bytes).unwrap().file("a"), Ok(Some(&b"a"[..])));
    }

    #[test]
    fn the_kernel_is_what_was_written_or_that_is_said() {
        let kernel = Sum::of(b"kernel");
        assert_eq!(kernel.to_string(), "6 bytes with the CRC-32 5dd29aab");
        let check = |text: &str| {
            let bytes = archive(&[(KERNEL, text.as_bytes())]);
            Ramdisk::open(&bytes).unwrap().check_kernel(kernel)
        };
        assert_eq!(check("6 5dd29aab\n"), Ok(()));
        for (len, crc) in [(7, kernel.crc), (6, 0)] {
            let stated = Sum { len, crc };
            let error = check(&format!("{len} {crc:08x}\n")).unwrap_err();
            assert_eq!(error, RamdiskError::Kernel { found: kernel, stated });
        }
        let error = check("6 00000000\n").unwrap_err().to_string();
        assert!(
            error.starts_with("the kernel itself is damaged: it has 6 bytes with the CRC-32 5dd29aab, and 6 bytes")
        );
        for nonsense in [
            "",
            "6",
            "6 ",
            "+6 5dd29aab",
            "6 dd29aab",
            "6 5dd29aag",
            "\u{fc}",
            "99999999999999999999 5dd29aab",
        ] {
            assert_eq!(check(nonsense), Err(RamdiskError::NoKernel), "{nonsense}");
        }
        let bytes = archive(&[("a", b"a")]);
        assert_eq!(
            Ramdisk::open(&bytes).unwrap().check_kernel(kernel),
            Err(RamdiskError::NoKernel)
        );
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
        assert_eq!(Ramdisk::open(&bytes).unwrap_err(), UstarError::Checksum(BLOCK).into());
    }

    #[test]
    fn an_archive_that_was_cut_short_is_refused() {
        let bytes = plain_archive(&[("command", b"guest=a\n")]);
        let cut = |len: usize| match Ramdisk::open(&bytes[..len]) {
            Err(RamdiskError::Archive(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(cut(0), UstarError::NoEnd(0));
        assert_eq!(cut(512 + 7), UstarError::Short { at: 0, size: 8 });
        assert_eq!(cut(1024), UstarError::NoEnd(1024));
    }

    #[test]
    fn another_kind_of_file_is_no_archive() {
        let error = Ramdisk::open(&[b'x'; 1024]).unwrap_err();
        assert_eq!(error, UstarError::Kind(0).into());
        assert!(error.to_string().contains("is no ustar archive"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = Ramdisk::open(&bytes);
        }

        #[test]
        fn any_change_of_an_archive_is_answered(at in 0_usize..4096, with: u8) {
            let files: [(&str, &[u8]); 2] = [("command", b"guest=a\n"), ("guests/a", &[7; 100])];
            let mut bytes = archive(&files);
            let at = at % bytes.len();
            bytes[at] = with;
            if let Ok(ramdisk) = Ramdisk::open(&bytes) {
                prop_assert!(ramdisk.files().count() <= 3);
                // What is given out is what was written, or it is not given out. Nothing guards the sums themselves
                // from becoming others that fit, which a change of one byte does not do.
                for (name, content) in files {
                    prop_assert!(!matches!(ramdisk.file(name), Ok(Some(given)) if given != content));
                }
            }
        }
    }
}
