use maud::{Markup, html};

use super::{Column, mark};
use crate::run::Outcome;

/// What was not measured, and why.
pub(super) fn section(columns: &[Column<'_>]) -> Markup {
    let skipped: Vec<_> = columns
        .iter()
        .enumerate()
        .flat_map(|(at, column)| {
            column.run.cases.iter().filter_map(move |case| match &case.outcome {
                Outcome::Skipped { reason } => Some((at, case, reason)),
                Outcome::Measured(_) => None,
            })
        })
        .collect();
    html! {
        @if !skipped.is_empty() {
            section aria-labelledby="skipped" {
                h2 id="skipped" { "Not measured" }
                div.scroll tabindex="0" role="region" aria-label="Skipped cases" {
                    table {
                        thead { tr { th scope="col" { "Case" } th scope="col" { "Group" } th scope="col" { "Why not" } } }
                        tbody {
                            @for (at, case, reason) in skipped {
                                tr {
                                    th.case scope="row" { (mark(columns, at)) (case.name) span.what { (case.what) } }
                                    td { (case.group) }
                                    td { (reason) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
