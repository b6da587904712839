//! What instances do that have nothing to do.

use std::{
    thread,
    time::{Duration, Instant},
};

use chiton_bench::{
    Result,
    host::{Activity, Processes},
    run::{Case, Samples, Unit},
    trial::{self, TrialError},
};

use super::{Bench, show};

/// How often one looks whether a signal has come.
const TICK: Duration = Duration::from_millis(100);

/// Watches all instances for a time.
pub(super) fn watch(bench: &Bench<'_>, time: Duration, count: usize) -> Result<Vec<Case>> {
    let processes = Processes::of(bench.chiton.home())?;
    let before = of_each(&processes)?;
    bench.live.begin(&format!("watching {count} for {} s", time.as_secs()));
    let began = Instant::now();
    while began.elapsed() < time {
        thread::sleep(TICK);
        bench.interrupt.check()?;
    }
    let after = of_each(&processes)?;
    if before.len() != after.len() {
        return Err(TrialError::Found("instances ended while they were watched".into()).into());
    }
    let done = before.iter().zip(&after).map(|(before, after)| *after - *before);
    let done: Vec<Activity> = done.collect();
    cases(&done, time)
}

fn of_each(processes: &Processes) -> trial::Result<Vec<Activity>> {
    let of = |instance: &Vec<u32>| -> trial::Result<Activity> {
        let mut all = Activity::default();
        for pid in instance {
            all += Activity::of(*pid)?;
        }
        Ok(all)
    };
    processes.instances.iter().map(of).collect()
}

fn cases(done: &[Activity], time: Duration) -> Result<Vec<Case>> {
    let seconds = time.as_secs();
    let group = format!("idle for {seconds} s");
    let case = |name, what, unit, of: fn(&Activity) -> u64| -> Result<Case> {
        let samples = Samples::of(done.iter().map(of))?;
        Ok(Case::measured(name, &group, what, unit, vec![samples]))
    };
    Ok(vec![
        case(
            show::TIME,
            "processor time of an instance, its supervisor and all threads of its guest's process",
            Unit::Nanoseconds,
            |activity| activity.time,
        )?,
        case(
            show::SWITCHES,
            "context switches of an instance: how often a thread of it was woken, at most",
            Unit::Count,
            |activity| activity.switches,
        )?,
        case(show::THREADS, "threads of an instance", Unit::Count, |activity| {
            activity.threads
        })?,
    ])
}
