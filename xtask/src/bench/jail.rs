//! A guest in its jail, beside others: builds and installs what `chiton-bench jail` measures.

use super::floor;
use crate::{
    build, command,
    error::{Error, Result},
    guests, paths, tools,
    ui::Task,
};

/// Builds, measures and prints.
pub(super) fn run(runs: usize, instances: usize, stopped: usize) -> Result<()> {
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
    let chiton = build::chiton()?;
    let guest = guests::resolve("hello")?;
    let floor = floor::build()?;
    let walls = walls()?;
    let mut bench = std::process::Command::new(build::bench()?);
    bench.arg("jail");
    for (option, file) in [
        ("--chiton", chiton.as_path()),
        ("--guest", guest.as_path()),
        ("--floor", &floor),
        ("--walls", &walls),
        ("--place", &paths::target()),
    ] {
        bench.arg(option).arg(file);
    }
    for (option, count) in [("--runs", runs), ("--instances", instances), ("--stopped", stopped)] {
        bench.arg(option).arg(count.to_string());
    }
    command::openly(&mut bench).map(drop)
}

/// The example of the container layer that leaves out one wall at a time.
fn walls() -> Result<std::path::PathBuf> {
    let task = Task::start("building the jails with a wall left out");
    let example = ["--release", "--package", "chiton-container", "--example", "cost"];
    command::quietly(&task, build::cargo().arg("build").args(example))?;
    task.done();
    Ok(paths::target().join("release/examples/cost"))
}
