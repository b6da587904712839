//! Licences, sources and duplicates of what we depend on, by `deny.toml`.

use std::process::Command;

use crate::{command, error::Result, paths, tools, ui::Task};

/// Checks the dependencies of every workspace. Advisories are left out: their database is a
/// repository of its own, which not every machine can reach.
///
/// # Errors
///
/// If cargo-deny cannot be had, or finds anything.
pub(crate) fn run() -> Result<()> {
    let deny = tools::CARGO_DENY.path()?;
    let task = Task::start("checking the dependencies");
    for workspace in super::workspaces() {
        let mut check = Command::new(&deny);
        check.arg("--manifest-path").arg(workspace.join("Cargo.toml"));
        check.arg("--config").arg(paths::root().join("deny.toml"));
        command::quietly(&task, check.args(["check", "bans", "licenses", "sources"]))?;
    }
    task.done();
    Ok(())
}
