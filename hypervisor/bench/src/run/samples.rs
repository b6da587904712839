use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The samples of one repeat: each value, and how often it was seen.
///
/// Values are exact as long as there are at most [`Samples::EXACT`] different ones; beyond that each is
/// rounded up by less than a thousandth of it, and `min`, `max` and `sum` stay exact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Samples {
    /// Value and count, by rising value; no count is 0.
    pub values: Vec<(u64, u64)>,
    /// How many samples there are: the sum of the counts.
    pub count: u64,
    /// The sum of all samples.
    pub sum: u64,
    /// The least.
    pub min: u64,
    /// The greatest.
    pub max: u64,
    /// How many of them are outliers, see [`stats::outliers`](crate::stats::outliers()). They are kept.
    pub outliers: u64,
    /// How long the processors waited for the host meanwhile, in nanoseconds, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steal: Option<u64>,
    /// How often the measuring thread moved to another processor meanwhile, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<u64>,
}

/// What disturbed a measurement while it was made, where that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbed {
    /// How long the processors waited for the host, in nanoseconds.
    pub steal: Option<u64>,
    /// How often the measuring thread moved to another processor.
    pub migrations: Option<u64>,
}

impl Disturbed {
    /// What disturbed several, one after the other: known where it is of each.
    #[must_use]
    pub fn by_all(all: &[Self]) -> Self {
        Self {
            steal: all.iter().map(|one| one.steal).sum(),
            migrations: all.iter().map(|one| one.migrations).sum(),
        }
    }
}

impl Samples {
    /// How many different values are kept as they are.
    pub const EXACT: usize = 8192;

    /// These values.
    ///
    /// # Errors
    ///
    /// If there are none, or their sum is no 64-bit number.
    pub fn of(values: impl IntoIterator<Item = u64>) -> Result<Self> {
        let mut builder = SamplesBuilder::default();
        for value in values {
            builder.add(value, 1)?;
        }
        builder.build()
    }

    /// These values as repeats, at most so many, of as many values each as can be: those that were taken one after
    /// the other belong together.
    ///
    /// # Errors
    ///
    /// As [`Samples::of`].
    pub fn repeats(values: &[u64], most: usize) -> Result<Vec<Self>> {
        let count = most.clamp(1, values.len().max(1));
        let bound = |repeat: usize| values.len() * repeat / count;
        let each = (0..count).map(|repeat| Self::of(values[bound(repeat)..bound(repeat + 1)].iter().copied()));
        each.collect()
    }

    /// The same of values with what disturbed each: of each repeat it is the sum.
    ///
    /// # Errors
    ///
    /// As [`Samples::of`].
    pub fn disturbed_repeats(values: &[(u64, Disturbed)], most: usize) -> Result<Vec<Self>> {
        let (alone, disturbed): (Vec<_>, Vec<_>) = values.iter().copied().unzip();
        let mut repeats = Self::repeats(&alone, most)?;
        let mut rest = &disturbed[..];
        for repeat in &mut repeats {
            let (of_it, later) = rest.split_at(repeat.count as usize);
            repeat.disturbed(Disturbed::by_all(of_it));
            rest = later;
        }
        Ok(repeats)
    }

    /// Notes what disturbed them.
    pub const fn disturbed(&mut self, by: Disturbed) {
        self.steal = by.steal;
        self.migrations = by.migrations;
    }

    /// The mean of all samples.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.count.max(1) as f64
    }
}

