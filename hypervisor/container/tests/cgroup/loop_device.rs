//! A block device over a file.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A loop device over a file of its own.
pub(crate) struct LoopDevice {
    pub(crate) node: String,
    pub(crate) file: PathBuf,
}

impl LoopDevice {
    /// One of so many bytes; `None` where there can be none.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("chiton-cgroup-disk-{}-{number}", std::process::id()));
        std::fs::write(&file, vec![1; bytes]).ok()?;
        // A device that was free may be somebody else's by the time it is taken.
        let node = (0..100).find_map(|_| {
            let free = Command::new("losetup").arg("-f").output().ok()?;
            let node = String::from_utf8(free.stdout).ok()?.trim().to_owned();
            let set = Command::new("losetup").arg(&node).arg(&file).output().ok()?;
            set.status.success().then_some(node)
        });
        if node.is_none() {
            let _ = std::fs::remove_file(&file);
        }
        Some(Self { node: node?, file })
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.node]).status();
        let _ = std::fs::remove_file(&self.file);
    }
}
