//! `chiton top`: the threads of an instance, which are its processors and its devices.

use std::error::Error;
use std::fs;
use std::path::Path;

use clap::Args;

use super::table;
use crate::say;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The instance: a name, an ID, or the beginning of one.
    #[arg(value_name = "INSTANCE")]
    target: String,
}

pub(super) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let instance = super::open()?.find(&options.target)?;
    let state = instance.state()?;
    let Some(pid) = state.pid.filter(|_| state.status.is_live()) else {
        return Err(instance
            .wrong(state.status, "only an instance that runs has threads")
            .into());
    };
    let mut rows = Vec::new();
    for process in with_children(pid) {
        let tasks = Path::new("/proc").join(process.to_string()).join("task");
        // Threads, and processes, may end while they are listed.
        let Ok(tasks) = fs::read_dir(tasks) else { continue };
        for task in tasks.flatten() {
            rows.extend(
                fs::read_to_string(task.path().join("stat"))
                    .ok()
                    .and_then(|stat| row(process, &stat)),
            );
        }
    }
    say(&table::lines(&["PROCESS", "THREAD", "STATE", "TIME", "NAME"], &rows))?;
    Ok(())
}

/// A process and those it started, and those that they started.
pub(super) fn with_children(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let children: Vec<u32> = children
            .flat_map(|list| {
                list.split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<_>>()
            })
            .collect();
        all.extend(children);
        at += 1;
    }
    all
}

/// The cells of a line of `/proc/PID/task/TID/stat` (proc(5)): thread, state, time, name.
fn row(process: u32, stat: &str) -> Option<Vec<String>> {
    let (thread, rest) = stat.split_once(" (")?;
    // A name may have spaces and brackets in it.
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<_> = rest.split(' ').collect();
    let state = match *fields.first()? {
        "R" => "running",
        "S" => "sleeping",
        "D" => "waiting",
        "T" | "t" => "stopped",
        "Z" => "zombie",
        other => other,
    };
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let ms = ticks * 1000 / rustix::param::clock_ticks_per_second();
    let time = format!("{}.{:02} s", ms / 1000, ms % 1000 / 10);
    Some(vec![
        process.to_string(),
        thread.to_owned(),
        state.to_owned(),
        time,
        name.to_owned(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(row(11, stat).unwrap(), ["11", "12", "sleeping", "2.00 s", "a) b (c)"]);
        assert_eq!(row(11, "12 (cut"), None);
    }

    #[test]
    fn this_process_has_threads() {
        assert!(with_children(std::process::id()).contains(&std::process::id()));
    }
}
