//! The guest `parallel`, whose work runs on threads of the host too.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use chiton_bench::trial::{Result, TrialError, answer};
use compute_workload::Workload;

use super::bench::Bench;
use super::{Figures, verdict};

/// What part of the native speed-up a guest has to reach.
const GOAL: f64 = 0.95;
/// How many pieces of work there are.
const PIECES: usize = 32;

/// Measures and prints: how much faster so many processors are than one.
pub(super) fn run(bench: &Bench, processors: usize) -> Result<()> {
    let (count, pieces) = (processors.to_string(), PIECES.to_string());
    let program = bench.guest("parallel")?;
    let [mut native, mut guest] = [const { Figures::new() }; 2];
    for round in 0..bench.runs {
        bench.round(round, "computing")?;
        native.push(natively(1)? / natively(processors)?);
        let output = answer(&mut program.command(&["--cpus", &count], &[&pieces]))?;
        let [one, all] =
            times(&output).ok_or_else(|| TrialError::Found(format!("parallel does not print two times:\n{output}")))?;
        guest.push(one / all);
    }
    let rows = [
        ("threads of a native process", &native),
        ("processors of a guest", &guest),
    ];
    let title = format!("{count} processors against one, as a factor, {PIECES} pieces");
    bench.table(&title, &rows, 1.0);
    let ratio = guest.median() / native.median();
    bench.say(&format!(
        "the guest gains {ratio:.3} times what the native process gains; goal: at least {GOAL}, {}",
        verdict(ratio >= GOAL)
    ));
    Ok(())
}

/// The seconds in which so many threads have done all pieces.
fn natively(threads: usize) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let work = || {
        while next.fetch_add(1, Ordering::Relaxed) < PIECES {
            Workload::new().run()?;
        }
        Ok::<_, compute_workload::Wrong>(())
    };
    let start = Instant::now();
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for one in all {
            let ended = one.join().map_err(|_| TrialError::Found("a thread died".into()))?;
            ended.map_err(|wrong| TrialError::Found(format!("this machine computes wrongly: {wrong}")))?;
        }
        Ok(start.elapsed().as_secs_f64())
    })
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
