//! What instances could leave behind: of their own, and in the kernel's memory.

use std::{collections::BTreeSet, fs, path::Path, thread, time::Duration};

use crate::error::{Error, Result};

/// How long the kernel gets to take down what the last instances had.
pub(super) const SETTLE: Duration = Duration::from_secs(2);

/// What can be told to be of instances of one home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    mounts: usize,
    cgroups: usize,
    processes: usize,
    files: usize,
}

impl Left {
    /// Looks for what belongs to this home, and for cgroups of instances with these IDs.
    ///
    /// # Errors
    ///
    /// If /proc cannot be read.
    pub(super) fn of(home: &Path, ids: &[String]) -> Result<Self> {
        let mounts = read("/proc/self/mountinfo")?;
        let name = home.display().to_string();
        let mine = |pid: &str| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|words| String::from_utf8_lossy(&words).contains(&format!("CHITON_HOME={name}\0")))
        };
        Ok(Self {
            mounts: mounts.lines().filter(|line| line.contains(&name)).count(),
            cgroups: cgroups(Path::new("/sys/fs/cgroup"), ids),
            processes: processes()?.iter().filter(|pid| mine(pid)).count(),
            files: files(home),
        })
    }

    /// Each with its name.
    pub(super) fn figures(self) -> [(&'static str, usize); 4] {
        [
            ("mounts", self.mounts),
            ("cgroups", self.cgroups),
            ("processes", self.processes),
            ("files and folders of the home", self.files),
        ]
    }
}

/// What the whole machine has, whoever made it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Host {
    network_namespaces: u64,
    processes: u64,
    slab: u64,
    unreclaimable: u64,
    available: u64,
}

impl Host {
    /// Reads it now.
    ///
    /// # Errors
    ///
    /// If /proc cannot be read.
    pub(super) fn read() -> Result<Self> {
        let memory = read("/proc/meminfo")?;
        let processes = processes()?;
        let namespaces: BTreeSet<_> = processes
            .iter()
            .filter_map(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).ok())
            .collect();
        Ok(Self {
            network_namespaces: namespaces.len() as u64,
            processes: processes.len() as u64,
            slab: kilobytes(&memory, "Slab"),
            unreclaimable: kilobytes(&memory, "SUnreclaim"),
            available: kilobytes(&memory, "MemAvailable"),
        })
    }

    /// How far each figure moves while nothing is measured.
    ///
    /// # Errors
    ///
    /// If /proc cannot be read.
    pub(super) fn noise() -> Result<[u64; 5]> {
        let mut bounds = [(u64::MAX, 0); 5];
        for _ in 0..10 {
            for ((low, high), (_, now)) in bounds.iter_mut().zip(Self::read()?.figures()) {
                *low = now.min(*low);
                *high = now.max(*high);
            }
            thread::sleep(SETTLE / 10);
        }
        Ok(bounds.map(|(low, high)| high - low))
    }

    /// Each with its name.
    pub(super) fn figures(self) -> [(&'static str, u64); 5] {
        [
            ("network namespaces", self.network_namespaces),
            ("processes", self.processes),
            ("Slab, kB", self.slab),
            ("  SUnreclaim, kB", self.unreclaimable),
            ("MemAvailable, kB", self.available),
        ]
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(Error::file("read", Path::new(path)))
}

fn processes() -> Result<Vec<String>> {
    let path = Path::new("/proc");
    let entries = fs::read_dir(path).map_err(Error::file("read", path))?;
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .collect())
}

/// A line of `/proc/meminfo` (Linux, `Documentation/filesystems/proc.rst`).
fn kilobytes(memory: &str, name: &str) -> u64 {
    memory
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
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

fn folders(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> {
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
    use super::*;

    #[test]
    fn a_line_of_meminfo_is_told_by_its_whole_name() {
        let memory = "MemTotal:  100 kB\nSlab:     42 kB\nSReclaimable: 7 kB\nHugePages_Total:  3\n";
        assert_eq!(kilobytes(memory, "Slab"), 42);
        assert_eq!(kilobytes(memory, "HugePages_Total"), 3);
        assert_eq!(kilobytes(memory, "Sla"), 0);
    }

    #[test]
    fn what_a_home_holds_and_cgroups_by_id_are_counted_at_any_depth() {
        let place = std::env::temp_dir().join(format!("chiton-bench-host-{}", std::process::id()));
        fs::create_dir_all(place.join("cpu/chiton/0123456789ab")).unwrap();
        fs::write(place.join("cpu/file"), "").unwrap();
        let counted = (files(&place), cgroups(&place, &["0123456789abcdef".to_owned()]));
        fs::remove_dir_all(&place).unwrap();
        assert_eq!(counted, (4, 1));
    }
}
