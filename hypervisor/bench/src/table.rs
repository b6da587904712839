//! The form that a terminal shows: a line a case.

use crate::{
    run::{Case, Outcome, Run},
    stats::Summary,
};

/// The line above the cases.
#[must_use]
pub fn heading() -> String {
    let name = "case";
    format!(
        "{name:<40} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "min", "p50", "p90", "p99", "p99.9", "max"
    )
}

/// The line of a case.
#[must_use]
pub fn line(case: &Case) -> String {
    let name = format!("{} ({})", case.name, case.unit.word());
    match (&case.outcome, Summary::of(case.repeats())) {
        (Outcome::Skipped { reason }, _) => format!("{name:<40} skipped: {reason}"),
        (_, None) => format!("{name:<40} no samples"),
        (_, Some(s)) => format!(
            "{name:<40} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            s.min, s.p50, s.p90, s.p99, s.p999, s.max
        ),
    }
}

/// All cases of a run.
#[must_use]
pub fn table(run: &Run) -> String {
    let lines = std::iter::once(heading()).chain(run.cases.iter().map(line));
    lines.map(|line| line + "\n").collect()
}
