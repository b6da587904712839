//! Extended attributes: which are kept.
//!
//! Kept are the user's own (`user.`) and file capabilities. Not kept are `user.overlay.` and
//! `trusted.`, by which overlayfs would be told to take content from elsewhere; the labels of
//! security modules; and access lists.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

/// The longest value, XATTR_SIZE_MAX.
pub(super) const MAX: usize = 64 << 10;

/// Whether an attribute of this name is kept.
pub(super) fn is_kept(name: &[u8]) -> bool {
    (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")) || name == b"security.capability"
}

/// The attributes that an open file has.
pub(super) fn list(file: impl AsFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = vec![0_u8; MAX];
    let length = match rustix::fs::flistxattr(&file, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error),
    };
    let names = names[..length].split_inclusive(|byte| *byte == 0);
    let mut names: Vec<_> = names
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok().map(CStr::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

/// The value of an attribute; none if there is no such attribute.
pub(super) fn get(file: impl AsFd, name: &CStr) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; MAX];
    match rustix::fs::fgetxattr(&file, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an attribute has this value, of at most 8 bytes.
pub(super) fn is(file: impl AsFd, name: &CStr, wanted: &[u8]) -> rustix::io::Result<bool> {
    let mut value = [0_u8; 8];
    match rustix::fs::fgetxattr(&file, name, &mut value[..]) {
        Ok(length) => Ok(&value[..length] == wanted),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::RANGE) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlayfs_is_told_nothing_by_an_image() {
        for name in ["user.mime_type", "security.capability"] {
            assert!(is_kept(name.as_bytes()), "{name}");
        }
        for name in [
            "user.overlay.redirect",
            "trusted.overlay.redirect",
            "trusted.x",
            "security.selinux",
            "system.posix_acl_access",
            "",
        ] {
            assert!(!is_kept(name.as_bytes()), "{name}");
        }
    }
}
