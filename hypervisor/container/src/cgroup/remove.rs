//! Removes a cgroup: kills what is in it, waits for the last to be gone, removes the directories.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::{Error, Result};
use super::group::Cgroup;
use super::{file, kill};

/// How long the last process may take to be gone.
pub(super) const WAIT: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Kills what is still in it, waits until it is empty, at most ten seconds, and removes it.
    pub fn remove(self) -> Result<()> {
        let end = Instant::now() + WAIT;
        // v2 first: it kills all at once, and tells when it is empty. An update by another process may
        // have made a directory that this one does not know.
        self.all_paths()
            .try_for_each(|path| tree(&path, end.saturating_duration_since(Instant::now())))
    }
}

/// Removes a directory and those below it, with what is in them.
pub(super) fn tree(directory: &Path, wait: Duration) -> Result<()> {
    // Most are empty by now, or were never needed.
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {}
        _ => return Ok(()),
    }
    let end = Instant::now() + wait;
    let mut pause = Duration::from_micros(100);
    if directory.join("cgroup.events").exists() && !all_processes(directory)?.is_empty() {
        kill::tree(directory)?;
        await_event(directory, "populated", 0, wait)?;
    }
    loop {
        match remove_once(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            Err(source) => {
                return Err(Error::Directory {
                    action: "remove",
                    path: directory.into(),
                    source,
                });
            }
        }
        let processes = all_processes(directory)?;
        if Instant::now() > end {
            return Err(Error::Timeout {
                path: directory.into(),
                state: "empty",
                waited: wait,
                remaining: processes.len(),
            });
        }
        if !processes.is_empty() {
            kill::tree(directory)?;
        }
        // v1 tells nobody when the last is gone.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Children first. What was jailed may have made some, if it had its own cgroup namespace.
fn remove_once(directory: &Path) -> io::Result<()> {
    for child in children(directory)? {
        remove_once(&child)?;
    }
    fs::remove_dir(directory)
}

fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// The processes in a directory and below it; none if it is gone.
pub(super) fn all_processes(directory: &Path) -> Result<Vec<i32>> {
    let mut processes = Vec::new();
    let mut left = vec![directory.to_path_buf()];
    while let Some(directory) = left.pop() {
        match file::processes(&directory) {
            Ok(found) => processes.extend(found),
            // ENODEV: removed while it was read. EOPNOTSUPP: a threaded one; its processes are above.
            Err(Error::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound
                    || [Some(libc::ENODEV), Some(libc::EOPNOTSUPP)].contains(&source.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        left.extend(children(&directory).unwrap_or_default());
    }
    Ok(processes)
}

/// Waits until a key of `cgroup.events` has a value; false if it took too long. The kernel wakes
/// who polls that file for POLLPRI (cgroup-v2.rst, "[Un]populated Notification").
pub(super) fn await_event(directory: &Path, key: &str, value: u64, wait: Duration) -> Result<bool> {
    let path = directory.join("cgroup.events");
    let failed = |source| Error::Read {
        path: path.clone(),
        source,
    };
    let end = Instant::now() + wait;
    let mut events = match File::open(&path) {
        Ok(events) => events,
        // Gone, so it is empty.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(source) => return Err(failed(source)),
    };
    loop {
        let mut text = String::new();
        events.rewind().map_err(failed)?;
        match events.read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(true),
            Err(source) => return Err(failed(source)),
        }
        if file::flat(&text, key) == Some(value) {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::system("poll")(errno)),
        }
    }
}
