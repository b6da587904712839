use std::collections::BTreeSet;

use maud::{Markup, html};

use super::{
    Column, anchor,
    changes::verdict,
    distribution::{WIDTH, axis, row as drawn},
    mark,
    rows::{Group, Measured, Row, UNITS, of_unit},
    scale::Scale,
};
use crate::{
    run::Unit,
    stats::{Over, Rule, compare_case},
    words::{number, percent, real, value},
};

/// Each group with its cases, one table a unit.
pub(super) fn sections(columns: &[Column<'_>], groups: &[Group<'_>]) -> Markup {
    html! {
        @for (at, group) in groups.iter().enumerate() {
            @let id = format!("group-{at}-{}", anchor(group.name));
            section aria-labelledby=(id) {
                h2 id=(id) { (group.name) }
                @for unit in UNITS { (table(columns, group, unit)) }
                details {
                    summary { "All figures" }
                    div.scroll tabindex="0" role="region" aria-label={ "All figures of " (group.name) } { (all(columns, group)) }
                }
            }
        }
    }
}

/// The cases of a group that are of one unit.
fn table(columns: &[Column<'_>], group: &Group<'_>, unit: Unit) -> Markup {
    let measured = of_unit(&group.rows, unit);
    let Some(scale) = Scale::of(
        measured.iter().flat_map(|one| [one.summary.min, one.summary.max]),
        WIDTH,
    ) else {
        return html! {};
    };
    let exits = measured.iter().any(|one| one.case.exits().is_some());
    html! {
        div.scroll tabindex="0" role="region" aria-label={ (group.name) ", in " (unit.word()) } {
            table.cases {
                thead { tr {
                    th scope="col" { "Case" }
                    th.drawn scope="col" { span.unseen { "Distribution" } (axis(&scale, unit)) }
                    th.number.median scope="col" { "Median" @if unit == Unit::Ticks { ", ticks" } }
                    th.number scope="col" { "p99" }
                    th.number scope="col" { "Greatest" }
                    @if exits { th.number scope="col" { "Exits" } }
                    @if columns.len() > 1 { th scope="col" { "Change" } }
                } }
                @for row in group.rows.iter().filter(|row| row.case.unit == unit) {
                    tbody { (lines(columns, row, &scale, exits)) }
                }
            }
        }
    }
}

/// The lines of a case, one a run.
fn lines(columns: &[Column<'_>], row: &Row<'_>, scale: &Scale, exits: bool) -> Markup {
    let unit = row.case.unit;
    html! {
        @for (at, one) in row.measured.iter().enumerate() {
            tr {
                @if at == 0 {
                    th.case scope="rowgroup" rowspan=(row.measured.len()) {
                        (row.case.name)
                        @if let Some(cause) = &row.case.cause { " " code.cause { (cause) } }
                        span.what { (row.case.what) }
                        @for note in notes(row) { span.what.note { (note) } }
                    }
                }
                td.drawn { (drawn(one, scale, unit)) }
                td.number { (mark(columns, one.column)) b { (value(one.summary.p50, unit)) } (spread(columns, one, unit)) }
                td.number { (value(one.summary.p99, unit)) }
                td.number { (value(one.summary.max, unit)) }
                @if exits { td.number { @match one.case.exits() { Some(exits) => (format!("{exits:.2}")), None => "–" } } }
                @if columns.len() > 1 { td { (change(row, one)) } }
            }
        }
    }
}

/// What a reader has to know of a case, each note once.
fn notes<'a>(row: &Row<'a>) -> Vec<&'a String> {
    let all = row.measured.iter().flat_map(|one| one.case.notes());
    let mut seen = BTreeSet::new();
    all.filter(|note| seen.insert(*note)).collect()
}

/// The interval of the median, where it is wider than a point; and what a number of ticks is in time.
fn spread(columns: &[Column<'_>], one: &Measured<'_>, unit: Unit) -> Markup {
    let (low, high) = (one.interval.low, one.interval.high);
    let calibration = columns[one.column].run.calibration;
    let clock = calibration
        .map(|calibration| calibration.tsc_hz)
        .filter(|hz| *hz > 0 && unit == Unit::Ticks);
    html! {
        @if low != high { span.spread { (value(low, unit)) " – " (value(high, unit)) } }
        @if let Some(hz) = clock {
            span.spread { "≈ " (real(one.summary.p50 as f64 * 1e9 / hz as f64, Unit::Nanoseconds)) }
        }
    }
}

/// What became of a case since the first run that has it.
fn change(row: &Row<'_>, one: &Measured<'_>) -> Markup {
    let first = row.measured.first().filter(|first| first.column != one.column);
    let Some(comparison) = first.and_then(|first| compare_case(Some(first.case), Some(one.case), Rule::default()))
    else {
        return html! {};
    };
    html! {
        @if let Some(ratio) = comparison.ratio() { "× " (format!("{ratio:.2}")) " " }
        (verdict(&comparison.change))
    }
}

/// Every figure of a group: what the drawings show, for who cannot see them.
fn all(columns: &[Column<'_>], group: &Group<'_>) -> Markup {
    html! {
        table.figures-of {
            thead { tr {
                th scope="col" { "Case" }
                @for name in ["Samples", "Least", "Median", "Its interval", "p90", "p99", "p99.9", "Greatest", "Mean", "Outliers", "Stolen", "Migrations"] {
                    th.number scope="col" { (name) }
                }
            } }
            tbody {
                @for row in &group.rows { @for one in &row.measured { (figures(columns, row, one)) } }
            }
        }
    }
}

fn figures(columns: &[Column<'_>], row: &Row<'_>, one: &Measured<'_>) -> Markup {
    let (s, unit) = (&one.summary, row.case.unit);
    let over = match one.interval.over {
        Over::Repeats(repeats) => format!("{repeats} repeats"),
        Over::Samples(_) => "1 repeat".into(),
    };
    let known = |all: Option<u64>, words: fn(u64) -> String| all.map_or("not known".into(), words);
    html! {
        tr {
            th scope="row" { (mark(columns, one.column)) (row.case.name) }
            td.number { (number(s.count)) }
            td.number { (value(s.min, unit)) }
            td.number { (value(s.p50, unit)) }
            td.number {
                (value(one.interval.low, unit)) " – " (value(one.interval.high, unit))
                span.spread { (percent(one.interval.confidence)) ", " (over) }
            }
            @for figure in [s.p90, s.p99, s.p999, s.max] { td.number { (value(figure, unit)) } }
            td.number { (real(s.mean, unit)) }
            td.number { (number(s.outliers)) " (" (percent(s.outliers as f64 / s.count as f64)) ")" }
            td.number { (known(one.case.steal(), |ns| value(ns, Unit::Nanoseconds))) }
            td.number { (known(one.case.migrations(), number)) }
        }
    }
}
