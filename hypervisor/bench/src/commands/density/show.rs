//! The table: a line for each number of instances.

use chiton_bench::{
    run::{Case, GROWTH, Outcome, Run, Unit},
    stats::Summary,
};

/// Names of cases.
pub(super) const START: &str = "start";
pub(super) const PSS: &str = "PSS";
pub(super) const TAKEN: &str = "available, less";
pub(super) const TIME: &str = "processor time";
pub(super) const SWITCHES: &str = "context switches";
pub(super) const THREADS: &str = "threads";
pub(super) const REMOVE: &str = "remove";
/// The group of what comes at the end.
pub(super) const END: &str = "end";

/// What a column holds: a case of each group of so many instances, and what of it.
type Column = (&'static str, &'static str, fn(&Summary) -> u64);

const COLUMNS: &[Column] = &[
    ("start p50", START, |summary| summary.p50),
    ("p99", START, |summary| summary.p99),
    ("PSS", PSS, mean),
    ("private", "private", mean),
    ("shared", "shared", mean),
    ("cgroup", "cgroup", mean),
    ("its krnl", "cgroup, kernel", mean),
    ("slab", "slab, unreclaimable", mean),
    ("names", "slab, reclaimable", mean),
    ("stacks", "kernel stacks", mean),
    ("tables", "page tables", mean),
    ("per-cpu", "per-processor", mean),
    ("in all", TAKEN, mean),
];

fn mean(summary: &Summary) -> u64 {
    summary.mean as u64
}

/// Everything.
pub(super) fn all(run: &Run) -> String {
    let mut groups: Vec<&str> = Vec::new();
    for case in run.cases.iter().filter(|case| case.name == START) {
        groups.push(&case.group);
    }
    let mut text = format!("starts in ms, memory in KiB each\n{:>10}", "instances");
    for (head, ..) in COLUMNS {
        text += &format!(" {head:>9}");
    }
    text += "\n";
    for group in &groups {
        let count = group.trim_end_matches(GROWTH);
        text += &format!("{count:>10}");
        for (_, name, of) in COLUMNS {
            let case = run.cases.iter().find(|case| case.group == *group && case.name == *name);
            text += &format!(" {:>9}", case.map_or_else(|| "–".into(), |case| cell(case, *of)));
        }
        text += "\n";
    }
    for case in &run.cases {
        let last_start = case.name == START && groups.last() == Some(&case.group.as_str());
        let idle = [TIME, SWITCHES, THREADS].contains(&case.name.as_str());
        if idle || last_start || case.group == END {
            text += &line(case);
        }
    }
    text
}

fn cell(case: &Case, of: fn(&Summary) -> u64) -> String {
    let Some(summary) = Summary::of(case.repeats()) else {
        return "–".into();
    };
    let value = of(&summary);
    match case.unit {
        Unit::Nanoseconds => format!("{:.2}", value as f64 / 1e6),
        Unit::Bytes => format!("{}", value >> 10),
        Unit::Ticks | Unit::Count => value.to_string(),
    }
}

fn line(case: &Case) -> String {
    let (Some(summary), Outcome::Measured(measured)) = (Summary::of(case.repeats()), &case.outcome) else {
        return String::new();
    };
    let notes = measured.notes.iter().map(|note| format!("; {note}"));
    format!(
        "{}, {}: mean {:.1} {unit}, p50 {}, max {} {unit}{}\n",
        case.group,
        case.name,
        summary.mean,
        summary.p50,
        summary.max,
        notes.collect::<String>(),
        unit = case.unit.word(),
    )
}
