//! The folder of one that is gone, for the next.
//!
//! To give a folder back is to give its block back, and where the disk discards at once that is to wait for it. So one
//! is kept, with those in it that nobody but the supervisor ever had in hands.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::InstanceError;
use super::files::{make_dir, remove_tree};

/// Folders that are kept, each in the one before: that of the scratch, and in it overlayfs's own. What is in those was the
/// instance's, and so was the folder of what it wrote, down to its mode and attributes.
const KEPT: [&str; 2] = ["root", "work"];
/// The next instance's folder of what it writes: new, made while nobody waits for that.
const UPPER: &str = "root/upper";

/// Where empty folders wait that are of no use to the next, each under a number. It takes them away while its payload has
/// nothing to say, since who waits for an end is not to wait for the disk.
const LEFT: &str = "left";
/// So many may wait.
const WAITING: usize = 16;
/// What is left: where it wrote, and what overlayfs made for itself; and how many folders there may be in it, each in the
/// one before.
const EMPTY: [(&str, u32); 2] = [(UPPER, 0), ("root/work/work", 2)];
/// In the latter, a file in two folders.
const DIRTY: &str = "root/work/work/incompat/volatile/dirty";

/// Where it is kept. Who takes it or puts it there has the turn.
#[derive(Debug)]
pub(super) struct Spare(pub(super) PathBuf);

impl Spare {
    /// Makes it the folder of this path; whether there was one.
    pub(super) fn take(&self, path: &Path) -> bool {
        fs::rename(&self.0, path).is_ok()
    }

    /// Whether one is kept.
    pub(super) fn is_there(&self) -> bool {
        self.0.exists()
    }

    /// Removes what is in a folder, but for that which is of use to the next. What cannot be removed is an error: the
    /// folder is to be removed then.
    pub(super) fn empty(folder: &Path) -> Result<(), InstanceError> {
        let left = leave(folder)?;
        clear(folder, &KEPT, left.then_some(LEFT))?;
        if left {
            // Without, the next one makes it.
            let _ = fs::create_dir(folder.join(UPPER));
        }
        Ok(())
    }

    /// Keeps a folder, if it was emptied and there is none yet, or removes it with all that is in it.
    pub(super) fn keep(&self, folder: &Path, is_empty: bool) -> Result<(), InstanceError> {
        // A full disk has no room even for that, and what is to be removed is to be removed.
        if is_empty && !self.is_there() && fs::rename(folder, &self.0).is_ok() {
            return Ok(());
        }
        remove_tree(folder)
    }
}

/// What those before left in a folder.
#[derive(Debug)]
pub(super) struct Left(Option<PathBuf>);

impl Left {
    /// Of this instance's folder.
    pub(super) fn of(folder: &Path) -> Self {
        Self(Some(folder.join(LEFT)))
    }

    /// Whether there may be more.
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Takes one folder away.
    pub(super) fn clear_one(&mut self) {
        let removed = self.0.as_deref().and_then(innermost).map(fs::remove_dir);
        // What cannot be taken away is removed with the instance.
        if !matches!(removed, Some(Ok(()))) {
            self.0 = None;
        }
    }
}

/// The last of folders that are each in the one before, the first of them in this one.
fn innermost(folder: &Path) -> Option<PathBuf> {
    let mut last = None;
    while let Some(entry) = fs::read_dir(last.as_deref().unwrap_or(folder)).ok()?.next() {
        // Of the entry itself: a link is not followed.
        let entry = entry
            .ok()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))?;
        last = Some(entry.path());
    }
    last
}

/// Puts what is empty aside; whether there is a place for that.
fn leave(folder: &Path) -> Result<bool, InstanceError> {
    let (left, root) = (folder.join(LEFT), folder.join(KEPT[0]));
    // Of the folder itself: a link is not followed.
    if !fs::symlink_metadata(&root).is_ok_and(|found| found.is_dir()) {
        return Ok(false);
    }
    make_dir(&left)?;
    // There is none if it wrote nowhere.
    let _ = fs::remove_file(folder.join(DIRTY));
    let mut free = (0..WAITING).map(|number| left.join(number.to_string()));
    for (from, depth) in EMPTY {
        let from = folder.join(from);
        if holds_nothing(&from, depth)
            && let Some(to) = free.find(|to| !to.exists())
        {
            fs::rename(&from, &to).map_err(InstanceError::file("rename a folder to", &to))?;
        }
    }
    Ok(true)
}

/// Whether there is a folder and nothing is in it, but for so many folders, each in the one before.
fn holds_nothing(folder: &Path, depth: u32) -> bool {
    // Of the folder itself: a link is not followed.
    let is_folder = fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir());
    let Some(mut entries) = is_folder.then(|| fs::read_dir(folder).ok()).flatten() else {
        return false;
    };
    match (entries.next(), entries.next()) {
        (None, _) => true,
        (Some(Ok(entry)), None) if depth > 0 => holds_nothing(&entry.path(), depth - 1),
        _ => false,
    }
}

