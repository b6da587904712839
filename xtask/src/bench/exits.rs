//! One exit to userspace: a write to a port that means nothing, through Chiton and bare.

use super::{
    floor,
    start::verdict,
    stats::{Program, Samples, interleaved},
};
use crate::{build, error::Result, guests};

const MICRO: f64 = 1e6;
const GOAL: f64 = 1.05;

/// Measures and prints. The time of an exit is that of a run with all exits less that of a run with none, by their
/// number.
pub(super) fn run(runs: usize, exits: u32) -> Result<()> {
    let chiton = build::chiton()?;
    let guest = guests::resolve("exits")?;
    let floor = floor::build()?;
    let count = exits.to_string();
    let through = |count: &str| {
        let mut run = build::without_jail(&chiton);
        run.arg("run").arg(&guest).arg(count);
        run
    };
    let mut programs = [
        Program::new("floor, none", floor::command(&floor, &["exits", "0"])),
        Program::new("floor", floor::command(&floor, &["exits", &count])),
        Program::new("chiton, none", through("0")),
        Program::new("chiton", through(&count)),
    ];
    let samples = interleaved("exits to userspace", &mut programs, runs)?;
    let [bare_none, bare, through_none, through] = &samples[..] else {
        return Ok(());
    };
    println!("one exit to userspace and back, µs, {runs} interleaved runs of {exits} exits");
    println!("{:<30} {:>9} {:>9} {:>9}", "", "median", "p10", "p90");
    let bare = each(bare, bare_none, exits, "bare KVM_RUN loop");
    let through = each(through, through_none, exits, "chiton run");
    let ratio = through / bare;
    println!(
        "chiton takes {ratio:.3} times the bare loop; goal: at most {GOAL}, {}",
        verdict(ratio <= GOAL)
    );
    Ok(())
}

/// Prints the time of one exit and returns its median.
fn each(all: &Samples, none: &Samples, exits: u32, name: &str) -> f64 {
    let one = |part: f64| (all.quantile(part) - none.median()) / f64::from(exits) * MICRO;
    println!("{name:<30} {:>9.2} {:>9.2} {:>9.2}", one(0.5), one(0.1), one(0.9));
    one(0.5)
}
