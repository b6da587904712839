use std::fmt::Write;

use maud::{Markup, html};

use super::{
    COLOURS,
    rows::Measured,
    scale::{EDGE, Scale},
};
use crate::{
    run::{Samples, Unit},
    words::value,
};

/// The size of a distribution in a row, in pixels.
pub(super) const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 40.0;
/// Where its ground line is.
const GROUND: f64 = 33.0;

/// How many columns the samples of a row are sorted into.
const COLUMNS: usize = 170;

/// All samples of a case, as columns over a logarithmic axis; heights are square roots, so that what is
/// rare shows beside what is frequent.
pub(super) fn row(measured: &Measured<'_>, scale: &Scale, unit: Unit) -> Markup {
    let summary = &measured.summary;
    let [low, high] = [measured.interval.low, measured.interval.high].map(|end| scale.at(end));
    let words = format!(
        "{}: median {}, 99 of 100 within {}, greatest {}",
        measured.case.name,
        value(summary.p50, unit),
        value(summary.p99, unit),
        value(summary.max, unit)
    );
    html! {
        svg class={ "distribution run-" (measured.column % COLOURS) } role="img"
            viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } width=(WIDTH) height=(HEIGHT) {
            title { (words) }
            (grid(scale, unit, HEIGHT))
            line.ground x1="0" x2=(WIDTH) y1=(GROUND) y2=(GROUND) {}
            path.samples d=(area(measured.case.repeats(), scale)) {}
            line.tail x1=(px(scale.at(summary.p99))) x2=(px(scale.at(summary.p99))) y1=(GROUND - 9.0) y2=(GROUND) {}
            circle.most cx=(px(scale.at(summary.max))) cy=(GROUND) r="2.5" {}
            rect.interval x=(px(low)) width=(px((high - low).max(2.0))) y=(GROUND + 2.0) height="3.5" rx="1.5" {}
            line.median x1=(px(scale.at(summary.p50))) x2=(px(scale.at(summary.p50))) y1="3" y2=(GROUND + 5.5) {}
        }
    }
}

/// The axis above a column of distributions.
pub(super) fn axis(scale: &Scale, unit: Unit) -> Markup {
    html! {
        svg.axis role="presentation" viewBox={ "0 0 " (scale.width) " 16" } width=(scale.width) height="16" {
            (names(scale, unit, 11.0))
        }
    }
}

/// The names of an axis's marks.
pub(super) fn names(scale: &Scale, unit: Unit, y: f64) -> Markup {
    html! {
        @for (place, name) in scale.marks(unit) {
            text x=(px(place)) y=(y) text-anchor=(anchored(place, scale.width)) { (name) }
        }
    }
}

/// Upright lines at an axis's marks.
pub(super) fn grid(scale: &Scale, unit: Unit, height: f64) -> Markup {
    html! {
        @for (place, _) in scale.marks(unit) {
            line.grid x1=(px(place)) x2=(px(place)) y1="0" y2=(height) {}
        }
    }
}

/// A length, to a tenth.
pub(super) fn px(length: f64) -> f64 {
    (length * 10.0).round() / 10.0
}

/// A name at the edge must not hang over it.
fn anchored(place: f64, width: f64) -> &'static str {
    match place {
        place if place < EDGE => "start",
        place if place > width - EDGE => "end",
        _ => "middle",
    }
}

/// The outline of the columns.
fn area(repeats: &[Samples], scale: &Scale) -> String {
    let mut counts = vec![0u64; COLUMNS];
    for (value, times) in repeats.iter().flat_map(|samples| &samples.values) {
        let part = scale.at(*value) / scale.width;
        let at = ((part * COLUMNS as f64) as usize).min(COLUMNS - 1);
        counts[at] = counts[at].saturating_add(*times);
    }
    let most = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    let width = scale.width / COLUMNS as f64;
    let mut path = String::new();
    let mut at = 0;
    // One shape for each stretch that has samples.
    while let Some(begin) = (at..COLUMNS).find(|column| counts[*column] > 0) {
        let end = (begin..COLUMNS).find(|column| counts[*column] == 0).unwrap_or(COLUMNS);
        let _ = write!(path, "M{} {GROUND}", px(begin as f64 * width));
        for (column, count) in (begin..end).zip(&counts[begin..end]) {
            let height = ((*count as f64 / most).sqrt() * (GROUND - 4.0)).max(1.5);
            let _ = write!(path, "V{}H{}", px(GROUND - height), px((column + 1) as f64 * width));
        }
        let _ = write!(path, "V{GROUND}Z");
        at = end;
    }
    path
}
