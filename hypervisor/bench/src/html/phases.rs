use maud::{Markup, html};

use super::{COLOURS, Column, distribution::px, mark, rows::Group};
use crate::{
    run::{PHASE, Unit},
    words::value,
};

/// Width of the names and of the bars beside them, and height of a row, in pixels.
const NAMES: f64 = 260.0;
const BARS: f64 = 720.0;
const ROW: f64 = 17.0;

/// The phases of a group in one run.
struct Waterfall<'a> {
    column: usize,
    group: &'a str,
    phases: Vec<(&'a str, u64)>,
    sum: u64,
}

/// The phases of each group, as a waterfall; nothing if no case is a phase.
pub(super) fn section(columns: &[Column<'_>], groups: &[Group<'_>]) -> Markup {
    let each = groups
        .iter()
        .flat_map(|group| (0..columns.len()).map(move |column| waterfall(group, column)));
    let all: Vec<_> = each.filter(|waterfall| !waterfall.phases.is_empty()).collect();
    let longest = all.iter().map(|waterfall| waterfall.sum).max().unwrap_or(0).max(1) as f64;
    html! {
        @if !all.is_empty() {
            section aria-labelledby="phases" {
                h2 id="phases" { "Phase by phase" }
                p {
                    "Each bar begins where the one above it ends and is as long as the median of its phase; all are on one axis. "
                    "The median of the whole is not quite the sum of these."
                }
                @for waterfall in &all {
                    h3 { (mark(columns, waterfall.column)) (waterfall.group) ": " (value(waterfall.sum, Unit::Nanoseconds)) }
                    div.scroll tabindex="0" role="region" aria-label={ "Phases, " (waterfall.group) } { (drawn(waterfall, longest)) }
                }
            }
        }
    }
}

fn waterfall<'a>(group: &'a Group<'a>, column: usize) -> Waterfall<'a> {
    let rows = group.rows.iter().filter(|row| row.case.unit == Unit::Nanoseconds);
    let phases: Vec<_> = rows
        .filter_map(|row| {
            let name = row.case.name.strip_prefix(PHASE)?;
            let one = row.measured.iter().find(|one| one.column == column)?;
            Some((name, one.summary.p50))
        })
        .collect();
    Waterfall {
        column,
        group: group.name,
        sum: phases.iter().fold(0u64, |sum, phase| sum.saturating_add(phase.1)),
        phases,
    }
}

fn drawn(waterfall: &Waterfall<'_>, longest: f64) -> Markup {
    let height = ROW * waterfall.phases.len() as f64 + 2.0;
    let mut at = 0.0;
    let mut bars = Vec::new();
    for (row, (name, median)) in waterfall.phases.iter().enumerate() {
        let width = *median as f64 / longest * BARS;
        bars.push((row as f64 * ROW, *name, *median, at, width));
        at += width;
    }
    html! {
        svg class={ "waterfall run-" (waterfall.column % COLOURS) } role="img"
            viewBox={ "0 0 " (NAMES + BARS + 70.0) " " (height) } width=(NAMES + BARS + 70.0) height=(height) {
            title { (waterfall.group) ", phase by phase; the tables below have the figures" }
            @for (y, name, median, from, width) in bars {
                @let end = NAMES + from + width;
                text.name x=(NAMES - 12.0) y=(y + 12.5) text-anchor="end" { (name.chars().take(44).collect::<String>()) }
                rect x=(px(NAMES + from)) width=(px(width.max(1.0))) y=(y + 3.0) height=(ROW - 6.0) rx="1.5" {}
                text x=(px(end + 6.0)) y=(y + 12.5) { (value(median, Unit::Nanoseconds)) }
            }
        }
    }
}
