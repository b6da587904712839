//! Who lives: a supervisor holds a lock on a file for as long as its process exists.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::InstanceError;
use crate::lock::is_at;

/// How long a lock is tried that somebody may hold only to look at it, and may be made to stand still meanwhile.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// The mark of a living supervisor. A child process must not keep it: the jail closes what it inherits.
#[derive(Debug)]
pub struct Live {
    file: File,
    path: PathBuf,
}

impl Live {
    /// Marks this process as the supervisor; `None` if there is one already.
    pub(super) fn claim(path: &Path) -> Result<Option<Self>, InstanceError> {
        let start = Instant::now();
        while start.elapsed() < LOOKED_AT {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(path).map_err(InstanceError::file("create", path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Whoever found it dead may have removed it meanwhile.
                Ok(()) if is_at(&file, path) => {
                    return Ok(Some(Self {
                        file,
                        path: path.to_owned(),
                    }));
                }
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(1)),
                Err(error) => return Err(InstanceError::file("lock", path)(error.into())),
            }
        }
        Ok(None)
    }

    /// The mark of a supervisor that died, if it did: `None` if it lives, or if there is no mark.
    pub(super) fn of_dead(path: &Path) -> Result<Option<Self>, InstanceError> {
        let file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(InstanceError::file("open", path)(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_at(&file, path) => Ok(Some(Self {
                file,
                path: path.to_owned(),
            })),
            Ok(()) | Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(InstanceError::file("lock", path)(error.into())),
        }
    }

    /// Whether the supervisor that made this mark lives.
    pub(super) fn is(path: &Path) -> bool {
        let Ok(file) = File::open(path) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    }

    /// Waits until the supervisor that made this mark has ended, or died.
    pub(super) fn wait(path: &Path) -> Result<(), InstanceError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(InstanceError::file("open", path)(error)),
        };
        loop {
            match flock(&file, FlockOperation::LockShared) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(InstanceError::file("lock", path)(error.into())),
            }
        }
    }

    /// Takes the mark away: the supervisor has nothing more to do.
    pub(super) fn end(self) -> Result<(), InstanceError> {
        fs::remove_file(&self.path).map_err(InstanceError::file("remove", &self.path))?;
        drop(self.file);
        Ok(())
    }
}
