//! A guest that goes on from a snapshot, beside the bare ioctls with memory mapped from a file: from before exec to just
//! before the guest's first instruction, and to the end of the process.
//!
//! The guest waits, and ends as soon as it finds that it has gone on: that takes it a few instructions, and the pages of
//! its stack, its code and the boot page, where the floor's guest has one page of code.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use super::{
    floor,
    start::verdict,
    stats::{Program, Samples, interleaved_with_first},
};
use crate::{
    build, command,
    error::{Error, Result},
    guests,
    ui::Task,
};

/// Guest memory, in MiB.
const SIZES: [u32; 3] = [16, 256, 1024];
/// What a start may take more than the bare ioctls, in milliseconds.
const GOAL: f64 = 0.5;
const MILLI: f64 = 1e3;

/// Measures and prints.
pub(super) fn run(runs: usize) -> Result<()> {
    let chiton = build::chiton()?;
    let guest = guests::resolve("counter")?;
    let floor = floor::build()?;
    let place = Place::new()?;
    let mut programs = Vec::new();
    for mib in SIZES {
        let image = place.0.join(format!("floor-{mib}"));
        let (path, size) = (image.display().to_string(), mib.to_string());
        command::quietly(
            &Task::start("making memory"),
            &mut floor::command(&floor, &["image", &path, &size]),
        )?;
        let floor = floor::command(&floor, &["snapshot", &path, &size]);
        programs.push(Program::new(&format!("floor, {mib} MiB mapped"), floor));
        let snapshot = place.0.join(format!("snapshot-{mib}"));
        take(&chiton, &guest, mib, &place.0.join("c.sock"), &snapshot)?;
        programs.push(Program::new(&format!("chiton run --from, {mib} MiB"), {
            let mut run = build::without_jail(&chiton);
            run.arg("run").arg("--from").arg(&snapshot);
            run
        }));
    }
    let programs = programs.into_iter().map(|program| program.urgent().telling());
    let mut programs = programs.collect::<Result<Vec<_>>>()?;
    let (firsts, samples) = interleaved_with_first("from exec to exit", &mut programs, runs)?;
    let worst = print("exec to the guest's first instruction", &programs, &firsts, runs);
    println!();
    print("exec to exit", &programs, &samples, runs);
    println!(
        "from a snapshot to the guest's first instruction takes {worst:.2} ms more than the bare ioctls; goal: at most {GOAL}, {}",
        verdict(worst <= GOAL)
    );
    Ok(())
}

/// Prints a table; returns by how many milliseconds `chiton` is beyond the floor before it at most.
fn print(what: &str, programs: &[Program], samples: &[Samples], runs: usize) -> f64 {
    println!("{what}, ms, {runs} interleaved runs");
    println!(
        "{:<30} {:>9} {:>9} {:>9} {:>12}",
        "", "median", "p10", "p90", "beyond floor"
    );
    let mut worst = f64::NEG_INFINITY;
    for pair in programs.iter().zip(samples).collect::<Vec<_>>().chunks(2) {
        let floor = pair[0].1.median();
        for (program, samples) in pair {
            let beyond = (samples.median() - floor) * MILLI;
            println!("{:<30} {} {beyond:>12.2}", program.name, samples.columns(MILLI));
        }
        worst = worst.max(pair.last().map_or(0.0, |(_, samples)| samples.median() - floor) * MILLI);
    }
    worst
}

/// Has a guest with so much memory wait, and takes a snapshot of it, with which it ends.
pub(crate) fn take(chiton: &Path, guest: &Path, mib: u32, socket: &Path, snapshot: &Path) -> Result<()> {
    let task = Task::start("taking a snapshot");
    let mut run = build::without_jail(chiton);
    run.args(["run", "--memory", &format!("{mib}M"), "--control"])
        .arg(socket)
        .arg(guest)
        .arg("wait");
    let mut child = run
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Start {
            program: chiton.display().to_string(),
            source,
        })?;
    let taken = until_ready(&mut child).and_then(|()| {
        let mut take = std::process::Command::new(chiton);
        take.args(["snapshot", "--stop"]).arg(socket).arg(snapshot);
        command::quietly(&task, &mut take).map(drop)
    });
    if taken.is_err() {
        drop(child.kill());
    }
    drop(child.wait());
    taken
}

fn until_ready(child: &mut Child) -> Result<()> {
    let output = child
        .stdout
        .take()
        .ok_or_else(|| Error::Found("a guest without output".into()))?;
    let line = BufReader::new(output).lines().next();
    match line {
        Some(Ok(line)) if line == "ready" => Ok(()),
        other => Err(Error::Found(format!("the guest said {other:?} instead of `ready`"))),
    }
}

/// A folder, which is removed at the end.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("chiton-bench-snapshot-{}", std::process::id()));
        fs::create_dir(&path).map_err(Error::file("make", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
