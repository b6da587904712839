//! How fast the time-stamp counter ticks, by the monotonic clock.

use std::arch::x86_64::_rdtsc;
use std::time::{Duration, Instant};

/// How long the two clocks are compared.
const FOR: Duration = Duration::from_millis(100);
/// How often both are read, to find a reading that nothing came between.
const TRIES: usize = 64;

/// Ticks in a second.
#[must_use]
pub fn tsc_hz() -> u64 {
    let (from, began) = both();
    std::thread::sleep(FOR);
    let (to, ended) = both();
    let ns = (ended - began).as_nanos().max(1);
    (u128::from(to.wrapping_sub(from)) * 1_000_000_000 / ns) as u64
}

/// Both clocks at the same moment: of many readings the one that took the least.
fn both() -> (u64, Instant) {
    let one = |_| {
        // SAFETY: every processor of 64 bits has the instruction, and Linux allows it to programs.
        let before = unsafe { _rdtsc() };
        let now = Instant::now();
        // SAFETY: as above.
        let after = unsafe { _rdtsc() };
        (after.wrapping_sub(before), before.midpoint(after), now)
    };
    let best = (0..TRIES).map(one).min_by_key(|(took, ..)| *took);
    let (_, ticks, now) = best.unwrap_or_else(|| one(0));
    (ticks, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_calibrations_agree_to_a_hundredth() {
        let (one, other) = (tsc_hz(), tsc_hz());
        assert!(one > 100_000_000, "{one}");
        assert!(one.abs_diff(other) < one / 100, "{one} and {other}");
    }
}
