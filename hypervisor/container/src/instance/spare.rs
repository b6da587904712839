//! The folder of one that is gone, for the next.
//!
//! To give a folder back is to give its block back, and where the disk discards at once that is to wait for it. So one
//! is kept, with those in it that nobody but the supervisor ever had in hands.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::InstanceError;
use super::files::remove_tree;

/// Folders that are kept, each in the one before: that of the scratch, and in it overlayfs's own. What is in those was the
/// instance's, and so was the folder of what it wrote, down to its mode and attributes.
const KEPT: [&str; 2] = ["root", "work"];

/// Where it is kept. Who takes it or puts it there has the turn.
#[derive(Debug)]
pub(super) struct Spare(pub(super) PathBuf);

impl Spare {
    /// Makes it the folder of this path; whether there was one.
    pub(super) fn take(&self, path: &Path) -> bool {
        fs::rename(&self.0, path).is_ok()
    }

    /// Removes a folder with all that is in it, or keeps it without that if there is none yet.
    pub(super) fn keep(&self, folder: &Path) -> Result<(), InstanceError> {
        if self.0.exists() {
            return remove_tree(folder);
        }
        clear(folder, &KEPT)?;
        fs::rename(folder, &self.0).map_err(InstanceError::file("rename a folder to", &self.0))
    }
}

/// Removes all that is in a folder, but for that which is kept.
fn clear(folder: &Path, kept: &[&str]) -> Result<(), InstanceError> {
    let (first, rest) = kept.split_first().unzip();
    for entry in fs::read_dir(folder).map_err(InstanceError::file("read", folder))? {
        let entry = entry.map_err(InstanceError::file("read", folder))?;
        let path = entry.path();
        // Of the entry itself: a link is not followed.
        let is_folder = entry.file_type().map_err(InstanceError::file("read", &path))?.is_dir();
        match (is_folder, rest) {
            (true, Some(rest)) if first.is_some_and(|first| entry.file_name() == *first) => clear(&path, rest)?,
            (true, _) => remove_tree(&path)?,
            (false, _) => match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(InstanceError::file("remove", &path)(error))?,
                _ => {}
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_a_folder_is_gone_and_one_of_two_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let spare = Spare(home.path().join("spare"));
        assert!(!spare.take(&home.path().join("new")));
        for name in ["one", "two"] {
            let folder = home.path().join(name);
            for place in [
                "root/upper/etc",
                "root/work/work/incompat",
                "root/work/root/work",
                "other/root",
            ] {
                fs::create_dir_all(folder.join(place)).unwrap();
            }
            for file in ["log", "root/upper/secret", "root/work/index", "other/root/x"] {
                fs::write(folder.join(file), "x").unwrap();
            }
            std::os::unix::fs::symlink("/etc", folder.join("link")).unwrap();
            spare.keep(&folder).unwrap();
            assert!(!folder.exists());
        }
        let next = home.path().join("next");
        assert!(spare.take(&next) && !spare.0.exists());
        let names = |path: &Path| -> Vec<_> { fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect() };
        assert_eq!(names(&next), ["root"]);
        assert_eq!(names(&next.join("root")), ["work"]);
        assert!(names(&next.join("root/work")).is_empty());
    }

    #[test]
    fn a_link_in_place_of_a_folder_that_is_kept_is_removed_and_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        fs::create_dir_all(outside.join("work/file")).unwrap();
        let folder = home.path().join("one");
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&outside, folder.join("root")).unwrap();
        Spare(home.path().join("spare")).keep(&folder).unwrap();
        assert!(outside.join("work/file").exists());
        assert_eq!(fs::read_dir(home.path().join("spare")).unwrap().count(), 0);
    }
}
