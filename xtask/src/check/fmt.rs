//! `cargo xtask fmt`: the layout of the sources.

use crate::{build::cargo, command, error::Result, paths, ui::Task};

/// Formats all sources; with `check`, only looks whether they are formatted.
///
/// # Errors
///
/// If something is not formatted, or cannot be.
pub(crate) fn run(check: bool) -> Result<()> {
    let task = Task::start(if check { "checking the format" } else { "formatting" });
    // What nobody builds who does not ask for it is formatted all the same.
    let peers = ["host", "guest"].map(|peer| paths::root().join("xtask/peers/hyperlight").join(peer));
    for workspace in super::workspaces().into_iter().chain(peers) {
        let mut fmt = cargo();
        fmt.args(["fmt", "--all"]).current_dir(workspace);
        if check {
            fmt.arg("--check");
        }
        command::quietly(&task, &mut fmt)?;
    }
    task.done();
    Ok(())
}
