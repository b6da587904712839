//! Time: a monotonic clock from the time-stamp counter, wall-clock time, and sleep.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use crate::boot;
use crate::host::{Doorbells, Host};

/// How many bits of a [`Scale`] are behind the point.
const SHIFT: u32 = 40;

/// What turns counter ticks into nanoseconds with one multiplication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale(u64);

impl Scale {
    /// For a counter of this frequency; 0 is taken for 1 GHz.
    const fn new(khz: u64) -> Self {
        let khz = if khz == 0 { 1_000_000 } else { khz };
        Self((1_000_000 << SHIFT) / khz)
    }

    /// Nanoseconds of so many ticks.
    const fn ns(self, ticks: u64) -> u64 {
        ((ticks as u128 * self.0 as u128) >> SHIFT) as u64
    }
}

/// The counter as this guest has to read it: it goes on where it was when the guest goes on from a snapshot.
struct Clock {
    ticks: u64,
    /// What the counter was then, and the wall-clock time; `None` for a guest that never has.
    resumed: Option<(u64, u64)>,
}

impl Clock {
    fn now() -> Self {
        loop {
            let count = boot::generation_count();
            if count == 0 {
                let ticks = ticks();
                // It may have changed meanwhile, and the counter with it.
                if boot::generation_count() == 0 {
                    return Self { ticks, resumed: None };
                }
                continue;
            }
            let generation = boot::generation();
            let ticks = ticks().wrapping_add(generation.ticks);
            if boot::generation_count() == generation.count {
                let resumed = Some((generation.at, generation.wall_clock_ns));
                return Self { ticks, resumed };
            }
        }
    }
}

static START: AtomicU64 = AtomicU64::new(0);
static SCALE: AtomicU64 = AtomicU64::new(0);

/// Starts the clocks.
pub(crate) fn start(tsc_khz: u64) {
    START.store(Clock::now().ticks, Ordering::Relaxed);
    SCALE.store(Scale::new(tsc_khz).0, Ordering::Relaxed);
}

/// The time-stamp counter.
#[inline]
#[must_use]
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and the host does not forbid it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

pub(crate) fn uptime_ns() -> u64 {
    let ticks = Clock::now().ticks.saturating_sub(START.load(Ordering::Relaxed));
    Scale(SCALE.load(Ordering::Relaxed)).ns(ticks)
}

/// Time since the guest's first instruction. For a guest that goes on from a snapshot it goes on too: the time between
/// does not count.
#[must_use]
pub fn uptime() -> Duration {
    Duration::from_nanos(uptime_ns())
}

/// A point in time by a clock that never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self(uptime_ns())
    }

    /// Time from `earlier` to this instant; zero if it is later.
    #[must_use]
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Time since this instant.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().duration_since(self)
    }
}

impl core::ops::Add<Duration> for Instant {
    type Output = Self;

    /// The instant `duration` later, or the end of time if that comes before.
    fn add(self, duration: Duration) -> Self {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(ns))
    }
}

/// What the time-stamp counter has at an instant, but never more than half an hour ahead: the
/// kernel's arithmetic of far deadlines wraps.
pub(crate) fn stamp_of(at: Instant) -> u64 {
    let ns = at.0.saturating_sub(uptime_ns()).min(1_800_000_000_000);
    let khz = u128::from(boot::page().tsc_khz.max(1));
    ticks() + (u128::from(ns) * khz / 1_000_000) as u64
}

/// From a time-stamp: how many nanoseconds it is until then.
pub(crate) fn ns_until(stamp: u64) -> u64 {
    Scale(SCALE.load(Ordering::Relaxed)).ns(stamp.saturating_sub(ticks()))
}

/// Wall-clock time: since 1970-01-01 00:00 UTC.
#[must_use]
pub fn now() -> Duration {
    let Clock { ticks, resumed } = Clock::now();
    let start = (START.load(Ordering::Relaxed), boot::page().wall_clock_ns);
    let (at, wall_clock_ns) = resumed.unwrap_or(start);
    let since = Scale(SCALE.load(Ordering::Relaxed)).ns(ticks.saturating_sub(at));
    Duration::from_nanos(wall_clock_ns.saturating_add(since))
}

/// Sleeps until a queue that was armed has news or `deadline` has come (`None`: never).
///
/// It may return early, so look again at what you wait for:
///
/// ```no_run
/// use chiton_guest::{console, time};
/// use core::time::Duration;
///
/// # fn main() -> Result<(), console::ConsoleError> {
/// let deadline = time::Instant::now() + Duration::from_secs(5);
/// while !console::arm()? && time::Instant::now() < deadline {
///     time::wait(Some(deadline));
/// }
/// # Ok(())
/// # }
/// ```
pub fn wait(deadline: Option<Instant>) {
    let ns = ns_left(deadline);
    if ns > 0 {
        Doorbells.wait(ns);
    }
}

/// As [`wait`], on a processor that gets the interrupt of what is waited for. Nobody looks at the queues before.
#[cfg(feature = "net")]
pub(crate) fn halt(deadline: Option<Instant>) {
    let ns = ns_left(deadline);
    if ns > 0 {
        Doorbells.halt(ns);
    }
}

fn ns_left(deadline: Option<Instant>) -> u64 {
    deadline.map_or(u64::MAX, |deadline| deadline.0.saturating_sub(uptime_ns()))
}

/// Sleeps for so long.
pub fn sleep(duration: Duration) {
    let deadline = Instant::now() + duration;
    while Instant::now() < deadline {
        wait(Some(deadline));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds_to_the_last_one() {
        let day = 24 * 3600 * 1_000_000_000;
        for khz in [999_999, 1_000_000, 2_399_998, 2_400_000, 5_000_000] {
            let ticks = khz * 24 * 3600 * 1000;
            let ns = Scale::new(khz).ns(ticks);
            // 40 bits behind the point: wrong by less than 1 in 10^11.
            assert!(day - ns < 1000, "{khz} kHz: {ns}");
        }
    }

    #[test]
    fn an_unknown_frequency_still_gives_a_clock() {
        assert_eq!(Scale::new(0).ns(1000), 1000);
    }

    #[test]
    fn instants_do_not_overflow() {
        let late = Instant(u64::MAX - 1) + Duration::MAX;
        assert_eq!(late, Instant(u64::MAX));
        assert_eq!(Instant(3).duration_since(late), Duration::ZERO);
    }
}
