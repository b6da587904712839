//! The guest `parallel`, whose work runs on threads of the host too.

use std::process::Command;

use super::{compute::example, start::verdict, stats::Samples};
use crate::{
    build, command,
    error::{Error, Result},
    guests,
    ui::Task,
};

/// What part of the native speed-up a guest has to reach.
const GOAL: f64 = 0.95;
const PIECES: &str = "32";

/// Measures and prints: how much faster so many processors are than one.
pub(super) fn run(runs: usize, processors: usize) -> Result<()> {
    let count = processors.to_string();
    let chiton = build::chiton()?;
    let guest = guests::resolve("parallel")?;
    let mut here = Command::new(example("threads")?);
    here.args([&count, PIECES]);
    let mut inside = build::without_jail(&chiton);
    inside.args(["run", "--cpus", &count]).arg(guest).arg(PIECES);

    let task = Task::start("computing");
    let mut samples = [Samples::default(), Samples::default()];
    for round in 1..=runs {
        task.detail(&format!("round {round} of {runs}"));
        for (program, samples) in [&mut here, &mut inside].into_iter().zip(&mut samples) {
            let output = command::quietly(&task, program)?;
            let [one, all] = times(&output)
                .ok_or_else(|| Error::Found(format!("{program:?} does not print two times:\n{output}")))?;
            samples.push(one / all);
        }
    }
    task.done();

    let [native, guest] = samples;
    println!("{count} processors against one, as a factor, {runs} interleaved runs of {PIECES} pieces");
    println!("{:<30} {:>9} {:>9} {:>9}", "", "median", "p10", "p90");
    println!("{:<30} {}", "threads of a native process", native.columns(1.0));
    println!("{:<30} {}", "processors of a guest", guest.columns(1.0));
    let ratio = guest.median() / native.median();
    println!(
        "the guest gains {ratio:.3} times what the native process gains; goal: at least {GOAL}, {}",
        verdict(ratio >= GOAL)
    );
    Ok(())
}

/// The times in two lines such as `2 processors: 54082 us`, in microseconds.
fn times(output: &str) -> Option<[f64; 2]> {
    let mut times = output.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':').filter(|(what, _)| what.contains("processor"))?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    });
    Some([times.next()?, times.next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_what_both_programs_print() {
        let guest = "1 processor:  200 us for 2 pieces\n2 processors: 100 us; pieces each: [1, 1]\n";
        assert_eq!(times(guest), Some([200.0, 100.0]));
        assert_eq!(times("1 processors: 7 us\n2 processors: 5 us\n"), Some([7.0, 5.0]));
        assert_eq!(times("1 processor: 7 us\n"), None);
    }
}
