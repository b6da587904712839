//! The table of peers.

use chiton_bench::{
    peers::PEERS,
    run::{Case, Outcome, Run},
    stats::Summary,
    words::plain,
};

/// Each with its times, and how many times as long it takes as what Chiton does alike.
pub(super) fn all(run: &Run) -> String {
    let mut text = format!(
        "exec to exit, ms, in turn\n{:<26} {:>8} {:>8} {:>8} {:>8}   times\n",
        "", "p50", "p90", "p99", "max"
    );
    for case in &run.cases {
        let Some(summary) = Summary::of(case.repeats()) else {
            continue;
        };
        let times = ratio(run, case).map_or_else(String::new, |(ratio, ours)| format!("{ratio:>8.2} {ours}"));
        let [p50, p90, p99, max] = [summary.p50, summary.p90, summary.p99, summary.max].map(|ns| ns as f64 / 1e6);
        text += &format!("{:<26} {p50:>8.2} {p90:>8.2} {p99:>8.2} {max:>8.2}{times}\n", case.name);
    }
    text += "\n";
    for case in &run.cases {
        let notes = match &case.outcome {
            Outcome::Skipped { reason } => format!("not measured: {reason}"),
            Outcome::Measured(measured) => measured.notes.join("; "),
        };
        text += &format!("{}: {}. {}\n", case.name, case.what, plain(&notes));
    }
    text
}

/// The ratio of medians, and to whose.
fn ratio<'a>(run: &'a Run, case: &Case) -> Option<(f64, &'a str)> {
    let against = PEERS.iter().find(|peer| peer.name == case.name)?.against;
    let ours = run.cases.iter().find(|other| other.name == against)?;
    if ours.name == case.name {
        return None;
    }
    let median = |case: &Case| Summary::of(case.repeats()).map(|summary| summary.p50 as f64);
    Some((median(case)? / median(ours)?, &ours.name))
}

#[cfg(test)]
mod tests {
    use chiton_bench::run::{Kind, Machine, Samples, Unit};

    use super::*;

    fn case(name: &str, time: u64) -> Case {
        let samples = Samples::of([time]).unwrap();
        Case::measured(name, "group", "what it does", Unit::Nanoseconds, vec![samples])
    }

    #[test]
    fn a_peer_is_shown_with_how_many_times_as_long_as_ours_it_takes() {
        let mut run = Run::begin(Kind::Vs, Machine::Kvm, 1);
        run.cases.push(case("chiton, process", 2_000_000));
        run.cases.push(case("crun", 5_000_000));
        let reason = "crun is not installed";
        run.cases
            .push(Case::skipped("runc", "jails", "runc run", Unit::Nanoseconds, reason));
        let shown = all(&run);
        let line = shown.lines().find(|line| line.starts_with("crun ")).unwrap();
        assert!(
            line.contains("5.00") && line.ends_with("2.50 chiton, process"),
            "{line}"
        );
        assert!(
            shown.contains("runc: runc run. not measured: crun is not installed"),
            "{shown}"
        );
    }
}
