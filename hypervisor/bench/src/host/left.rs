use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Processes;
use crate::trial::{Result, TrialError};

/// What can be told to be of instances of one home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Mounts whose source or place has the path of the home.
    pub mounts: usize,
    /// Control groups whose name has the beginning of an ID.
    pub cgroups: usize,
    /// Processes with the home in their environment, and their descendants.
    pub processes: usize,
    /// Files and folders in the home.
    pub files: usize,
}

impl Left {
    /// Looks for what belongs to this home, and for cgroups of instances with these IDs.
    ///
    /// # Errors
    ///
    /// If /proc cannot be read.
    pub fn of(home: &Path, ids: &[String]) -> Result<Self> {
        const MOUNTS: &str = "/proc/self/mountinfo";
        let mounts = fs::read_to_string(MOUNTS).map_err(TrialError::file("read", MOUNTS))?;
        let name = home.display().to_string();
        Ok(Self {
            mounts: mounts.lines().filter(|line| line.contains(&name)).count(),
            cgroups: cgroups(Path::new("/sys/fs/cgroup"), ids),
            processes: Processes::of(home)?.all().count(),
            files: files(home),
        })
    }

    /// Each with its name.
    #[must_use]
    pub fn figures(self) -> [(&'static str, usize); 4] {
        [
            ("mounts", self.mounts),
            ("cgroups", self.cgroups),
            ("processes", self.processes),
            ("files and folders of the home", self.files),
        ]
    }
}

/// Folders of cgroups whose name has the beginning of one of these IDs.
fn cgroups(folder: &Path, ids: &[String]) -> usize {
    folders(folder)
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let of_one = ids.iter().any(|id| id.get(..12).is_some_and(|id| name.contains(id)));
            usize::from(of_one) + cgroups(&path, ids)
        })
        .sum()
}

fn folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

fn files(folder: &Path) -> usize {
    let own = fs::read_dir(folder).into_iter().flatten().count();
    own + folders(folder).map(|path| files(&path)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn what_a_home_holds_and_cgroups_by_id_are_counted_at_any_depth() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("cpu/chiton/0123456789ab")).unwrap();
        fs::write(place.path().join("cpu/file"), "").unwrap();
        let counted = (
            files(place.path()),
            cgroups(place.path(), &["0123456789abcdef".to_owned()]),
        );
        assert_eq!(counted, (4, 1));
    }

    #[test]
    fn a_process_of_a_home_is_seen_until_it_ends() {
        let place = tempfile::tempdir().unwrap();
        let mut command = Command::new("cat");
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.env("CHITON_HOME", place.path()).spawn().unwrap();
        // Started is not yet seen: the kernel shows an environment some time after execve(2) has let go of the parent.
        child.stdin.as_mut().unwrap().write_all(b"!").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let seen = Left::of(place.path(), &[]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(seen.processes, 1);
        assert_eq!(Left::of(place.path(), &[]).unwrap(), Left::default());
    }
}
