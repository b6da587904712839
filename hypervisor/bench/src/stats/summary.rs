use hdrhistogram::Histogram;

use crate::run::Samples;

/// What samples say in few numbers, all in the unit of the samples.
///
/// Percentiles are by nearest rank: the least value that at least this part of the samples does not
/// exceed, rounded up by less than a thousandth of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// How many samples there are.
    pub count: u64,
    /// The least.
    pub min: u64,
    /// What a tenth does not exceed.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// What nine tenths do not exceed.
    pub p90: u64,
    /// What 99 of a hundred do not exceed.
    pub p99: u64,
    /// What 999 of a thousand do not exceed.
    pub p999: u64,
    /// The greatest.
    pub max: u64,
    /// The mean.
    pub mean: f64,
    /// How many samples are far from the others; they are part of everything above.
    pub outliers: u64,
}

impl Summary {
    /// Of all samples of all repeats together; nothing if there are none.
    #[must_use]
    pub fn of(repeats: &[Samples]) -> Option<Self> {
        let histogram = histogram(repeats)?;
        let min = repeats.iter().map(|samples| samples.min).min()?;
        let max = repeats.iter().map(|samples| samples.max).max()?;
        let at = |part| histogram.value_at_quantile(part).clamp(min, max);
        let sum: u128 = repeats.iter().map(|samples| u128::from(samples.sum)).sum();
        Some(Self {
            count: histogram.len(),
            min,
            p10: at(0.1),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max,
            mean: sum as f64 / histogram.len() as f64,
            outliers: repeats
                .iter()
                .fold(0, |all, samples| samples.outliers.saturating_add(all)),
        })
    }
}

/// All samples of all repeats, to three digits; nothing if there are none.
fn histogram(repeats: &[Samples]) -> Option<Histogram<u64>> {
    let mut histogram = Histogram::new(3).ok()?;
    for (value, times) in repeats.iter().flat_map(|samples| &samples.values) {
        histogram.record_n(*value, *times).ok()?;
    }
    (!histogram.is_empty()).then_some(histogram)
}

/// The sample of a rank, 1 being the least.
pub(crate) fn rank(samples: &Samples, rank: u128) -> u64 {
    let mut seen = 0u128;
    let found = samples.values.iter().find(|(_, times)| {
        seen += u128::from(*times);
        seen >= rank
    });
    found.map_or(samples.max, |(value, _)| *value)
}

/// How many samples lie more than three interquartile ranges above the third quartile (Tukey's outer
/// fence, upwards: nothing makes an operation much quicker than it is). They are counted and kept: an
/// interrupt in the middle of an exit is part of what exits cost.
#[must_use]
pub fn outliers(samples: &Samples) -> u64 {
    let quartile = |part: u128| rank(samples, (u128::from(samples.count) * part).div_ceil(4));
    let (low, high) = (quartile(1), quartile(3));
    let fence = high.saturating_add(high.saturating_sub(low).saturating_mul(3));
    let beyond = samples.values.iter().filter(|(value, _)| *value > fence);
    beyond.fold(0, |all, (_, times)| times.saturating_add(all))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The percentile by nearest rank, of all values written down.
    fn naive(sorted: &[u64], part: f64) -> u64 {
        let rank = (part * sorted.len() as f64).ceil().max(1.0) as usize;
        sorted[rank - 1]
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_a_sorted_list(
            repeats in prop::collection::vec(prop::collection::vec(0u64..1 << 40, 1..300), 1..5)
        ) {
            let mut all: Vec<u64> = repeats.iter().flatten().copied().collect();
            all.sort_unstable();
            let repeats: Vec<_> = repeats.into_iter().map(|values| Samples::of(values).unwrap()).collect();
            let summary = Summary::of(&repeats).unwrap();
            prop_assert_eq!(summary.count, all.len() as u64);
            prop_assert_eq!((summary.min, summary.max), (all[0], all[all.len() - 1]));
            let mean = all.iter().sum::<u64>() as f64 / all.len() as f64;
            prop_assert!((summary.mean - mean).abs() <= mean * 1e-12);
            for (part, value) in [(0.1, summary.p10), (0.5, summary.p50), (0.9, summary.p90), (0.99, summary.p99), (0.999, summary.p999)] {
                let exact = naive(&all, part);
                prop_assert!((exact..=exact + exact / 1000).contains(&value), "{} is {}, not {}", part, value, exact);
            }
        }

        #[test]
        fn ranks_and_outliers_are_those_of_a_sorted_list(mut values in prop::collection::vec(0u64..2000, 1..200)) {
            let samples = Samples::of(values.iter().copied()).unwrap();
            values.sort_unstable();
            for (at, value) in values.iter().enumerate() {
                prop_assert_eq!(rank(&samples, at as u128 + 1), *value);
            }
            let (low, high) = (naive(&values, 0.25), naive(&values, 0.75));
            let beyond = values.iter().filter(|value| **value > high + 3 * (high - low)).count();
            prop_assert_eq!(samples.outliers, beyond as u64);
        }
    }

    #[test]
    fn an_outlier_is_counted_and_stays() {
        let samples = Samples::of([10, 11, 12, 10, 11, 12, 10, 5000]).unwrap();
        let summary = Summary::of(&[samples]).unwrap();
        assert_eq!((summary.outliers, summary.max, summary.count), (1, 5000, 8));
    }

    #[test]
    fn no_repeats_have_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }
}
