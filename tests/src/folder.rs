//! A place to work in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that is gone when the test is over.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new, empty folder.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "chiton-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    /// A copy of a program in it, which anybody may run.
    ///
    /// Another process makes it. While this one wrote, a child that another test starts at that moment would have the
    /// file open for writing too, and the kernel runs nothing that is.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    #[must_use]
    pub fn program(&self, from: &Path, name: &str) -> PathBuf {
        let to = self.path(name);
        let copied = Command::new("cp").args([from, &to]).status().expect("cp starts");
        assert!(copied.success(), "cp {} {}", from.display(), to.display());
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("own file");
        to
    }

    /// A shell script, which anybody may run; made by another process, as a [`program`](Self::program) is.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    #[must_use]
    pub fn script(&self, name: &str, lines: &str) -> PathBuf {
        let written = self.file(&format!("{name}.text"), format!("#!/bin/sh\n{lines}\n"));
        let script = self.program(&written, name);
        fs::remove_file(written).expect("own file");
        script
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file in it, with these bytes.
    #[must_use]
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a file for the test");
        path
    }

    /// The names of what is in it.
    ///
    /// # Panics
    ///
    /// If the folder is gone.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the folder is there");
        entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
