use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::trial::{Result, TrialError};

/// The numbers of all processes.
///
/// # Errors
///
/// If `/proc` cannot be read.
pub fn all() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").map_err(TrialError::file("read", "/proc"))?;
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// The processes of the instances of one home: supervisors, which have it in their environment, and what they have
/// started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// Each supervisor, and its guest's process.
    pub instances: Vec<Vec<u32>>,
}

impl Processes {
    /// Looks for them.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read.
    pub fn of(home: &Path) -> Result<Self> {
        let mut parents = BTreeMap::new();
        let mut of_home = BTreeSet::new();
        for pid in all()? {
            // Who has ended meanwhile is nobody's.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
                continue;
            };
            let Some(parent) = parent(&stat) else { continue };
            parents.insert(pid, parent);
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            if names(&environment, home) && pid != std::process::id() {
                of_home.insert(pid);
            }
        }
        Ok(Self::grouped(&of_home, &parents))
    }

    /// Those of the home whose parents are not of it, each with its descendants.
    fn grouped(of_home: &BTreeSet<u32>, parents: &BTreeMap<u32, u32>) -> Self {
        let is_first = |pid: &u32| parents.get(pid).is_none_or(|parent| !of_home.contains(parent));
        let firsts = of_home.iter().copied().filter(is_first);
        let mut instances: BTreeMap<u32, Vec<u32>> = firsts.map(|pid| (pid, vec![pid])).collect();
        for pid in parents.keys() {
            let mut ancestors = std::iter::successors(parents.get(pid), |parent| parents.get(parent)).take(32);
            if let Some(first) = ancestors.find(|ancestor| instances.contains_key(ancestor)) {
                let of_first = instances.entry(*first).or_default();
                if !of_first.contains(pid) {
                    of_first.push(*pid);
                }
            }
        }
        Self {
            instances: instances.into_values().collect(),
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = u32> {
        self.instances.iter().flatten().copied()
    }
}

/// The fourth word of `/proc/PID/stat`; the second is a name, which may hold anything.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Whether an environment says `CHITON_HOME=` this.
fn names(environment: &[u8], home: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let is_home = |word: &[u8]| word.strip_prefix(b"CHITON_HOME=") == Some(home.as_os_str().as_bytes());
    environment.split(|byte| *byte == 0).any(is_home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_rest() {
        assert_eq!(parent("12 (a) R 5 (x) S 7 12 12\n"), Some(7));
        assert_eq!(parent("12 (a"), None);
    }

    #[test]
    fn a_home_is_told_by_its_whole_path() {
        let home = Path::new("/tmp/home");
        assert!(names(b"A=1\0CHITON_HOME=/tmp/home\0B=2\0", home));
        assert!(!names(b"CHITON_HOME=/tmp/home2\0X_CHITON_HOME=/tmp/home\0", home));
    }

    #[test]
    fn a_supervisor_is_grouped_with_what_it_started() {
        let parents = BTreeMap::from([(1, 0), (10, 1), (11, 10), (12, 11), (20, 1), (21, 20), (30, 1)]);
        let found = Processes::grouped(&BTreeSet::from([10, 11, 20]), &parents);
        assert_eq!(found.instances, [vec![10, 11, 12], vec![20, 21]]);
    }
}
