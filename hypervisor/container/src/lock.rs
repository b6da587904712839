//! Locks on files that may be removed by who holds them.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether an open file is the one that has this path: who had the lock of it may have removed it, and somebody may
/// have made another since.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

/// Waits until it is so. A child that another test starts has the locks of this process until it runs its program, so
/// that what has just been let go of may be held for a moment longer.
#[cfg(test)]
pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed().as_secs() < 60, "still not so after a minute");
        std::thread::yield_now();
    }
}
