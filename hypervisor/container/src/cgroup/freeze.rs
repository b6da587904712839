//! Stops all processes of a cgroup, and lets them go on.

use std::path::Path;
use std::time::{Duration, Instant};

use super::controller::Controller;
use super::error::{Error, Result};
use super::file;
use super::group::Cgroup;
use super::remove::{all_processes, await_event};

/// How long a freeze may take: a process deep in the kernel stops when it comes out.
const WAIT: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stops all its processes, and returns when they stand still.
    pub fn freeze(&self) -> Result<()> {
        set(self.freezer()?, true, WAIT)
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<()> {
        set(self.freezer()?, false, WAIT)
    }

    /// The directory that can freeze: v2's where there is one, else v1's controller.
    pub(super) fn freezer(&self) -> Result<&Path> {
        self.unified()
            .filter(|path| path.join("cgroup.freeze").exists())
            .or_else(|| self.branch(Controller::Freezer).map(|branch| branch.path.as_path()))
            .ok_or_else(|| Error::NoController {
                limit: "pausing",
                controller: Controller::Freezer,
                why: "no hierarchy of this host has: cgroup v2 has it since Linux 5.2".into(),
            })
    }
}

/// Freezes or thaws one directory.
pub(super) fn set(directory: &Path, frozen: bool, wait: Duration) -> Result<()> {
    let state = if frozen { "frozen" } else { "thawed" };
    let reached = if directory.join("cgroup.freeze").exists() {
        file::write(&directory.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
        await_event(directory, "frozen", u64::from(frozen), wait)?
    } else {
        set_v1(directory, frozen, wait)?
    };
    if reached {
        return Ok(());
    }
    Err(Error::Timeout {
        path: directory.into(),
        state,
        waited: wait,
        remaining: all_processes(directory)?.len(),
    })
}

/// v1 tells nobody when it is done (freezer-subsystem.rst): it is asked again.
fn set_v1(directory: &Path, frozen: bool, wait: Duration) -> Result<bool> {
    let path = directory.join("freezer.state");
    let goal = if frozen { "FROZEN" } else { "THAWED" };
    let end = Instant::now() + wait;
    let mut pause = Duration::from_micros(100);
    loop {
        file::write(&path, goal)?;
        if file::read(&path)?.trim() == goal {
            return Ok(true);
        }
        if Instant::now() > end {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
