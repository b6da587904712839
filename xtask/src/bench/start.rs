//! From exec to exit: the floor, the guest hello, and peers that are installed.

use std::{fs, path::Path, process::Command};

use super::{
    floor, memory,
    stats::{Program, Samples, interleaved},
};
use crate::{
    build, command,
    error::{Error, Result},
    guests,
};

const MILLI: f64 = 1e3;
const GOAL: f64 = 1.25;
const GOAL_PSS_KB: u64 = 1500;
const GOAL_SIZE_KB: u64 = 3 << 10;

/// Measures and prints.
pub(super) fn run(runs: usize) -> Result<()> {
    let chiton = build::chiton()?;
    let hello = guests::resolve("hello")?;
    let cat = guests::resolve("cat")?;
    let floor = floor::build()?;
    let mut programs = vec![
        Program::new("empty process", floor::command(&floor, &["nothing"])),
        Program::new("floor: bare ioctls, one exit", floor::command(&floor, &["once"])),
        Program::new("chiton run hello", {
            let mut run = build::without_jail(&chiton);
            run.arg("run").arg(&hello);
            run
        }),
    ];
    programs.extend(peers());
    let mut programs: Vec<_> = programs.into_iter().map(Program::urgent).collect();
    let samples = interleaved("from exec to exit", &mut programs, runs)?;
    print(&programs, &samples, runs);
    size_and_memory(&chiton, &cat)
}

fn print(programs: &[Program], samples: &[Samples], runs: usize) {
    println!("exec to exit, ms, {runs} interleaved runs");
    println!(
        "{:<30} {:>9} {:>9} {:>9} {:>10}",
        "", "median", "p10", "p90", "of floor"
    );
    let floor = samples[1].median();
    for (program, samples) in programs.iter().zip(samples) {
        println!(
            "{:<30} {} {:>10.2}",
            program.name,
            samples.columns(MILLI),
            samples.median() / floor
        );
    }
    let ratio = samples[2].median() / floor;
    println!(
        "chiton takes {ratio:.2} times the floor; goal: at most {GOAL}, {}",
        verdict(ratio <= GOAL)
    );
}

fn size_and_memory(chiton: &Path, cat: &Path) -> Result<()> {
    let size = fs::metadata(chiton).map_err(Error::file("read", chiton))?.len() >> 10;
    let idle = memory::of_idle_guest(chiton, cat)?;
    println!("\nmemory of `chiton run cat` waiting for input, kB");
    println!("{:<30} {:>9}", "PSS in all", idle.total);
    println!("{:<30} {:>9}", "  of it guest memory", idle.guest);
    let beyond = idle.total.saturating_sub(idle.guest);
    let met = verdict(beyond <= GOAL_PSS_KB);
    println!("{:<30} {beyond:>9}  goal: at most {GOAL_PSS_KB}, {met}", "  beyond it");
    println!(
        "{:<30} {size:>9}  goal: at most {GOAL_SIZE_KB}, {}",
        "size of the program",
        verdict(size <= GOAL_SIZE_KB)
    );
    Ok(())
}

/// In words whether a goal is met.
pub(super) fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// What others do in that time, where they are installed.
fn peers() -> Vec<Program> {
    let candidates: [(&str, &str, &[&str]); 2] = [
        (
            "bubblewrap /bin/true",
            "bwrap",
            &["--unshare-all", "--ro-bind", "/", "/", "/bin/true"],
        ),
        // Solo5 has no fixed place for its example.
        ("solo5-hvt test_hello.hvt", "solo5-hvt", &["test_hello.hvt"]),
    ];
    let installed = candidates.into_iter().filter_map(|(name, program, arguments)| {
        let mut run = Command::new(command::find(program)?);
        run.args(arguments);
        Some(Program::new(name, run))
    });
    // One that is installed and does not work here must not end the measurement.
    installed
        .filter_map(|mut program| program.time().is_ok().then_some(program))
        .collect()
}
