//! Commands of `chiton` with a record of instances of their own.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::{Folder, chiton_path};

/// A folder, in which commands are run, and a record in it. Unlike [`Chiton`](crate::Chiton) it does not look at what a
/// command leaves behind, which may be an instance.
#[derive(Debug)]
pub struct Record {
    folder: Folder,
    environment: Vec<(&'static str, String)>,
}

impl Record {
    /// An empty one; commands have these variables besides.
    #[must_use]
    pub fn new(environment: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self {
            folder: Folder::new(),
            environment: environment.into_iter().collect(),
        }
    }

    /// The folder that commands run in.
    #[must_use]
    pub const fn folder(&self) -> &Folder {
        &self.folder
    }

    /// CHITON_HOME.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.path("home")
    }

    /// A command, with nothing to read.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(chiton_path());
        crate::heed_signals(&mut command);
        command
            .args(args)
            .env_remove("CHITON_JAIL")
            .env("CHITON_HOME", self.home())
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .current_dir(self.folder.path(""));
        command
    }

    /// What a command prints, and how it ends.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("chiton starts")
    }

    /// Does what has to succeed; what it printed.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        ok(args, &self.output(args))
    }
}

/// What a command printed that has to succeed.
///
/// # Panics
///
/// If it did not, with what it said.
#[track_caller]
pub fn ok(args: &[&str], output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}: {said}", output.status);
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}
