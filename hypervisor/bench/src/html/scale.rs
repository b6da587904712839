use crate::{run::Unit, words};

/// Half of the room that the name of a mark takes. A name nearer to an end than this begins or ends there.
pub(super) const EDGE: f64 = 22.0;

/// A logarithmic axis. What is below 1 is drawn at 1: a logarithm has no place for 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    /// Its length, in the units of the drawing.
    pub(super) width: f64,
}

impl Scale {
    /// An axis from the least to the greatest of the values, and a little beyond; at least a factor of 4.
    pub(super) fn of(values: impl IntoIterator<Item = u64>, width: f64) -> Option<Self> {
        let values = values.into_iter().map(|value| (value.max(1) as f64).log10());
        let ends = values.fold(None, |ends: Option<(f64, f64)>, value| {
            let (low, high) = ends.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        });
        let (low, high) = ends?;
        let margin = ((0.6 - (high - low)) / 2.0).max((high - low) * 0.03);
        Some(Self {
            low: (low - margin).max(-0.1),
            high: high + margin,
            width,
        })
    }

    /// Where a value lies.
    pub(super) fn at(&self, value: u64) -> f64 {
        self.place((value.max(1) as f64).log10())
    }

    fn place(&self, logarithm: f64) -> f64 {
        (logarithm - self.low) / (self.high - self.low) * self.width
    }

    /// Place and name of its marks: each power of ten, and where there are few of them 2 and 5 times it.
    /// Bytes go by powers of 1024 and fours between them.
    pub(super) fn marks(&self, unit: Unit) -> Vec<(f64, String)> {
        let all: Vec<f64> = match unit {
            Unit::Bytes => (0..32).map(|at| 4f64.powi(at)).collect(),
            _ => {
                let factors: &[f64] = match self.high - self.low {
                    span if span < 1.6 => &[1.0, 2.0, 5.0],
                    _ => &[1.0],
                };
                let powers = (0..20).map(|power| 10f64.powi(power));
                powers
                    .flat_map(|power| factors.iter().map(move |factor| power * factor))
                    .collect()
            }
        };
        let within = all
            .into_iter()
            .filter(|value| (self.low..=self.high).contains(&value.log10()));
        let marks: Vec<_> = within.map(|value| (self.place(value.log10()), value)).collect();
        // A name that would touch the one before it is left out, line and all.
        let mut last = f64::NEG_INFINITY;
        let apart = |(place, _): &(f64, f64)| {
            let middle = place.clamp(EDGE, self.width - EDGE);
            let kept = middle - last >= 2.0 * EDGE + 4.0;
            last = if kept { middle } else { last };
            kept
        };
        let kept = marks.into_iter().filter(apart);
        kept.map(|(place, value)| (place, words::real(value, unit))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_lie_within_and_order_is_kept() {
        let scale = Scale::of([0, 30, 5_000_000], 300.0).unwrap();
        let places = [0, 1, 30, 5_000_000].map(|value| scale.at(value));
        assert_eq!(places[0], places[1]);
        assert!(
            places.is_sorted() && places[0] >= 0.0 && places[3] <= 300.0,
            "{places:?}"
        );
        assert!(Scale::of([], 300.0).is_none());
    }

    #[test]
    fn any_axis_has_two_marks_and_room_for_their_names() {
        for unit in super::super::rows::UNITS {
            for ends in [[1, 1], [31, 33], [30, 5_000], [1, u64::MAX], [u64::MAX, u64::MAX]] {
                let marks = Scale::of(ends, 320.0).unwrap().marks(unit);
                let least = if unit == Unit::Bytes { 0 } else { 1 };
                assert!((least..=7).contains(&marks.len()), "{unit:?} {ends:?}: {marks:?}");
                assert!(marks.iter().all(|(place, _)| (0.0..=320.0).contains(place)));
            }
        }
    }
}
