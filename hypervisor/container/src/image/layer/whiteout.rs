//! What a layer takes away from those below it (layer.md, Whiteouts; overlayfs.rst).
//!
//! | | in an archive | in overlayfs |
//! |---|---|---|
//! | a name that is gone | an empty file `.wh.NAME` | a character device 0:0 `NAME` |
//! | a folder that hides the one below | a file `.wh..wh..opq` in it | the attribute `overlay.opaque` = `y` |

use std::ffi::{CStr, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, Stat, XattrFlags};
use rustix::io::Errno;

use super::xattr;

/// What the name of a whiteout begins with.
pub const PREFIX: &str = ".wh.";
/// The whiteout that makes its folder opaque.
pub const OPAQUE: &str = ".wh..wh..opq";
/// Names of aufs's own, which mean nothing to anybody else.
const AUFS: &str = ".wh..wh.";

/// Overlayfs reads the first, or, mounted with `userxattr` as in a user namespace, the second.
const OPAQUE_XATTRS: [&CStr; 2] = [c"trusted.overlay.opaque", c"user.overlay.opaque"];
/// A file with this, of no bytes, is a whiteout in an overlay in an overlay (since Linux 6.7).
const WHITEOUT_XATTRS: [&CStr; 2] = [c"trusted.overlay.whiteout", c"user.overlay.whiteout"];

/// What a name in an archive means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// A file.
    Plain,
    /// The folder it is in is opaque.
    Opaque,
    /// This name is gone.
    Gone(&'a OsStr),
    /// Nothing.
    Aufs,
    /// It cannot mean anything.
    Wrong(&'static str),
}

/// What the last part of an entry's path means.
pub(super) fn meaning(name: &OsStr) -> Meaning<'_> {
    let Some(rest) = name.as_bytes().strip_prefix(PREFIX.as_bytes()) else {
        return Meaning::Plain;
    };
    if name == OPAQUE {
        return Meaning::Opaque;
    }
    if name.as_bytes().starts_with(AUFS.as_bytes()) {
        return Meaning::Aufs;
    }
    match rest {
        b"" => Meaning::Wrong("it is a whiteout of nothing"),
        b"." | b".." => Meaning::Wrong("it is a whiteout of a folder that it is in"),
        rest => Meaning::Gone(OsStr::from_bytes(rest)),
    }
}

/// Whether this is overlayfs's whiteout.
pub(in super::super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether this empty file is overlayfs's other whiteout.
pub(super) fn is_whiteout_file(file: impl AsFd) -> rustix::io::Result<bool> {
    for name in WHITEOUT_XATTRS {
        if xattr::get(&file, name)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes a name gone. Any user may make this one device.
pub(super) fn make(parent: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
    rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Makes a folder opaque, for overlays mounted in either way; without rights for the first, or on a
/// file system that has only one of them, by the other alone.
pub(super) fn make_opaque(folder: impl AsFd) -> rustix::io::Result<()> {
    let mut result = Err(Errno::OPNOTSUPP);
    for name in OPAQUE_XATTRS {
        match rustix::fs::fsetxattr(&folder, name, b"y", XattrFlags::empty()) {
            Ok(()) => result = Ok(()),
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    result
}

/// Whether a folder is opaque.
pub(in super::super) fn is_opaque(folder: impl AsFd) -> rustix::io::Result<bool> {
    for name in OPAQUE_XATTRS {
        if xattr::is(&folder, name, b"y")? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_the_specification_says() {
        for (name, wanted) in [
            ("a", Meaning::Plain),
            ("wh.a", Meaning::Plain),
            (".wh.a", Meaning::Gone(OsStr::new("a"))),
            (".wh..a", Meaning::Gone(OsStr::new(".a"))),
            (".wh..wh..opq", Meaning::Opaque),
            (".wh..wh.plnk", Meaning::Aufs),
            (".wh..wh.aufs", Meaning::Aufs),
        ] {
            assert_eq!(meaning(OsStr::new(name)), wanted, "{name}");
        }
        for name in [".wh.", ".wh..", ".wh..."] {
            assert!(matches!(meaning(OsStr::new(name)), Meaning::Wrong(_)), "{name}");
        }
    }
}
