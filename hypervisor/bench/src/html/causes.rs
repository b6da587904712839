use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{
    COLOURS, Column, mark,
    rows::{Group, Measured},
};
use crate::{run::Unit, words::value};

/// What one cause costs in one run.
struct Cause<'a> {
    unit: Unit,
    cases: Vec<&'a Measured<'a>>,
    /// The middle of the medians of its cases.
    median: u64,
}

/// Causes of exits, from the dearest to the cheapest; nothing if no case names any.
pub(super) fn section(columns: &[Column<'_>], groups: &[Group<'_>]) -> Markup {
    let causes: Vec<_> = (0..columns.len()).map(|column| causes(groups, column)).collect();
    html! {
        @if causes.iter().any(|causes| !causes.is_empty()) {
            section aria-labelledby="causes" {
                h2 id="causes" { "By cause" }
                p { "What the cases of one cause of exits cost: the middle of their medians, in the run's unit, and how many exits one operation took where that was counted." }
                div.scroll tabindex="0" role="region" aria-label="Causes of exits" {
                    table {
                        thead { tr {
                            th scope="col" { "Cause" } th scope="col" { "Cases" }
                            th.number scope="col" { "Exits" } th.number scope="col" { "Cost" }
                            th scope="col" { span.unseen { "Cost as a bar" } }
                        } }
                        tbody {
                            @for (column, causes) in causes.iter().enumerate() { (lines(columns, column, causes)) }
                        }
                    }
                }
            }
        }
    }
}

fn lines(columns: &[Column<'_>], column: usize, causes: &[(&str, Cause<'_>)]) -> Markup {
    html! {
        @for (name, cause) in causes {
            @let names = cause.cases.iter().map(|one| one.case.name.as_str()).collect::<Vec<_>>().join(", ");
            @let most = causes.iter().filter(|(_, other)| other.unit == cause.unit).map(|(_, other)| other.median).max().unwrap_or(1).max(1);
            tr {
                th scope="row" { (mark(columns, column)) code { (name) } }
                td { (names) }
                td.number { (exits(cause)) }
                td.number { (value(cause.median, cause.unit)) }
                td.barred {
                    // A drawing's length rather than a style attribute: the page's style is all in its head.
                    svg class={ "cost run-" (column % COLOURS) } role="presentation" viewBox="0 0 160 10" width="160" height="10" {
                        rect x="0" y="0" height="10" rx="2" width=(format!("{:.1}", (cause.median as f64 / most as f64 * 160.0).max(1.0))) {}
                    }
                }
            }
        }
    }
}

/// Exits of one operation, from the case with the fewest to the one with the most.
fn exits(cause: &Cause<'_>) -> String {
    let mut exits: Vec<f64> = cause.cases.iter().filter_map(|one| one.case.exits()).collect();
    exits.sort_by(f64::total_cmp);
    match (exits.first(), exits.last()) {
        (Some(least), Some(most)) if format!("{least:.2}") == format!("{most:.2}") => format!("{least:.2}"),
        (Some(least), Some(most)) => format!("{least:.2} – {most:.2}"),
        _ => "–".into(),
    }
}

fn causes<'a>(groups: &'a [Group<'a>], column: usize) -> Vec<(&'a str, Cause<'a>)> {
    let mut found: BTreeMap<(&str, &str), Vec<&Measured<'_>>> = BTreeMap::new();
    let measured = groups
        .iter()
        .flat_map(|group| &group.rows)
        .flat_map(|row| &row.measured);
    for one in measured.filter(|one| one.column == column) {
        if let Some(cause) = &one.case.cause {
            found.entry((cause, one.case.unit.word())).or_default().push(one);
        }
    }
    let mut causes: Vec<_> = found
        .into_iter()
        .filter_map(|((name, _), cases)| {
            let mut medians: Vec<_> = cases.iter().map(|one| one.summary.p50).collect();
            medians.sort_unstable();
            let unit = cases.first()?.case.unit;
            let median = medians[medians.len() / 2];
            Some((name, Cause { unit, cases, median }))
        })
        .collect();
    causes.sort_by_key(|(_, cause)| (cause.unit.word(), std::cmp::Reverse(cause.median)));
    causes
}
