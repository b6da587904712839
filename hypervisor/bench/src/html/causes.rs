use std::{cmp::Reverse, collections::BTreeMap};

use maud::{Markup, html};

use super::{
    COLOURS, Column, mark,
    rows::{Group, Measured},
};
use crate::{run::Unit, words::value};

/// The width of the longest bar, in pixels.
const BAR: f64 = 160.0;

/// What one cause costs in one run.
struct Cost<'a> {
    column: usize,
    unit: Unit,
    cases: Vec<&'a Measured<'a>>,
    /// The middle of the medians of its cases.
    median: u64,
}

/// Causes of exits, from the dearest to the cheapest; nothing if no case names any.
pub(super) fn section(columns: &[Column<'_>], groups: &[Group<'_>]) -> Markup {
    let causes = causes(groups);
    let all = || causes.iter().flat_map(|(_, costs)| costs);
    html! {
        @if !causes.is_empty() {
            section aria-labelledby="causes" {
                h2 id="causes" { "By cause" }
                p { "What the cases of one cause of exits cost, as the middle of their medians, and how many exits one operation took where that was counted." }
                div.scroll tabindex="0" role="region" aria-label="Causes of exits" {
                    table {
                        thead { tr {
                            th scope="col" { "Cause" } th scope="col" { "Cases" }
                            th.number scope="col" { "Exits" } th.number scope="col" { "Cost" }
                            th scope="col" { span.unseen { "Cost as a bar" } }
                        } }
                        @for (cause, costs) in &causes {
                            tbody {
                                @for (at, cost) in costs.iter().enumerate() {
                                    @let same = all().filter(|other| other.unit == cost.unit);
                                    @let most = same.map(|other| other.median).max().unwrap_or(1).max(1);
                                    tr {
                                        @if at == 0 { th scope="rowgroup" rowspan=(costs.len()) { code { (cause) } } }
                                        (cells(columns, cost, most))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cells(columns: &[Column<'_>], cost: &Cost<'_>, most: u64) -> Markup {
    let names: Vec<_> = cost.cases.iter().map(|one| one.case.name.as_str()).collect();
    let length = (cost.median as f64 / most as f64 * BAR).max(1.0);
    html! {
        td { (mark(columns, cost.column)) (names.join(", ")) }
        td.number { (exits(cost)) }
        td.number { (value(cost.median, cost.unit)) }
        td.barred {
            // A drawing's length rather than a style attribute: the page's style is all in its head.
            svg class={ "cost run-" (cost.column % COLOURS) } role="presentation" viewBox={ "0 0 " (BAR) " 10" } width=(BAR) height="10" {
                rect x="0" y="0" height="10" rx="2" width=(format!("{length:.1}")) {}
            }
        }
    }
}

/// Exits of one operation, from the case with the fewest to the one with the most.
fn exits(cost: &Cost<'_>) -> String {
    let mut exits: Vec<f64> = cost.cases.iter().filter_map(|one| one.case.exits()).collect();
    exits.sort_by(f64::total_cmp);
    match (exits.first(), exits.last()) {
        (Some(least), Some(most)) if format!("{least:.2}") == format!("{most:.2}") => format!("{least:.2}"),
        (Some(least), Some(most)) => format!("{least:.2} – {most:.2}"),
        _ => "–".into(),
    }
}

/// Each cause with its costs, one a unit and run.
fn causes<'a>(groups: &'a [Group<'a>]) -> Vec<(&'a str, Vec<Cost<'a>>)> {
    let mut found: BTreeMap<&str, BTreeMap<(&str, usize), Vec<&Measured<'_>>>> = BTreeMap::new();
    for one in groups
        .iter()
        .flat_map(|group| &group.rows)
        .flat_map(|row| &row.measured)
    {
        if let Some(cause) = &one.case.cause {
            let costs = found.entry(cause).or_default();
            costs.entry((one.case.unit.word(), one.column)).or_default().push(one);
        }
    }
    let cost = |((_, column), cases): ((&str, usize), Vec<&'a Measured<'a>>)| {
        let mut medians: Vec<_> = cases.iter().map(|one| one.summary.p50).collect();
        medians.sort_unstable();
        Some(Cost {
            column,
            unit: cases.first()?.case.unit,
            median: medians.get(medians.len() / 2).copied()?,
            cases,
        })
    };
    let causes = found
        .into_iter()
        .map(|(cause, costs)| (cause, costs.into_iter().filter_map(cost).collect::<Vec<_>>()));
    let mut causes: Vec<_> = causes.collect();
    causes.sort_by_key(|(_, costs)| costs.first().map(|first| (first.unit.word(), Reverse(first.median))));
    causes
}
