//! Where one process keeps what is not finished.

use std::cell::Cell;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::super::Result;
use super::super::error::Doing;
use super::tree;

/// A folder in `tmp`, locked as long as its process lives, and removed with everything in it.
#[derive(Debug)]
pub(super) struct Session {
    folder: PathBuf,
    /// Holds the lock on the folder.
    _alive: File,
    /// Holds the store's `use` lock: nobody removes blobs meanwhile.
    using: File,
    next: Cell<u64>,
}

impl Session {
    /// To be called under the store's lock: else a sweep could come between folder and lock.
    pub(super) fn begin(tmp: &Path, using: File) -> Result<Self> {
        rustix::fs::flock(&using, FlockOperation::LockShared).at("lock", tmp)?;
        let folder = tmp.join(format!("{:016x}", random()?));
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.at("make folder", &folder)?;
        let alive = File::open(&folder).at("open", &folder)?;
        rustix::fs::flock(&alive, FlockOperation::NonBlockingLockExclusive).at("lock", &folder)?;
        Ok(Self {
            folder,
            _alive: alive,
            using,
            next: Cell::new(0),
        })
    }

    /// A path that nobody else uses.
    pub(super) fn path(&self, what: &str) -> PathBuf {
        let number = self.next.replace(self.next.get() + 1);
        self.folder.join(format!("{number}-{what}"))
    }

    /// The file whose lock says that the store is in use.
    pub(super) const fn using(&self) -> &File {
        &self.using
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Whatever stays, the next command sweeps.
        let _ = tree::remove(&self.folder);
    }
}

/// Removes the folders of sessions whose process is dead. To be called under the store's lock.
pub(super) fn sweep(tmp: &Path) -> Result<()> {
    for entry in fs::read_dir(tmp).at("read", tmp)? {
        let path = entry.at("read", tmp)?.path();
        let dead = match File::open(&path) {
            Ok(folder) => rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok(),
            // Its process has just removed it.
            Err(_) => continue,
        };
        if dead && path.is_dir() {
            tree::remove(&path)?;
        } else if dead {
            fs::remove_file(&path).at("remove", &path)?;
        }
    }
    Ok(())
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).doing(|| "get random bytes".into())?;
    Ok(u64::from_ne_bytes(bytes))
}
