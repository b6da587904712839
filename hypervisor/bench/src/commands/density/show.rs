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
    text += &last_and_first(run);
    for case in &run.cases {
        let last_start = case.name == START && groups.last() == Some(&case.group.as_str());
        let idle = [TIME, SWITCHES, THREADS].contains(&case.name.as_str());
        if idle || last_start || case.group == END {
            text += &line(case);
        }
    }
    text
}

/// So many are the first ones.
const FIRST: u64 = 20;
/// The last ones may take so much longer than the first: what medians differ by anyway.
const GOAL: f64 = 1.1;

/// Whether the last starts, beside all others that run, cost what the first did. Nothing, if there are too few.
fn last_and_first(run: &Run) -> String {
    let starts = run.cases.iter().filter(|case| case.name == START);
    let (mut first, mut last) = (Vec::new(), None);
    let mut count = 0;
    for case in starts {
        let samples = case.repeats();
        if count < FIRST {
            first.extend(samples.iter().cloned());
        } else {
            last = Some((samples, count + 1));
        }
        count += samples.iter().map(|samples| samples.count).sum::<u64>();
    }
    let Some((samples, from)) = last else {
        return String::new();
    };
    let (Some(first), Some(last)) = (Summary::of(&first), Summary::of(samples)) else {
        return String::new();
    };
    let ratio = last.p50 as f64 / first.p50.max(1) as f64;
    let verdict = if ratio <= GOAL { "met" } else { "missed" };
    format!(
        "the starts {from} to {count}, beside those that run, take {ratio:.2} times the first {}; goal: at most {GOAL}, \
         {verdict}\n",
        first.count
    )
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

#[cfg(test)]
mod tests {
    use chiton_bench::run::{Kind, Machine, Samples};

    use super::*;

    fn with_starts(last: u64) -> Run {
        let mut run = Run::begin(Kind::Density, Machine::Kvm, 1);
        for (group, times) in [
            ("10", vec![1000; 10]),
            ("20", vec![1000; 10]),
            ("1000", vec![last; 980]),
        ] {
            let samples = Samples::of(times).unwrap();
            run.cases
                .push(Case::measured(START, group, "", Unit::Nanoseconds, vec![samples]));
        }
        run
    }

    #[test]
    fn the_last_starts_are_held_against_the_first() {
        let said = last_and_first(&with_starts(1090));
        assert_eq!(
            said,
            "the starts 21 to 1000, beside those that run, take 1.09 times the first 20; goal: at most 1.1, met\n"
        );
        assert!(last_and_first(&with_starts(1200)).ends_with("missed\n"));
        let mut few = with_starts(1);
        few.cases.pop();
        assert_eq!(last_and_first(&few), "");
    }
}
