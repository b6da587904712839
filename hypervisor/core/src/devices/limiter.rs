//! Rate limits: token buckets for operations and bytes.
//!
//! A bucket fills with `per_second` tokens a second up to `burst`; who does something takes
//! tokens, and who finds too few is told when to come again. So in any time `t` no more than
//! `per_second * t + burst` are taken. There is no clock here: whoever asks says what time it is.

/// Nanoseconds in a second.
const SECOND: u128 = 1_000_000_000;

/// How much, for long and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: u64,
    burst: u64,
}

impl Rate {
    /// So many a second, and `burst` at once after a pause; `None` if one of them is 0.
    #[must_use]
    pub const fn new(per_second: u64, burst: u64) -> Option<Self> {
        if per_second == 0 || burst == 0 {
            return None;
        }
        Some(Self { per_second, burst })
    }

    /// So many a second, and at once as many as in a tenth of a second; `None` if it is 0.
    #[must_use]
    pub const fn per_second(per_second: u64) -> Option<Self> {
        Self::new(per_second, per_second.div_ceil(10))
    }

    /// How much for long, a second.
    #[must_use]
    pub const fn speed(self) -> u64 {
        self.per_second
    }

    /// How much at once.
    #[must_use]
    pub const fn burst(self) -> u64 {
        self.burst
    }

    /// The same rate with at least this burst.
    #[must_use]
    pub const fn at_least(mut self, burst: u64) -> Self {
        if self.burst < burst {
            self.burst = burst;
        }
        self
    }
}

/// Limits of one device, or of one direction of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Operations: requests, packets.
    pub ops: Option<Rate>,
    /// Bytes moved.
    pub bytes: Option<Rate>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.ops.is_none() && self.bytes.is_none()
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
    /// What is in it, in tokens times [`SECOND`].
    level: u128,
    /// When it was last filled up.
    filled: u64,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            level: u128::from(rate.burst) * SECOND,
            filled: 0,
        }
    }

    fn fill(&mut self, now: u64) {
        let earned = u128::from(now.saturating_sub(self.filled)) * u128::from(self.rate.per_second);
        self.level = (self.level + earned).min(u128::from(self.rate.burst) * SECOND);
        self.filled = self.filled.max(now);
    }

    /// When so many tokens are there, if not now.
    fn wait(&self, tokens: u64, now: u64) -> Option<u64> {
        let missing = (u128::from(tokens) * SECOND)
            .checked_sub(self.level)
            .filter(|m| *m > 0)?;
        let ns = missing.div_ceil(u128::from(self.rate.per_second));
        Some(u64::try_from(ns).map_or(u64::MAX, |ns| self.filled.max(now).saturating_add(ns)))
    }

    fn take(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(u128::from(tokens) * SECOND);
    }
}

/// The buckets of a device, full at the start.
///
/// Times are nanoseconds of any clock that does not run backwards.
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    ops: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Limiter {
    /// Buckets for these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            ops: limits.ops.map(Bucket::new),
            bytes: limits.bytes.map(Bucket::new),
        }
    }

    /// The most bytes that can be taken at once.
    #[must_use]
    pub fn most_bytes(&self) -> u64 {
        self.bytes.map_or(u64::MAX, |bucket| bucket.rate.burst)
    }

    /// When so much may be taken, if not now. More than the burst may never be taken.
    #[must_use]
    pub fn wait(&mut self, ops: u64, bytes: u64, now: u64) -> Option<u64> {
        let wait = |bucket: &mut Option<Bucket>, tokens| {
            let bucket = bucket.as_mut()?;
            bucket.fill(now);
            bucket.wait(tokens, now)
        };
        wait(&mut self.ops, ops).max(wait(&mut self.bytes, bytes))
    }

    /// Takes so much if all of it is there.
    ///
    /// # Errors
    ///
    /// When to come again; nothing is taken.
    pub fn take(&mut self, ops: u64, bytes: u64, now: u64) -> Result<(), u64> {
        if let Some(at) = self.wait(ops, bytes, now) {
            return Err(at);
        }
        for (bucket, tokens) in [(&mut self.ops, ops), (&mut self.bytes, bytes)] {
            if let Some(bucket) = bucket {
                bucket.take(tokens);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::super::testing::config;
    use super::*;

    const S: u64 = SECOND as u64;

    fn ops(per_second: u64, burst: u64) -> Limiter {
        Limiter::new(Limits {
            ops: Rate::new(per_second, burst),
            bytes: None,
        })
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut limiter = ops(10, 3);
        for _ in 0..3 {
            assert_eq!(limiter.take(1, 1 << 40, 5 * S), Ok(()));
        }
        assert_eq!(limiter.take(1, 0, 5 * S), Err(5 * S + S / 10));
        assert_eq!(limiter.take(1, 0, 5 * S + S / 10), Ok(()));
        assert_eq!(limiter.take(4, 0, 100 * S), Err(100 * S + S / 10));
    }

    #[test]
    fn both_or_none_are_taken() {
        let mut limiter = Limiter::new(Limits {
            ops: Rate::new(1, 1),
            bytes: Rate::new(100, 100),
        });
        assert_eq!(limiter.take(1, 50, 0), Ok(()));
        assert_eq!(limiter.take(1, 50, 0), Err(S));
        assert_eq!(limiter.take(0, 50, 0), Ok(()));
        assert_eq!(limiter.take(0, 1, 0), Err(S / 100));
    }

    #[test]
    fn extremes_neither_overflow_nor_hang() {
        let mut limiter = ops(u64::MAX, u64::MAX);
        assert_eq!(limiter.take(u64::MAX, 0, 0), Ok(()));
        assert_eq!(limiter.take(u64::MAX, 0, u64::MAX), Ok(()));
        let mut slow = ops(1, 1);
        assert_eq!(slow.take(u64::MAX, 0, u64::MAX), Err(u64::MAX));
        assert_eq!((Rate::new(0, 1), Rate::new(1, 0)), (None, None));
    }

    proptest! {
        #![proptest_config(config())]

        /// In no interval is more taken than rate times time plus burst, and whoever comes when
        /// told gets what was asked for.
        #[test]
        fn never_more_than_rate_times_time_plus_burst(
            per_second in 1_u64..1_000_000,
            burst in 1_u64..10_000,
            steps in prop::collection::vec((0_u64..2_000_000_000, 1_u64..10_000), 1..40),
        ) {
            let mut limiter = ops(per_second, burst);
            let mut now = 0;
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (pause, tokens) in steps {
                now += pause;
                match limiter.take(tokens, 0, now) {
                    Ok(()) => taken.push((now, tokens)),
                    Err(at) => {
                        prop_assert!(at > now);
                        if tokens <= burst {
                            now = at;
                            prop_assert_eq!(limiter.take(tokens, 0, now), Ok(()));
                            taken.push((now, tokens));
                        }
                    }
                }
            }
            for from in 0..taken.len() {
                let mut sum = 0;
                for &(at, tokens) in &taken[from..] {
                    sum += u128::from(tokens);
                    let time = u128::from(at - taken[from].0);
                    prop_assert!(sum * SECOND <= u128::from(per_second) * time + u128::from(burst) * SECOND);
                }
            }
        }
    }
}
