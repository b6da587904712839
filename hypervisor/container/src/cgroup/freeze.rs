//! Stops all processes of a cgroup, and lets them go on.

use std::fs;
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
        await_v2(directory, frozen, wait)?
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

/// How long to wait for the kernel's word before looking at the processes.
const SLICE: Duration = Duration::from_millis(50);

/// The kernel says when all tasks stand still. A task of its own among them never does, and KVM has one in the
/// process of each machine: then it is enough that all others do.
fn await_v2(directory: &Path, frozen: bool, wait: Duration) -> Result<bool> {
    let end = Instant::now() + wait;
    loop {
        if await_event(directory, "frozen", u64::from(frozen), SLICE.min(wait))? {
            return Ok(true);
        }
        if frozen && all_processes(directory)?.into_iter().all(stands_still) {
            return Ok(true);
        }
        if Instant::now() > end {
            return Ok(false);
        }
    }
}

/// Whether a process is the kernel's own, or gone, or each of its threads waits where the freezer has them wait.
fn stands_still(process: i32) -> bool {
    /// `PF_KTHREAD`, in the ninth field of `/proc/PID/stat` (proc(5)).
    const KERNEL: u32 = 0x0020_0000;
    let place = Path::new("/proc").join(process.to_string());
    let Ok(stat) = fs::read_to_string(place.join("stat")) else {
        return true;
    };
    let flags = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(6)?.parse::<u32>().ok());
    if flags.is_some_and(|flags| flags & KERNEL != 0) {
        return true;
    }
    let Ok(mut tasks) = fs::read_dir(place.join("task")) else {
        return true;
    };
    // The freezer's trap is in the delivery of signals, and a compiler may have made one function of the two; nothing
    // else waits there but a process that is stopped.
    tasks.all(|task| {
        let waits = task.and_then(|task| fs::read_to_string(task.path().join("wchan")));
        waits.is_ok_and(|waits| waits.contains("freezer") || waits == "get_signal")
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
