//! The phases as a waterfall.

use chiton_bench::{
    run::{Case, Outcome, PHASE, Run},
    stats::Summary,
    words::plain,
};

/// The name of the case for the whole start.
pub(super) const WHOLE: &str = "in all";
/// The name of the case for what comes before the guest.
pub(super) const FIRST: &str = "exec to the first instruction";

/// How wide the bars are in all, in characters.
const WIDTH: f64 = 40.0;
const MICRO: f64 = 1e3;

/// Every kind of start.
pub(super) fn all(run: &Run) -> String {
    let mut groups: Vec<&str> = Vec::new();
    for case in &run.cases {
        if !groups.contains(&case.group.as_str()) {
            groups.push(&case.group);
        }
    }
    let of = |name: &str| run.cases.iter().filter(|case| case.group == name).collect::<Vec<_>>();
    let groups: Vec<_> = groups.into_iter().map(|name| group(&of(name))).collect();
    groups.join("\n")
}

/// One kind of start: the whole, then its phases from the first to the last. Bars are as long as the medians.
pub(super) fn group(cases: &[&Case]) -> String {
    let Some(whole) = cases.first() else {
        return String::new();
    };
    let mut text = format!("{}: {}\n", whole.group, whole.what);
    if let Outcome::Skipped { reason } = &whole.outcome {
        return text + &format!("  skipped: {}\n", plain(reason));
    }
    text += &format!(
        "{:<30} {:>9} {:>9} {:>9} {:>9}  share\n",
        "µs", "p50", "p90", "p99", "max"
    );
    let summaries = cases
        .iter()
        .filter_map(|case| Some((case, Summary::of(case.repeats())?)));
    let (phases, wholes): (Vec<_>, Vec<_>) = summaries.partition(|(case, _)| case.name.starts_with(PHASE));
    for (case, summary) in wholes {
        text += &format!("{}\n", figures(&case.name, &summary));
    }
    let total: u64 = phases.iter().map(|(_, summary)| summary.p50).sum();
    let part = |time: u64| time as f64 / total.max(1) as f64;
    let mut at = 0;
    for (case, summary) in phases {
        let name = case.name.trim_start_matches(PHASE);
        let indent = (part(at) * WIDTH) as usize;
        let bar = "▇".repeat(((part(at + summary.p50) * WIDTH) as usize - indent).max(1));
        let share = part(summary.p50) * 100.0;
        text += &format!("{} {share:>5.1}% {:indent$}{bar}\n", figures(name, &summary), "");
        at += summary.p50;
    }
    text
}

fn figures(name: &str, summary: &Summary) -> String {
    let [p50, p90, p99, max] = [summary.p50, summary.p90, summary.p99, summary.max].map(|ns| ns as f64 / MICRO);
    format!("{name:<30} {p50:>9.1} {p90:>9.1} {p99:>9.1} {max:>9.1}")
}
