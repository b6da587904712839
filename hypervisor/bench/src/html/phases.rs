use maud::{Markup, html};

use super::{Column, distribution::px, mark, rows::Group};
use crate::{
    run::{Kind, Unit},
    words::value,
};

/// How many colours `style.css` has for phases.
const COLOURS: usize = 8;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 26.0;

/// One bar: a group of a run, and its phases with their medians.
struct Bar<'a> {
    column: usize,
    group: &'a str,
    phases: Vec<(usize, &'a str, u64)>,
    sum: u64,
}

/// The phases of a start, one after the other; nothing for runs of another kind. The cases of a group are taken to
/// follow one another.
pub(super) fn section(columns: &[Column<'_>], groups: &[Group<'_>]) -> Markup {
    if !columns.iter().any(|column| column.run.kind == Kind::Start) {
        return html! {};
    }
    let bars: Vec<_> = groups
        .iter()
        .flat_map(|group| (0..columns.len()).filter_map(move |column| bar(group, column)))
        .collect();
    let longest = bars.iter().map(|bar| bar.sum).max().unwrap_or(0).max(1) as f64;
    html! {
        section aria-labelledby="phases" {
            h2 id="phases" { "Phase by phase" }
            p { "Medians of the phases, in the order in which they follow one another. A median of the whole is not quite the sum of these." }
            @for bar in &bars {
                h3.bar-name { (mark(columns, bar.column)) (bar.group) ": " (value(bar.sum, Unit::Nanoseconds)) }
                (drawn(bar, longest))
                ul.legend {
                    @for (at, name, median) in &bar.phases {
                        li { span.swatch class={ "phase-" (at % COLOURS) } {} (name) " " b { (value(*median, Unit::Nanoseconds)) } }
                    }
                }
            }
        }
    }
}

/// A bar needs at least two phases.
fn bar<'a>(group: &Group<'a>, column: usize) -> Option<Bar<'a>> {
    let rows = group.rows.iter().filter(|row| row.case.unit == Unit::Nanoseconds);
    let phases: Vec<_> = rows
        .enumerate()
        .filter_map(|(at, row)| {
            let one = row.measured.iter().find(|one| one.column == column)?;
            Some((at, row.case.name.as_str(), one.summary.p50))
        })
        .collect();
    let sum = phases.iter().fold(0u64, |sum, phase| sum.saturating_add(phase.2));
    (phases.len() > 1).then_some(Bar {
        column,
        group: group.name,
        phases,
        sum,
    })
}

fn drawn(bar: &Bar<'_>, longest: f64) -> Markup {
    let mut x = 0.0;
    let pieces: Vec<_> = bar
        .phases
        .iter()
        .map(|(at, name, median)| {
            let width = *median as f64 / longest * WIDTH;
            let piece = (*at, *name, *median, x, width);
            x += width;
            piece
        })
        .collect();
    html! {
        svg.phases role="img" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" {
            title { (bar.group) ", phase by phase; the list below has the figures" }
            @for (at, name, median, x, width) in pieces {
                rect class={ "phase-" (at % COLOURS) } x=(px(x)) width=(px((width - 1.0).max(0.5))) y="0" height=(HEIGHT) {
                    title { (name) " " (value(median, Unit::Nanoseconds)) }
                }
            }
        }
    }
}
