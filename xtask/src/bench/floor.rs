//! The program `xtask/floor`, which makes the bare ioctls and nothing else.

use std::{path::PathBuf, process::Command};

use crate::{
    build::{STATIC_TARGET, cargo},
    command,
    error::Result,
    paths,
    ui::Task,
};

/// Builds it and returns its path.
pub(super) fn build() -> Result<PathBuf> {
    let task = Task::start("building the floor program");
    let target = paths::target().join("floor");
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--target", STATIC_TARGET]);
    build
        .current_dir(paths::root().join("xtask/floor"))
        .env("CARGO_TARGET_DIR", &target);
    command::quietly(&task, &mut build)?;
    task.done();
    Ok(target.join(STATIC_TARGET).join("release/floor"))
}

/// The floor program with these arguments.
pub(super) fn command(floor: &PathBuf, arguments: &[&str]) -> Command {
    let mut command = Command::new(floor);
    command.args(arguments);
    command
}