/// Samples, as they are being taken.
#[derive(Clone, Debug, Default)]
pub struct SamplesBuilder {
    exact: BTreeMap<u64, u64>,
    rounded: Option<Histogram<u64>>,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl SamplesBuilder {
    /// Adds a value that was seen `times` times.
    ///
    /// # Errors
    ///
    /// If the sum of all is no 64-bit number.
    pub fn add(&mut self, value: u64, times: u64) -> Result<()> {
        const LARGE: Error = Error::Samples("their sum is larger than 64 bits");
        if times == 0 {
            return Ok(());
        }
        let all = value.checked_mul(times).ok_or(LARGE)?;
        let sum = self.sum.checked_add(all).ok_or(LARGE)?;
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.count = self.count.checked_add(times).ok_or(LARGE)?;
        self.sum = sum;
        self.max = self.max.max(value);
        if let Some(rounded) = &mut self.rounded {
            return record(rounded, value, times);
        }
        *self.exact.entry(value).or_default() += times;
        if self.exact.len() > Samples::EXACT {
            let mut rounded = Histogram::new(3).map_err(|_| Error::Samples("no histogram"))?;
            for (value, times) in std::mem::take(&mut self.exact) {
                record(&mut rounded, value, times)?;
            }
            self.rounded = Some(rounded);
        }
        Ok(())
    }

    /// The samples.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub fn build(self) -> Result<Samples> {
        if self.count == 0 {
            return Err(Error::Samples("there are none"));
        }
        let values: Vec<_> = match self.rounded {
            // The least and the greatest keep their exact values.
            Some(rounded) => rounded
                .iter_recorded()
                .map(|bucket| {
                    (
                        bucket.value_iterated_to().clamp(self.min, self.max),
                        bucket.count_since_last_iteration(),
                    )
                })
                .collect(),
            None => self.exact.into_iter().collect(),
        };
        let mut samples = Samples {
            values,
            count: self.count,
            sum: self.sum,
            min: self.min,
            max: self.max,
            outliers: 0,
            steal: None,
            migrations: None,
        };
        samples.outliers = crate::stats::outliers(&samples);
        Ok(samples)
    }
}

fn record(histogram: &mut Histogram<u64>, value: u64, times: u64) -> Result<()> {
    histogram
        .record_n(value, times)
        .map_err(|_| Error::Samples("a value is too large for a histogram"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_are_exact() {
        let samples = Samples::of([3, 1, 3, 2]).unwrap();
        assert_eq!(samples.values, [(1, 1), (2, 1), (3, 2)]);
        assert_eq!((samples.count, samples.sum, samples.min, samples.max), (4, 9, 1, 3));
    }

    #[test]
    fn many_values_are_rounded_and_the_ends_and_the_sum_are_not() {
        let all = 0..100_000u64;
        let samples = Samples::of(all.clone().map(|n| 1_000_003 + 7 * n)).unwrap();
        assert!(samples.values.len() <= Samples::EXACT);
        assert_eq!(
            (samples.count, samples.min, samples.max),
            (100_000, 1_000_003, 1_699_996)
        );
        assert_eq!(samples.sum, all.map(|n| 1_000_003 + 7 * n).sum::<u64>());
    }

    #[test]
    fn values_are_divided_into_repeats_in_the_order_in_which_they_came() {
        let repeats = Samples::repeats(&[9, 8, 7, 6, 5], 2).unwrap();
        let ends = repeats.iter().map(|samples| (samples.min, samples.max));
        assert_eq!(ends.collect::<Vec<_>>(), [(8, 9), (5, 7)]);
        assert_eq!(Samples::repeats(&[1, 2], 6).unwrap().len(), 2);
        assert!(Samples::repeats(&[], 6).is_err());
    }

    #[test]
    fn what_disturbed_the_values_of_a_repeat_is_its_own_and_known_if_it_is_of_all() {
        let by = |steal, migrations| Disturbed { steal, migrations };
        let values = [
            (9, by(Some(1), Some(1))),
            (8, by(Some(2), Some(0))),
            (7, by(Some(4), None)),
            (6, by(Some(8), Some(1))),
        ];
        let repeats = Samples::disturbed_repeats(&values, 2).unwrap();
        let of = |samples: &Samples| (samples.min, samples.steal, samples.migrations);
        assert_eq!(
            repeats.iter().map(of).collect::<Vec<_>>(),
            [(8, Some(3), Some(1)), (6, Some(12), None)]
        );
    }

    #[test]
    fn no_samples_are_refused() {
        assert!(Samples::of([]).is_err());
        assert!(Samples::of([u64::MAX, 1]).is_err());
    }
}
