use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{
    COLOURS, Column,
    distribution::{names, px},
    rows::Group,
    scale::Scale,
};
use crate::{
    run::{GROWTH, Unit},
    words::value,
};

/// The size of one drawing, in pixels, with its axis below.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 110.0;
const AXIS: f64 = 18.0;

/// One thing that was measured with several numbers of instances: by run, number and median.
struct Growth<'a> {
    name: &'a str,
    what: &'a str,
    unit: Unit,
    points: BTreeMap<usize, BTreeMap<u64, u64>>,
}

/// How medians grow with the number of instances; nothing if there are no two numbers.
pub(super) fn section(columns: &[Column<'_>], groups: &[Group<'_>]) -> Markup {
    let all = growths(groups);
    let counts = all
        .iter()
        .flat_map(|growth| growth.points.values())
        .flat_map(BTreeMap::keys);
    let Some(scale) = Scale::of(counts.copied(), WIDTH) else {
        return html! {};
    };
    html! {
        section aria-labelledby="growth" {
            h2 id="growth" { "How it grows" }
            p { "Medians by the number of instances. What costs the same each time is a level line; the number is on a logarithmic axis, the cost is not." }
            div.small-multiples {
                @for growth in &all { figure { (drawn(columns, growth, &scale)) figcaption { b { (growth.name) } span.what { (growth.what) } } } }
            }
        }
    }
}

/// What groups of so many instances have in common, if there are two numbers of it.
fn growths<'a>(groups: &'a [Group<'a>]) -> Vec<Growth<'a>> {
    let mut all: Vec<Growth<'_>> = Vec::new();
    for group in groups {
        let count = group
            .name
            .strip_suffix(GROWTH)
            .and_then(|count| count.parse::<u64>().ok());
        let Some(count) = count else { continue };
        for row in &group.rows {
            let (name, unit) = (row.case.name.as_str(), row.case.unit);
            let at = all
                .iter()
                .position(|growth| growth.name == name && growth.unit == unit)
                .unwrap_or(all.len());
            if at == all.len() {
                all.push(Growth {
                    name,
                    what: &row.case.what,
                    unit,
                    points: BTreeMap::new(),
                });
            }
            for one in &row.measured {
                all[at]
                    .points
                    .entry(one.column)
                    .or_default()
                    .insert(count, one.summary.p50);
            }
        }
    }
    all.retain(|growth| growth.points.values().any(|points| points.len() > 1));
    all
}

fn drawn(columns: &[Column<'_>], growth: &Growth<'_>, scale: &Scale) -> Markup {
    let most = growth
        .points
        .values()
        .flat_map(BTreeMap::values)
        .copied()
        .max()
        .unwrap_or(0);
    let y = |median: u64| px(HEIGHT - median as f64 / most.max(1) as f64 * (HEIGHT - 16.0));
    html! {
        svg.growth role="img" viewBox={ "0 0 " (WIDTH) " " (HEIGHT + AXIS) } width=(WIDTH) height=(HEIGHT + AXIS) {
            title { (growth.name) " by the number of instances; the tables below have the figures" }
            line.grid x1="0" x2=(WIDTH) y1=(y(most)) y2=(y(most)) {}
            text x="0" y=(y(most) - 4.0) { (value(most, growth.unit)) }
            line.ground x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
            g transform={ "translate(0 " (HEIGHT) ")" } { (names(scale, Unit::Count, 14.0)) }
            @for (column, points) in &growth.points {
                g class={ "run-" (column % COLOURS) } {
                    polyline.line points=(points.iter().map(|(count, median)| format!("{} {}", px(scale.at(*count)), y(*median))).collect::<Vec<_>>().join(", ")) {}
                    @for (count, median) in points {
                        circle.dot cx=(px(scale.at(*count))) cy=(y(*median)) r="3" {
                            title { (count) " instances" @if columns.len() > 1 { ", " (columns[*column].label) } ": " (value(*median, growth.unit)) }
                        }
                    }
                }
            }
        }
    }
}