/// Removes all that is in a folder, but for that which is kept, and what is `left`.
fn clear(folder: &Path, kept: &[&str], left: Option<&str>) -> Result<(), InstanceError> {
    let (first, rest) = kept.split_first().unzip();
    for entry in fs::read_dir(folder).map_err(InstanceError::file("read", folder))? {
        let entry = entry.map_err(InstanceError::file("read", folder))?;
        let path = entry.path();
        // Of the entry itself: a link is not followed.
        let is_folder = entry.file_type().map_err(InstanceError::file("read", &path))?.is_dir();
        match (is_folder, rest) {
            (true, _) if left.is_some_and(|left| entry.file_name() == *left) => {}
            (true, Some(rest)) if first.is_some_and(|first| entry.file_name() == *first) => clear(&path, rest, None)?,
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

    fn keep(spare: &Spare, folder: &Path) {
        let is_empty = Spare::empty(folder).is_ok();
        spare.keep(folder, is_empty).unwrap();
    }

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
            keep(&spare, &folder);
            assert!(!folder.exists());
        }
        let next = home.path().join("next");
        assert!(spare.take(&next) && !spare.0.exists());
        let names = |path: &Path| -> Vec<_> { fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect() };
        let mut at_top = names(&next);
        at_top.sort();
        assert_eq!(at_top, ["left", "root"]);
        assert_eq!(names(&next.join("left")), ["0"]);
        let mut at_root = names(&next.join("root"));
        at_root.sort();
        assert_eq!(at_root, ["upper", "work"]);
        assert!(names(&next.join(UPPER)).is_empty());
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
        keep(&Spare(home.path().join("spare")), &folder);
        assert!(outside.join("work/file").exists());
        assert_eq!(fs::read_dir(home.path().join("spare")).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_kept_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let one = home.path().join("one");
        fs::create_dir_all(one.join("root/upper")).unwrap();
        // In the way of the folder for what is left.
        fs::write(one.join(LEFT), "x").unwrap();
        let spare = Spare(home.path().join("spare"));
        keep(&spare, &one);
        assert!(!one.exists() && !spare.0.exists());
    }

    #[test]
    fn what_is_empty_is_left_to_the_next_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let (one, spare) = (home.path().join("one"), Spare(home.path().join("spare")));
        let count = |path: &str| fs::read_dir(home.path().join(path)).unwrap().count();
        for (written, left) in [
            ("", 2),
            ("root/upper/name", 1),
            ("root/work/work/a/b/c", 1),
            ("root/work/work/a", 1),
        ] {
            fs::create_dir_all(one.join("root/upper")).unwrap();
            fs::create_dir_all(one.join("root/work/work/incompat/volatile")).unwrap();
            fs::write(one.join(DIRTY), "").unwrap();
            fs::create_dir_all(one.join(written)).unwrap();
            keep(&spare, &one);
            assert!(spare.take(&one));
            assert_eq!((count("one/left"), count("one/root")), (left, 2), "{written}");
            assert_eq!((count("one/root/work"), count("one/root/upper")), (0, 0), "{written}");
            let mut rest = Left::of(&one);
            while rest.is_some() {
                rest.clear_one();
            }
            assert_eq!(count("one/left"), 0);
        }
    }

    #[test]
    fn nothing_but_folders_is_taken_away_of_what_is_left_and_no_link_is_followed() {
        let home = tempfile::tempdir().unwrap();
        let (one, outside) = (home.path().join("one"), home.path().join("outside"));
        for folder in [one.join(LEFT), outside.join("empty")] {
            fs::create_dir_all(folder).unwrap();
        }
        std::os::unix::fs::symlink(&outside, one.join(LEFT).join("0")).unwrap();
        let mut left = Left::of(&one);
        left.clear_one();
        assert!(!left.is_some() && outside.join("empty").exists());
    }

    fn folders(path: &Path) -> usize {
        let below = fs::read_dir(path).unwrap();
        below.map(|entry| 1 + folders(&entry.unwrap().path())).sum()
    }

    #[test]
    fn what_is_left_may_wait_but_no_more_than_has_places() {
        let home = tempfile::tempdir().unwrap();
        let (one, spare) = (home.path().join("one"), Spare(home.path().join("spare")));
        for round in 1..20 {
            fs::create_dir_all(one.join("root/upper")).unwrap();
            fs::create_dir_all(one.join("root/work/work/incompat/volatile")).unwrap();
            keep(&spare, &one);
            assert!(spare.take(&one));
            let waiting = fs::read_dir(one.join(LEFT)).unwrap().count();
            assert_eq!(waiting, WAITING.min(2 * round));
            assert!(holds_nothing(&one.join(UPPER), 0) && !one.join("root/work/work").exists());
        }
        let mut left = Left::of(&one);
        let folders = folders(&one);
        left.clear_one();
        assert!(left.is_some());
        assert_eq!(self::folders(&one), folders - 1);
    }
}
