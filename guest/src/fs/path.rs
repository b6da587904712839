//! Paths: a folder's name, and names below it.

use alloc::vec::Vec;

use chiton_shared::virtio::p9::check_name;

use super::{FsError, Reason};

/// A path, taken apart and checked.
pub struct Path<'p> {
    /// As it was given.
    pub(super) text: &'p str,
    names: Vec<&'p str>,
}

impl<'p> Path<'p> {
    /// Takes a path apart; empty names and `.` do not count.
    ///
    /// # Errors
    ///
    /// [`Reason::Path`].
    pub fn new(text: &'p str) -> Result<Self, FsError> {
        let names: Vec<_> = text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if names.iter().any(|name| check_name(name.as_bytes()).is_err()) {
            return Err(FsError::new(text, Reason::Path));
        }
        Ok(Self { text, names })
    }

    /// Whether it is what all folders are in.
    pub(super) const fn is_top(&self) -> bool {
        self.names.is_empty()
    }

    /// The folder's name.
    pub(super) fn folder(&self) -> Option<&'p str> {
        self.names.first().copied()
    }

    /// The names below the folder.
    pub(super) fn below(&self) -> &[&'p str] {
        self.names.get(1..).unwrap_or_default()
    }

    /// The names of the directory it is in, and its own; `None` if it is the folder itself.
    pub(super) fn split(&self) -> Option<(&[&'p str], &'p str)> {
        self.below().split_last().map(|(name, directory)| (directory, *name))
    }

    pub(super) fn fails(&self, reason: impl Into<Reason>) -> FsError {
        FsError::new(self.text, reason.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_folder_and_names_below() {
        let path = Path::new("/src//a/./b.rs/").unwrap();
        assert_eq!(path.folder(), Some("src"));
        assert_eq!(path.below(), ["a", "b.rs"]);
        assert_eq!(path.split(), Some((&["a"][..], "b.rs")));
        assert!(Path::new("src").unwrap().split().is_none());
        assert!(Path::new("/").unwrap().is_top());
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for text in ["..", "src/../a", "src/..", "src/a\0b"] {
            let error = Path::new(text).err().unwrap();
            assert_eq!((error.path.as_str(), error.reason), (text, Reason::Path));
        }
    }
}
