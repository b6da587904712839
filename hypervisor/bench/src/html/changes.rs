use maud::{Markup, html};

use super::{Column, mark};
use crate::{
    stats::{Change, Comparison, Difference, Rule, compare},
    words::value,
};

/// What differs between the first run and each of the others; nothing if there is only one.
pub(super) fn section(columns: &[Column<'_>]) -> Markup {
    let Some((first, others)) = columns.split_first().filter(|(_, others)| !others.is_empty()) else {
        return html! {};
    };
    html! {
        section aria-labelledby="changes" {
            h2 id="changes" { "What changed" }
            @for (at, other) in others.iter().enumerate() {
                (one(columns, at + 1, &compare(first.run, other.run, Rule::default())))
            }
        }
    }
}

fn one(columns: &[Column<'_>], at: usize, difference: &Difference) -> Markup {
    let told = |case: &&Comparison| !matches!(case.change, Change::Same | Change::Undecided);
    let changed: Vec<_> = difference.cases.iter().filter(told).collect();
    let count = |change: Change| difference.cases.iter().filter(|case| case.change == change).count();
    html! {
        h3 { (mark(columns, at)) (columns[at].label) ", beside " (mark(columns, 0)) (columns[0].label) }
        p {
            (count(Change::More)) " cost more, " (count(Change::Less)) " cost less, " (count(Change::Same)) " are the same within noise"
            @match count(Change::Undecided) {
                0 => { "." },
                undecided => { "; " (undecided) " have too few repeats to tell." },
            }
        }
        @if !difference.environment.is_empty() {
            p.warning {
                "The two were not measured under the same conditions, and a change may be due to that: "
                (difference.environment.iter().map(|row| row.0.as_str()).collect::<Vec<_>>().join(", ")) "."
            }
        }
        @if !changed.is_empty() {
            div.scroll tabindex="0" role="region" aria-label="Changed cases" {
                table {
                    thead { tr {
                        th scope="col" { "Case" } th scope="col" { "Group" }
                        th.number scope="col" { "Before" } th.number scope="col" { "After" }
                        th.number scope="col" { "Ratio" } th scope="col" { "Change" }
                    } }
                    tbody { @for case in changed { (row(case)) } }
                }
            }
        }
    }
}

fn row(case: &Comparison) -> Markup {
    let median = |median: Option<_>| match median {
        Some((median, _)) => value(median, case.unit),
        None => "–".into(),
    };
    html! {
        tr {
            th scope="row" { (case.name) }
            td { (case.group) }
            td.number { (median(case.before)) }
            td.number { (median(case.after)) }
            td.number { @match case.ratio() { Some(ratio) => { "× " (format!("{ratio:.2}")) }, None => { "–" } } }
            td { (verdict(&case.change)) }
        }
    }
}

/// A change as a word with a sign.
pub(super) fn verdict(change: &Change) -> Markup {
    let (class, sign) = match change {
        Change::More => ("more", "▲ "),
        Change::Less => ("less", "▼ "),
        Change::Same => ("same", ""),
        Change::Undecided => ("same", "? "),
        Change::Appeared | Change::Vanished { .. } | Change::Incomparable => ("other", ""),
    };
    html! {
        span class={ "verdict " (class) } { (sign) (change.word()) }
        @if let Change::Vanished { reason: Some(reason) } = change { ": " (reason) }
    }
}
