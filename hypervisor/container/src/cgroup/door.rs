//! A way into a cgroup for a process that is about to become another.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use super::controller::Version;
use super::error::{Error, Result};
use super::group::Cgroup;

/// Files opened before, that a new process writes to after `fork` or `clone3`, to enter a cgroup
/// by itself. The right to do so is that of who opened them.
#[derive(Debug)]
pub struct Door {
    files: Vec<File>,
}

impl Door {
    /// Moves the calling process into the cgroup. It must have one thread: on v1 a thread alone is
    /// moved, which spares the kernel a wait of milliseconds for all processors
    /// (`cgroup_procs_write_start` in kernel/cgroup/cgroup.c).
    ///
    /// Only calls write(2), so it may be used between `fork` and `exec`.
    pub fn enter(&self) -> io::Result<()> {
        self.files.iter().try_for_each(|mut file| file.write_all(b"0"))
    }
}

impl From<Door> for Vec<File> {
    /// The files, into each of which who enters writes `0`.
    fn from(door: Door) -> Self {
        door.files
    }
}

impl Cgroup {
    /// A door in all hierarchies.
    pub fn door(&self) -> Result<Door> {
        self.doors(&[Version::V2, Version::V1])
    }

    /// A door in those that `clone3` with [`fd`](Self::fd) has not entered: on a v2 host it does
    /// nothing.
    pub fn door_after_clone(&self) -> Result<Door> {
        self.doors(&[Version::V1])
    }

    fn doors(&self, versions: &[Version]) -> Result<Door> {
        let files = self
            .branches()
            .filter(|branch| versions.contains(&branch.version))
            .map(|branch| {
                let path = branch.path.join(match branch.version {
                    Version::V1 => "tasks",
                    Version::V2 => "cgroup.procs",
                });
                OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .map_err(|source| Error::Read { path, source })
            })
            .collect::<Result<_>>()?;
        Ok(Door { files })
    }

    /// Has a command start inside.
    pub fn enclose(&self, command: &mut std::process::Command) -> Result<()> {
        use std::os::unix::process::CommandExt;

        let door = self.door()?;
        // SAFETY: the closure runs in a child with one thread, between fork and exec, and there only
        // calls write(2) on files it owns; it neither allocates nor locks.
        unsafe {
            command.pre_exec(move || door.enter());
        }
        Ok(())
    }
}
