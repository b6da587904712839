//! The rate limits of one direction.

use super::super::{Limiter, Limits, Rate};

/// Lets frames through at a limited rate.
///
/// How long a frame is shows only when it has been taken. So one is let through when there are
/// tokens for the longest that can come, and pays for what it was; the burst is that long at least.
pub(super) struct Throttle {
    limiter: Option<Limiter>,
    longest: u64,
    now: fn() -> u64,
}

impl Throttle {
    /// No limits.
    pub(super) const fn none() -> Self {
        Self {
            limiter: None,
            longest: 0,
            now: || 0,
        }
    }

    /// These limits, by this clock, for frames of up to `longest` bytes.
    pub(super) fn new(limits: Limits, longest: usize, now: fn() -> u64) -> Self {
        let longest = longest as u64;
        let limits = Limits {
            bytes: limits.bytes.map(|rate: Rate| rate.at_least(longest)),
            ..limits
        };
        Self {
            limiter: (!limits.is_none()).then(|| Limiter::new(limits)),
            longest,
            now,
        }
    }

    /// When a frame may go, if not now.
    pub(super) fn wait(&mut self) -> Option<u64> {
        let limiter = self.limiter.as_mut()?;
        limiter.wait(1, self.longest, (self.now)())
    }

    /// A frame of so many bytes went, which was allowed just now.
    pub(super) fn pay(&mut self, bytes: usize) {
        if let Some(limiter) = &mut self.limiter {
            let bytes = (bytes as u64).min(self.longest);
            // Time does not run backwards, so what was there still is.
            let _ = limiter.take(1, bytes, (self.now)());
        }
    }
}
