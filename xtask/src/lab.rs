//! `cargo xtask lab`: any command in the nested machine, to look around in it.

use crate::{
    build,
    error::Result,
    guests, paths,
    qemu::{self, Job},
};

/// Boots the nested machine with `chiton` and all guests, and runs `command`, or a shell if that is empty.
///
/// # Errors
///
/// If something does not build, or the machine does not work.
pub(crate) fn run(command: &[String]) -> Result<i32> {
    let command = if command.is_empty() {
        vec!["sh".to_owned()]
    } else {
        command.to_vec()
    };
    qemu::run(&job(command)?)
}

/// A machine with `chiton`, all guests, and `chiton-bench` if the command names it.
///
/// # Errors
///
/// If something does not build.
pub(crate) fn job(command: Vec<String>) -> Result<Job> {
    let chiton = build::chiton()?;
    let guests = guests::all()?;
    guests::build(&guests)?;
    let mut files = vec![(chiton, "/bin/chiton".to_owned())];
    // It takes long to build, and few ask for it.
    let words = command.join(" ");
    if words.contains("chiton-bench") || words.contains("chiton bench") {
        files.push((build::bench()?, "/bin/chiton-bench".to_owned()));
    }
    files.extend(
        guests
            .iter()
            .map(|guest| (paths::guests().join(&guest.name), format!("/guests/{}", guest.name))),
    );
    Ok(Job {
        command,
        files,
        ..Job::default()
    })
}
