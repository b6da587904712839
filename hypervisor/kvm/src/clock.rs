//! The clock of the devices: nanoseconds of the monotonic clock, which never run backwards.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What time it is.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanoseconds) = (now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned());
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// How long it is until then.
pub(crate) fn until(at: u64) -> Duration {
    Duration::from_nanos(at.saturating_sub(now()))
}
