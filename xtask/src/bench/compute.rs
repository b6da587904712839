//! The guest `compute`, whose work runs on the host too.

use std::process::Command;

use super::{start::verdict, stats::Samples};
use crate::{
    build, command,
    error::{Error, Result},
    guests::{self, guest_cargo},
    paths,
    ui::Task,
};

const MILLI: f64 = 1e3;
const GOAL: f64 = 1.03;
const ITERATIONS: &str = "10";

/// Measures and prints. Both programs time each iteration themselves, so start-up does not count.
pub(super) fn run(runs: usize) -> Result<()> {
    let chiton = build::chiton()?;
    let guest = guests::resolve("compute")?;
    let native = example("native")?;
    let mut here = Command::new(native);
    here.arg(ITERATIONS);
    let mut inside = build::without_jail(&chiton);
    inside.arg("run").arg(guest).arg(ITERATIONS);

    let task = Task::start("computing");
    let mut samples = [Samples::default(), Samples::default()];
    for round in 1..=runs {
        task.detail(&format!("round {round} of {runs}"));
        for (program, samples) in [&mut here, &mut inside].into_iter().zip(&mut samples) {
            let output = command::quietly(&task, program)?;
            let before = samples.count();
            iterations(&output).for_each(|seconds| samples.push(seconds));
            if samples.count() == before {
                return Err(Error::Found(format!("{program:?} prints no times:\n{output}")));
            }
        }
    }
    task.done();

    let [native, guest] = samples;
    println!("one iteration of the floating-point workload, ms, {runs} interleaved runs of {ITERATIONS} iterations");
    println!("{:<30} {:>9} {:>9} {:>9}", "", "median", "p10", "p90");
    println!("{:<30} {}", "native process", native.columns(MILLI));
    println!("{:<30} {}", "guest in ring 3", guest.columns(MILLI));
    let ratio = guest.median() / native.median();
    println!(
        "the guest takes {ratio:.3} times the native process; goal: at most {GOAL}, {}",
        verdict(ratio <= GOAL)
    );
    Ok(())
}

/// The workload as a program of the host, an example of this name.
pub(super) fn example(name: &str) -> Result<std::path::PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let task = Task::start("building the workload for the host");
    let built = paths::target().join("guest-build");
    let mut build = guest_cargo(&paths::apps());
    build.args([
        "build",
        "--release",
        "--package",
        "compute-workload",
        "--example",
        name,
        "--target",
        TARGET,
    ]);
    command::quietly(&task, build.env("CARGO_TARGET_DIR", &built))?;
    task.done();
    Ok(built.join(TARGET).join("release/examples").join(name))
}

/// The times in lines such as `iteration 3: 9120341 ns, checksum …`, in seconds.
fn iterations(output: &str) -> impl Iterator<Item = f64> {
    let lines = output.lines().filter(|line| line.starts_with("iteration "));
    lines.filter_map(|line| {
        line.split_once(": ")?
            .1
            .split(' ')
            .next()?
            .parse::<f64>()
            .ok()
            .map(|ns| ns / 1e9)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_what_both_programs_print() {
        let output = "iteration 1: 2000000 ns, checksum 00ff\nbest of 1: 2000000 ns\n";
        assert_eq!(iterations(output).collect::<Vec<_>>(), [0.002]);
    }
}
