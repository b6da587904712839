//! Builds the `chiton` program.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{command, error::Result, paths, tools, ui::Task};

/// The target of everything that must run in the nested machine too: static programs.
pub(crate) const STATIC_TARGET: &str = "x86_64-unknown-linux-musl";

/// Cargo in the repository's top directory.
#[must_use]
pub(crate) fn cargo() -> Command {
    use std::io::IsTerminal;
    let mut cargo = in_repository("cargo");
    if std::io::stderr().is_terminal() {
        // What we keep to show on failure should look as if cargo had printed it.
        cargo.env("CARGO_TERM_COLOR", "always");
    }
    cargo
}

/// A program in the repository's top directory, where `rust-toolchain.toml` chooses the toolchain.
#[must_use]
pub(crate) fn in_repository(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(paths::root());
    command
}

/// Builds the static release of `chiton` and returns its path.
///
/// # Errors
///
/// If it does not build.
pub(crate) fn chiton() -> Result<PathBuf> {
    release("chiton", |build| build)
}

/// Builds the static release of `chiton-bench` and returns its path, which is beside that of `chiton`. It knows the
/// commit that it is built of.
///
/// # Errors
///
/// If it does not build.
pub(crate) fn bench() -> Result<PathBuf> {
    let mut describe = in_repository("git");
    describe.args(["describe", "--always", "--dirty"]);
    let commit = command::answer(&mut describe);
    release("chiton-bench", |build| match commit {
        Some(commit) => build.env("CHITON_COMMIT", commit.trim()),
        None => build,
    })
}

fn release(package: &str, with: impl FnOnce(&mut Command) -> &mut Command) -> Result<PathBuf> {
    tools::target(STATIC_TARGET)?;
    let task = Task::start(format!("building {package}"));
    let mut build = cargo();
    build.args(["build", "--release", "--package", package, "--target", STATIC_TARGET]);
    command::quietly(&task, with(&mut build))?;
    task.done();
    Ok(paths::target().join(STATIC_TARGET).join("release").join(package))
}

/// This `chiton` without a jail round the guest: what is tried and measured is a machine, whoever calls.
pub(crate) fn without_jail(chiton: &Path) -> Command {
    let mut command = Command::new(chiton);
    command.env("CHITON_JAIL", "off");
    command
}
