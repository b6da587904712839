//! What a run could leave behind.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

/// What the names of the tests' own network devices begin with: of these, of those of `chiton-container`, and of bare
/// metal's.
const OF_TESTS: [&str; 3] = [crate::tap::PREFIX, "chtest", "chbare"];
/// What is in the paths of mounts that tests of images make.
const MOUNTS_OF_TESTS: &str = "/chiton-image-";

/// What a run could leave behind on the host, to be compared before and after.
///
/// Shared memory counts where its name says that it is chiton's: other programs come and go. The
/// tests' own mounts and network devices do not count: other tests make them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    mounts: String,
    interfaces: Vec<String>,
    shared_memory: Vec<String>,
}

impl Traces {
    /// What is there now.
    #[must_use]
    pub fn now() -> Self {
        let mut shared_memory = names("/dev/shm");
        shared_memory.retain(|name| name.contains("chiton"));
        let mut interfaces = names("/sys/class/net");
        interfaces.retain(|name| !OF_TESTS.iter().any(|prefix| name.starts_with(prefix)) && !is_of_instance(name));
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self {
            mounts: mounts
                .lines()
                .filter(|line| !line.contains(MOUNTS_OF_TESTS))
                .flat_map(|line| [line, "\n"])
                .collect(),
            interfaces,
            shared_memory,
        }
    }
}

/// Whether a network device has the name of an instance's end on a bridge. Other tests make them, and see for
/// themselves that they are gone.
fn is_of_instance(name: &str) -> bool {
    let id = name.strip_prefix("ch").unwrap_or_default();
    id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The sorted names in a directory; none if it cannot be read.
fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The processes of a process group: process id and name.
///
/// # Panics
///
/// If there is no `/proc`.
#[must_use]
pub fn processes_in_group(group: u32) -> Vec<String> {
    let group = group.to_string();
    let processes = fs::read_dir("/proc").expect("there is a /proc").flatten();
    processes
        .filter_map(|process| {
            let stat = fs::read_to_string(process.path().join("stat")).ok()?;
            // `pid (name) state parent group …`, where the name may have anything in it.
            let (name, rest) = stat.rsplit_once(')')?;
            (rest.split_whitespace().nth(2) == Some(&group)).then(|| format!("{name})"))
        })
        .collect()
}

/// Whether nobody holds a lock on a disk.
///
/// # Panics
///
/// If it cannot be opened.
#[must_use]
pub fn disk_is_free(disk: &Path) -> bool {
    let file = fs::File::open(disk).expect("the disk is there");
    // SAFETY: the descriptor is open. The lock is given back before it is closed: a child that another test starts just
    // now has a copy of it until it runs its program, and would keep the lock until then.
    unsafe {
        libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0
            && libc::flock(file.as_raw_fd(), libc::LOCK_UN) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::time::Instant;

    #[test]
    fn a_process_that_outlives_its_leader_is_found() {
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", "sleep 1000 & sleep 0.1"]).process_group(0);
        let mut leader = shell.spawn().expect("a shell");
        assert!(!processes_in_group(leader.id()).is_empty());
        leader.wait().expect("it ends");
        // What the shell left is a copy of it until it runs its program.
        let begun = Instant::now();
        let mut left = processes_in_group(leader.id());
        while left.iter().any(|line| line.contains("(sh)")) && begun.elapsed().as_secs() < 60 {
            std::thread::yield_now();
            left = processes_in_group(leader.id());
        }
        // SAFETY: no memory is involved; the group is that of the shell.
        unsafe { libc::kill(-leader.id().cast_signed(), libc::SIGKILL) };
        assert!(left.len() == 1 && left[0].contains("(sleep)"), "{left:?}");
    }

    #[test]
    fn a_locked_disk_is_not_free() {
        let folder = crate::Folder::new();
        let disk = folder.file("disk", [0]);
        assert!(disk_is_free(&disk));
        let holder = fs::File::open(&disk).expect("the disk is there");
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::flock(holder.as_raw_fd(), libc::LOCK_SH) }, 0);
        assert!(!disk_is_free(&disk));
        // SAFETY: as above.
        assert_eq!(unsafe { libc::flock(holder.as_raw_fd(), libc::LOCK_UN) }, 0);
        assert!(disk_is_free(&disk));
    }
}
