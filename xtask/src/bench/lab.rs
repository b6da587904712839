//! What `chiton bench` knows, of programs that are built first.

use crate::{build, command, error::Result, guests};

/// Builds `chiton`, the guests and `chiton-bench`, and asks that; returns its status.
///
/// # Errors
///
/// If something does not build, or the program cannot be run.
pub(super) fn run(words: &[String], theirs: &[String]) -> Result<i32> {
    build::chiton()?;
    guests::build(&guests::all()?)?;
    let mut bench = std::process::Command::new(build::bench()?);
    bench.args(words);
    if !theirs.is_empty() {
        bench.arg("--").args(theirs);
    }
    command::status(&mut bench)
}
