//! The least that the kernel itself takes for a jail like ours with a machine in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use chiton_bench::trial::{Result, TrialError};

/// The name of it in the table.
pub(super) const LEAST: &str = "floor: a jail and a machine, bare";

/// Where cgroups are mounted; in each hierarchy that `chiton` uses here it has made its own by now.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Those of a host that has cgroup v1, in which an instance has one; and v2 alone.
const HIERARCHIES: [&str; 7] = ["unified", "cpu", "cpuacct", "memory", "blkio", "pids", ""];

/// The floor program with what it makes a jail of.
///
/// # Errors
///
/// If its folders cannot be made.
pub(super) fn command(floor: &Path, place: &Path) -> Result<Command> {
    for folder in ["lower/proc", "root"].map(|name| place.join(name)) {
        fs::create_dir_all(&folder).map_err(TrialError::file("create", &folder))?;
    }
    let groups = HIERARCHIES
        .map(|name| Path::new(CGROUPS).join(name).join("chiton"))
        .into_iter()
        .filter(|parent| parent.is_dir())
        .map(|parent| parent.join(format!("floor-{}", std::process::id())));
    let mut command = Command::new(floor);
    command.arg("jail").arg(place).args(groups.collect::<Vec<PathBuf>>());
    Ok(command)
}
