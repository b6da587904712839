//! Kills all processes of a cgroup.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::error::{Error, Result};
use super::group::Cgroup;
use super::remove::all_processes;
use super::{file, freeze};

/// How long to try to freeze before killing; it makes killing certain, and is not needed for it.
const FREEZE_WAIT: Duration = Duration::from_millis(200);

impl Cgroup {
    /// Kills all its processes, and those of cgroups below it, with SIGKILL. They are dying when it
    /// returns; [`remove`](Self::remove) waits for the last.
    pub fn kill(&self) -> Result<()> {
        let directory = match self.unified() {
            Some(directory) => directory,
            None => match self.freezer() {
                Ok(directory) => directory,
                Err(_) => match self.paths().next() {
                    Some(directory) => directory,
                    None => return Ok(()),
                },
            },
        };
        tree(directory)
    }
}

/// Kills what is in a directory and below it.
pub(super) fn tree(directory: &Path) -> Result<()> {
    // Since Linux 5.14; the kernel makes sure that no fork slips through.
    let all_at_once = directory.join("cgroup.kill");
    if all_at_once.exists() {
        return file::write(&all_at_once, "1");
    }
    by_signals(directory)
}

/// Freezes where that is possible, so that none forks meanwhile, signals each, and thaws: a frozen
/// process of v1 dies only then.
pub(super) fn by_signals(directory: &Path) -> Result<()> {
    let freezes = directory.join("cgroup.freeze").exists() || directory.join("freezer.state").exists();
    if freezes {
        match freeze::set(directory, true, FREEZE_WAIT) {
            Ok(()) | Err(Error::Timeout { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    // Without a freezer a process may fork before its signal: the next round gets the child. A bomb
    // that outruns this is ended by `pids.max`.
    let mut signalled = BTreeSet::new();
    let mut rounds = || -> Result<()> {
        for _ in 0..64 {
            let fresh: Vec<i32> = all_processes(directory)?
                .into_iter()
                .filter(|pid| signalled.insert(*pid))
                .collect();
            if fresh.is_empty() {
                break;
            }
            signal(directory, &fresh)?;
        }
        Ok(())
    };
    let result = rounds();
    if freezes {
        freeze::set(directory, false, FREEZE_WAIT)?;
    }
    result
}

/// Signals processes by descriptors, opened before it is looked at again which of them are in the
/// cgroup: a number may have gone to another process.
fn signal(directory: &Path, pids: &[i32]) -> Result<()> {
    if pids.contains(&0) {
        return Err(Error::Foreign(directory.into()));
    }
    let opened: Vec<_> = pids
        .iter()
        .filter_map(|pid| Some((*pid, pidfd_open(Pid::from_raw(*pid)?, PidfdFlags::empty()).ok()?)))
        .collect();
    let still: BTreeSet<i32> = all_processes(directory)?.into_iter().collect();
    for (_, process) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
        match pidfd_send_signal(process, Signal::KILL) {
            // It died meanwhile.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(Error::system("pidfd_send_signal")(errno)),
        }
    }
    Ok(())
}
