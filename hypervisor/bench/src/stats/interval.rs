use super::rank;
use crate::run::Samples;

/// The confidence that is aimed at.
const WANTED: f64 = 0.95;

/// Where the median lies, as far as what was measured can tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end, which is one of the values.
    pub low: u64,
    /// Its upper end, which is one of the values.
    pub high: u64,
    /// How often an interval that is made like this holds the median. Less than 0.95 if there are too few
    /// values for that.
    pub confidence: f64,
    /// What it is made from.
    pub over: Over,
}

/// What an interval is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The medians of so many repeats: what changes from one start to the next is in it.
    Repeats(usize),
    /// So many samples of the only repeat, taken to be independent, which they hardly are: narrower than the truth.
    Samples(u64),
}

/// The interval of the median between two order statistics, which assumes nothing of the distribution.
///
/// Each of `n` independent values lies below the true median with probability one half, so the median
/// lies between the `k`-th least and the `k`-th greatest with probability `1 - 2 P(B < k)`, `B` being
/// binomial of `n` and one half. `k` is the largest for which that is at least 0.95, and 1 if there is
/// none, as with fewer than six values. See Le Boudec, *Performance Evaluation of Computer and
/// Communication Systems*, theorem 2.1; David and Nagaraja, *Order Statistics*, 7.1.
///
/// The values are the medians of the repeats if there are at least two: samples within a repeat share
/// its pages, its caches and its luck, and only repeats show how much these matter (Kalibera and Jones,
/// *Rigorous benchmarking in reasonable time*, ISMM 2013).
#[must_use]
pub fn median_interval(repeats: &[Samples]) -> Option<Interval> {
    let median = |samples: &Samples| rank(samples, u128::from(samples.count.div_ceil(2)));
    if let [only] = repeats {
        let (k, confidence) = ranks(only.count);
        return Some(Interval {
            low: rank(only, u128::from(k)),
            high: rank(only, u128::from(only.count - k + 1)),
            confidence,
            over: Over::Samples(only.count),
        });
    }
    let mut medians: Vec<_> = repeats.iter().map(median).collect();
    medians.sort_unstable();
    let (k, confidence) = ranks(medians.len() as u64);
    let k = usize::try_from(k).ok()?;
    Some(Interval {
        low: *medians.get(k - 1)?,
        high: *medians.get(medians.len() - k)?,
        confidence,
        over: Over::Repeats(medians.len()),
    })
}

/// The rank `k` from both ends of `n` values, at least 1, and the confidence of the interval between them.
fn ranks(n: u64) -> (u64, f64) {
    // The normal distribution is near enough to the binomial from here on (Le Boudec, theorem 2.1).
    if n > 1000 {
        let k = (n as f64 / 2.0 - 0.98 * (n as f64).sqrt()).floor();
        return (k as u64, WANTED);
    }
    // P(B = i), from i = 0 up; 0.5^1000 is still a normal f64.
    let mut point = 0.5f64.powi(n as i32);
    let mut below = point;
    let mut best = (1, 1.0 - 2.0 * below);
    for i in 1..n {
        point *= (n - i + 1) as f64 / i as f64;
        below += point;
        let confidence = 1.0 - 2.0 * below;
        if confidence < WANTED {
            break;
        }
        best = (i + 1, confidence);
    }
    (best.0, best.1.max(0.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranks_are_those_of_the_published_table() {
        // Le Boudec, table A.1: 1 and n for 6 to 8, then these.
        let table = [
            (6, 1, 0.969),
            (8, 1, 0.992),
            (9, 2, 0.961),
            (12, 3, 0.961),
            (20, 6, 0.959),
            (30, 10, 0.957),
            (70, 27, 0.959),
        ];
        for (n, k, confidence) in table {
            let found = ranks(n);
            assert_eq!(found.0, k, "of {n}");
            assert!((found.1 - confidence).abs() < 0.001, "of {n}: {found:?}");
        }
    }

    #[test]
    fn few_values_say_how_little_they_know() {
        assert_eq!([1, 2, 3, 5].map(ranks), [(1, 0.0), (1, 0.5), (1, 0.75), (1, 0.9375)]);
    }

    #[test]
    fn the_two_ways_to_ranks_meet() {
        let (below, above) = (ranks(1000).0, ranks(1001).0);
        assert!(above.abs_diff(below) <= 1, "{below} {above}");
    }

    #[test]
    fn one_repeat_speaks_for_its_samples_and_several_for_themselves() {
        let one = Samples::of(1..=100).unwrap();
        let interval = median_interval(std::slice::from_ref(&one)).unwrap();
        assert_eq!(
            (interval.low, interval.high, interval.over),
            (40, 61, Over::Samples(100))
        );
        let interval = median_interval(&[one.clone(), Samples::of([7]).unwrap(), one]).unwrap();
        assert_eq!((interval.low, interval.high, interval.over), (7, 50, Over::Repeats(3)));
        assert_eq!(median_interval(&[]), None);
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_median_of_the_medians(
            repeats in prop::collection::vec(prop::collection::vec(0u64..1000, 1..20), 1..40)
        ) {
            let repeats: Vec<_> = repeats.into_iter().map(|values| Samples::of(values).unwrap()).collect();
            let mut medians: Vec<_> = repeats.iter().map(|one| rank(one, u128::from(one.count.div_ceil(2)))).collect();
            medians.sort_unstable();
            let interval = median_interval(&repeats).unwrap();
            if let Over::Repeats(_) = interval.over {
                prop_assert!((interval.low..=interval.high).contains(&medians[medians.len() / 2]));
            }
            prop_assert!(interval.low <= interval.high && (0.0..=1.0).contains(&interval.confidence));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn an_interval_misses_the_true_median_as_seldom_as_it_says(seed in any::<u64>()) {
            // Sums of coin tosses, by a generator of its own: two thousand intervals over nine repeats each.
            let mut state = seed | 1;
            let mut next = || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state >> 11 };
            let held = (0..2000).filter(|_| {
                let repeats: Vec<_> = (0..9).map(|_| Samples::of([next()]).unwrap()).collect();
                let interval = median_interval(&repeats).unwrap();
                (interval.low..=interval.high).contains(&(1 << 52))
            }).count();
            // 0.961 of 2000 is 1922, with a deviation of 8.7: eight of them.
            prop_assert!((1852..=1992).contains(&held), "{} of 2000", held);
        }
    }
}
