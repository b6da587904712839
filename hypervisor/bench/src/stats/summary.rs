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

/// All samples of all repeats, to three digits.
pub(crate) fn histogram(repeats: &[Samples]) -> Option<Histogram<u64>> {
    let mut histogram = Histogram::new(3).ok()?;
    for (value, times) in repeats.iter().flat_map(|samples| &samples.values) {
        histogram.record_n(*value, *times).ok()?;
    }
    (!histogram.is_empty()).then_some(histogram)
}

/// How many samples lie more than three interquartile ranges above the third quartile (Tukey's outer
/// fence, upwards: nothing makes an operation much quicker than it is). They are counted and kept.
#[must_use]
pub fn outliers(samples: &Samples) -> u64 {
    let at = |part: u64| {
        let rank = (u128::from(samples.count) * u128::from(part)).div_ceil(4);
        let mut seen = 0u128;
        let found = samples.values.iter().find(|(_, times)| {
            seen += u128::from(*times);
            seen >= rank
        });
        found.map_or(samples.max, |(value, _)| *value)
    };
    let (low, high) = (at(1), at(3));
    let fence = high.saturating_add(high.saturating_sub(low).saturating_mul(3));
    let beyond = samples.values.iter().filter(|(value, _)| *value > fence);
    beyond.fold(0, |all, (_, times)| times.saturating_add(all))
}
