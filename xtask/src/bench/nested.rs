//! The same work on three levels, by one command: natively and in a guest here, and in a guest of the nested machine.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    build, command,
    error::{Error, Result},
    guests, lab, paths, qemu,
};

/// Between the two measurements of the nested machine: each is one line.
const LINES: &str = "chiton-bench nested --native /n --guest /g --patience 60";

/// Measures in the nested machine first, since that can fail, then here, and prints the table; returns the status.
///
/// # Errors
///
/// If something does not build or run.
pub(super) fn run(repeats: u32, samples: u32, inner_samples: u32) -> Result<i32> {
    // What it prints there is a table without this machine's columns: no part of ours.
    let script =
        format!("{LINES} --repeats {repeats} --samples {inner_samples} >&2 && cat /n && echo && cat /g && echo",);
    let job = lab::job(["sh", "-c", &script].map(str::to_owned).into())?;
    let mut printed = Vec::new();
    let status = qemu::run_into(&job, &mut printed)?;
    if status != 0 {
        return Ok(status);
    }
    let [native, guest] = files(&String::from_utf8_lossy(&printed))?;
    guests::build(&guests::all()?)?;
    let mut bench = Command::new(build::bench()?);
    bench
        .args([
            "nested",
            "--repeats",
            &repeats.to_string(),
            "--samples",
            &samples.to_string(),
        ])
        .arg("--inner-native")
        .arg(native)
        .arg("--inner-guest")
        .arg(guest);
    eprintln!("  here, with the nested machine's figures for the last level:");
    command::status(&mut bench)
}

/// Writes what the nested machine has printed into two files of `target/bench`.
fn files(printed: &str) -> Result<[PathBuf; 2]> {
    let folder = paths::target().join("bench");
    fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    let runs: Vec<_> = printed.lines().filter(|line| !line.is_empty()).collect();
    let [native, guest] = runs[..] else {
        let count = runs.len();
        return Err(Error::Found(format!(
            "the nested machine printed {count} measurements instead of two:\n{printed}"
        )));
    };
    let write = |name: &str, run: &str| {
        let path = folder.join(name);
        fs::write(&path, run).map_err(Error::file("write", &path))?;
        Ok(path)
    };
    Ok([write("nested-native.json", native)?, write("nested-guest.json", guest)?])
}
