//! The form that a terminal shows: a line a case, below the name of its group.

use crate::{
    run::{Case, Outcome, Run, Unit},
    stats::Summary,
    words::{percent, plain, value},
};

const NAME: usize = 32;

/// The line above the cases.
#[must_use]
pub fn heading() -> String {
    let columns = ["min", "p50", "p90", "p99", "p99.9", "max", "outliers", "exits"];
    let columns: String = columns.iter().map(|name| format!(" {name:>10}")).collect();
    format!("{:<NAME$}{columns}", "")
}

/// The line above a group.
#[must_use]
pub fn group(name: &str) -> String {
    plain(name)
}

/// The line of a case.
#[must_use]
pub fn line(case: &Case) -> String {
    let mut name = format!("  {}", plain(&case.name));
    // All other units are told by the figures.
    if case.unit == Unit::Ticks {
        name += " (ticks)";
    }
    let summary = match (&case.outcome, Summary::of(case.repeats())) {
        (Outcome::Skipped { reason }, _) => return format!("{name:<NAME$} skipped: {}", plain(reason)),
        (Outcome::Measured(_), None) => return format!("{name:<NAME$} no samples"),
        (Outcome::Measured(_), Some(summary)) => summary,
    };
    let figures = [
        summary.min,
        summary.p50,
        summary.p90,
        summary.p99,
        summary.p999,
        summary.max,
    ];
    let figures = figures.map(|figure| value(figure, case.unit));
    let outliers = percent(summary.outliers as f64 / summary.count as f64);
    let exits = case.exits().map_or("–".into(), |exits| format!("{exits:.2}"));
    let columns = figures.into_iter().chain([outliers, exits]);
    let columns: String = columns.map(|column| format!(" {column:>10}")).collect();
    let notes: String = case
        .notes()
        .iter()
        .map(|note| format!("\n    {}", plain(note)))
        .collect();
    format!("{name:<NAME$}{columns}{notes}")
}

/// All cases of a run, below what was measured and where.
#[must_use]
pub fn table(run: &Run) -> String {
    let environment = &run.environment;
    let title = format!(
        "{} on {}, level {}, {}; {}, Linux {}\n",
        run.kind.word(),
        run.machine.word(),
        run.level,
        plain(&run.started),
        plain(&environment.cpu.to_string()),
        plain(&environment.kernel.to_string()),
    );
    let mut text = title + &heading() + "\n";
    let mut last = None;
    for case in &run.cases {
        if last.replace(&case.group) != Some(&case.group) {
            text += &(group(&case.group) + "\n");
        }
        text += &(line(case) + "\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Kind, Machine, Samples};

    #[test]
    fn a_line_has_every_figure_or_the_reason() {
        let samples = Samples::of([30, 31, 32, 5_000]).unwrap();
        let mut case = Case::measured("cpuid", "g", "w", Unit::Nanoseconds, vec![samples]);
        if let Outcome::Measured(measured) = &mut case.outcome {
            measured.per_operation_exits = Some(1.0);
            measured.notes.push("one note".into());
        }
        let expected = "  cpuid                               30 ns      31 ns    5.00 µs    5.00 µs    5.00 µs    5.00 µs       25 %       1.00\n    one note";
        assert_eq!(line(&case), expected);
        let skipped = Case::skipped("wbinvd", "g", "w", Unit::Count, "not \x1b[1mhere");
        assert_eq!(
            line(&skipped),
            "  wbinvd                         skipped: not \u{fffd}[1mhere"
        );
    }

    #[test]
    fn ticks_are_told_by_name() {
        let case = Case::measured("x", "g", "w", Unit::Ticks, vec![Samples::of([5]).unwrap()]);
        assert!(line(&case).starts_with("  x (ticks)  "));
    }

    #[test]
    fn each_group_is_named_once() {
        let mut run = Run::begin(Kind::Exits, Machine::Kvm, 1);
        for (group, name) in [("one", "a"), ("one", "b"), ("two", "c")] {
            run.cases.push(Case::skipped(name, group, "w", Unit::Count, "no"));
        }
        let text = table(&run);
        let below: Vec<_> = text
            .lines()
            .skip(2)
            .map(|line| line.split("  skipped").next().unwrap_or(line).trim_end())
            .collect();
        assert_eq!(below, ["one", "  a", "  b", "two", "  c"]);
    }
}
