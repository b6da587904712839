//! Paths of entries: below the top of the layer, or refused.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::super::Limits;

/// The longest name of a file, NAME_MAX.
const NAME: usize = 255;

/// The parts of a path of an archive. `/` in front and `.` within mean nothing there (an archive's
/// root is the layer's); `..` is refused, however harmless.
pub(super) fn parts(path: &[u8]) -> Result<Vec<&OsStr>, String> {
    if path.len() > Limits::PATH {
        return Err(format!("its path has more than {} bytes", Limits::PATH));
    }
    if path.contains(&0) {
        return Err("its path has a zero byte".into());
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its path has `..` in it".into()),
            long if long.len() > NAME => return Err(format!("a name in its path has more than {NAME} bytes")),
            part => parts.push(OsStr::from_bytes(part)),
        }
    }
    Ok(parts)
}

/// A path of an image, relative to its root, in its shortest form.
pub(in super::super) fn clean(path: &str) -> Result<String, String> {
    let parts = parts(path.as_bytes())?;
    Ok(parts
        .iter()
        .filter_map(|part| part.to_str())
        .collect::<Vec<_>>()
        .join("/"))
}

/// The same as one path, relative to the top.
pub(super) fn joined(parts: &[&OsStr]) -> PathBuf {
    parts.iter().collect()
}

/// A name for people: not too long, and without what would disturb a terminal.
pub(in super::super) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(&path[..path.len().min(200)]);
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_begin_at_the_top() {
        for (path, same) in [
            ("a/b", "a/b"),
            ("/a", "a"),
            ("./a//b/.", "a/b"),
            ("", ""),
            ("/", ""),
            ("...", "..."),
        ] {
            assert_eq!(joined(&parts(path.as_bytes()).unwrap()), PathBuf::from(same));
        }
        for path in ["..", "a/..", "/../a", "a/../b", "a\0b"] {
            assert!(parts(path.as_bytes()).is_err(), "{path}");
        }
        assert!(parts(&[b'a'; 256]).is_err() && parts(&b"a/".repeat(3000)).is_err());
    }

    proptest! {
        #[test]
        fn no_path_leads_up(path in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'/'), any::<u8>()], 0..40)) {
            if let Ok(parts) = parts(&path) {
                prop_assert!(parts.iter().all(|part| !part.is_empty() && *part != ".." && *part != "."));
                prop_assert!(joined(&parts).is_relative());
            }
        }
    }
}
