use std::collections::BTreeSet;

use maud::{Markup, html};

use super::{
    COLOURS, Column,
    distribution::{grid, names, px},
    rows::{Group, Row, UNITS, of_unit},
    scale::Scale,
};
use crate::{
    run::{GROWTH, PHASE, Unit},
    words::value,
};

/// Width of the axis and of the names beside it, height of a row, in pixels.
const AXIS: f64 = 790.0;
const NAMES: f64 = 260.0;
const ROW: f64 = 19.0;
const TOP: f64 = 22.0;

/// The fewest cases that are worth an overview.
const FEWEST: usize = 3;

/// All medians on one axis, by unit, from the least to the greatest; phases and what
/// grows have drawings of their own.
pub(super) fn section(columns: &[Column<'_>], groups: &[Group<'_>]) -> Markup {
    let drawn = UNITS.map(|unit| chart(columns, groups, unit));
    html! {
        @if drawn.iter().any(Option::is_some) {
            section aria-labelledby="overview" {
                h2 id="overview" { "At a glance" }
                p {
                    "The dot is the median; the bar reaches to what 99 of 100 samples do not exceed, the thin line from the least to the greatest. "
                    "The axis is logarithmic."
                }
                @for chart in drawn.iter().flatten() { (chart) }
            }
        }
    }
}

fn chart(columns: &[Column<'_>], groups: &[Group<'_>], unit: Unit) -> Option<Markup> {
    let mut rows: Vec<&Row<'_>> = groups
        .iter()
        .flat_map(|group| &group.rows)
        .filter(|row| row.case.unit == unit && !is_drawn_elsewhere(row))
        .collect();
    if rows.len() < FEWEST {
        return None;
    }
    rows.sort_by_key(|row| row.measured.first().map(|first| first.summary.p50));
    let all = of_unit(rows.iter().copied(), unit);
    let scale = Scale::of(all.iter().flat_map(|one| [one.summary.min, one.summary.max]), AXIS)?;
    let mut names_used = BTreeSet::new();
    let qualified = !rows.iter().all(|row| names_used.insert(&row.case.name));
    let height = TOP + ROW * rows.len() as f64 + 4.0;
    let words = format!(
        "{} cases by median, in {}; the tables below have the figures",
        rows.len(),
        unit.word()
    );
    Some(html! {
        div.scroll tabindex="0" role="region" aria-label={ "Medians in " (unit.word()) } {
            svg.overview role="img" viewBox={ "0 0 " (NAMES + AXIS) " " (height) } width=(NAMES + AXIS) height=(height) {
                title { (words) }
                g transform={ "translate(" (NAMES) " 0)" } {
                    (names(&scale, unit, 12.0))
                    g transform={ "translate(0 " (TOP - 4.0) ")" } { (grid(&scale, unit, height - TOP + 4.0)) }
                }
                @for (at, row) in rows.iter().enumerate() { (line(columns, &scale, row, qualified, TOP + ROW * at as f64)) }
            }
        }
    })
}

/// Whether the case is in a waterfall or among what grows.
fn is_drawn_elsewhere(row: &Row<'_>) -> bool {
    row.case.name.starts_with(PHASE) || row.case.group.ends_with(GROWTH)
}

/// What a case is called: with its group, where another group has a case of that name.
fn name(row: &Row<'_>, qualified: bool) -> String {
    match qualified {
        true => format!("{}: {}", row.case.group, row.case.name),
        false => row.case.name.clone(),
    }
}

fn line(columns: &[Column<'_>], scale: &Scale, row: &Row<'_>, qualified: bool, top: f64) -> Markup {
    let step = ROW / (row.measured.len() as f64 + 1.0);
    let name: String = name(row, qualified).chars().take(44).collect();
    html! {
        text.name x=(NAMES - 12.0) y=(top + ROW / 2.0 + 4.0) text-anchor="end" { (name) }
        @for (at, one) in row.measured.iter().enumerate() {
            @let s = &one.summary;
            @let y = px(top + step * (at as f64 + 1.0));
            @let [min, p50, p99, max] = [s.min, s.p50, s.p99, s.max].map(|value| px(NAMES + scale.at(value)));
            g class={ "run-" (one.column % COLOURS) } {
                title { (row.case.name) @if columns.len() > 1 { ", " (columns[one.column].label) } ": median " (value(s.p50, row.case.unit)) }
                line.reach x1=(min) x2=(max) y1=(y) y2=(y) {}
                line.body x1=(p50) x2=(p99) y1=(y) y2=(y) {}
                circle.dot cx=(p50) cy=(y) r=(if row.measured.len() > 2 { 2.5 } else { 3.5 }) {}
            }
        }
    }
}
