//! A guest in its jail, beside others: builds and installs what `chiton-bench jail` measures.

use super::{floor, lab};
use crate::{
    build, command,
    error::{Error, Result},
    paths, tools,
    ui::Task,
};

/// Builds, measures and prints; returns the status.
pub(super) fn run(runs: usize, instances: usize, stopped: usize) -> Result<i32> {
    if !command::is_root() {
        return Err(Error::Usage(
            "the jails that are compared are those of root: run this as root".into(),
        ));
    }
    for (program, package) in [("crun", "crun"), ("runc", "runc"), ("bwrap", "bubblewrap")] {
        // Whoever is missing is told of in the table.
        if let Err(why) = tools::debian(program, package) {
            eprintln!("  {program}: {why}");
        }
    }
    let mut words = vec!["jail".to_owned()];
    for (option, file) in [
        ("--floor", floor::build()?),
        ("--walls", walls()?),
        ("--place", paths::target()),
    ] {
        words.extend([option.to_owned(), file.display().to_string()]);
    }
    for (option, count) in [("--runs", runs), ("--instances", instances), ("--stopped", stopped)] {
        words.extend([option.to_owned(), count.to_string()]);
    }
    lab::run(&words, &[])
}

/// The example of the container layer that leaves out one wall at a time.
fn walls() -> Result<std::path::PathBuf> {
    let task = Task::start("building the jails with a wall left out");
    let example = ["--release", "--package", "chiton-container", "--example", "cost"];
    command::quietly(&task, build::cargo().arg("build").args(example))?;
    task.done();
    Ok(paths::target().join("release/examples/cost"))
}
