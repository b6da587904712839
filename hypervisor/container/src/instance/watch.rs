//! Waiting for files to change, without looking at them again and again.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::InstanceError;

/// Watches folders and files.
#[derive(Debug)]
pub struct Watch {
    notifications: OwnedFd,
}

impl Watch {
    /// Watches these: what is written into a file, and which files of a folder are made, renamed or
    /// removed.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`] if one of them is not there; [`InstanceError::System`] if the kernel
    /// watches too many already.
    pub fn new(paths: &[&Path]) -> Result<Self, InstanceError> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let notifications = inotify::init(flags).map_err(InstanceError::system("watch files"))?;
        let changes = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::MOVE_SELF;
        for path in paths {
            inotify::add_watch(&notifications, *path, changes)
                .map_err(|error| InstanceError::file("watch", path)(error.into()))?;
        }
        Ok(Self { notifications })
    }

    /// Waits until something has changed since this was last called, or for so long.
    ///
    /// # Errors
    ///
    /// [`InstanceError::System`].
    pub fn wait(&self, limit: Duration) -> Result<(), InstanceError> {
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        let mut ready = [PollFd::new(&self.notifications, PollFlags::IN)];
        match poll(&mut ready, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(InstanceError::system("watch files")(error)),
        }
        // What changed is not asked: whoever waits looks at all of it.
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.notifications, &mut buffer).is_ok_and(|len| len > 0) {}
        Ok(())
    }
}
