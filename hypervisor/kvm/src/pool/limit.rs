//! The time that a call has.
//!
//! ```text
//!   a call            0 ── begin ──▶ when it began ── end ──▶ 0
//!   the keeper                        └── too long ago ──▶ EXPIRED, and a kick
//! ```
//!
//! To begin and to end costs an atomic store each. The keeper looks when the first that runs would be
//! out of time, or, if none runs, after as long as any has: whoever begins meanwhile is not out of time
//! before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::signal::Kick;

const IDLE: u64 = 0;
const EXPIRED: u64 = u64::MAX;

/// The call that a machine works on.
#[derive(Debug)]
pub(super) struct Limit {
    /// [`IDLE`], [`EXPIRED`], or when the call began, in nanoseconds of [`clock::now`].
    state: AtomicU64,
    /// Who works on it.
    thread: Mutex<Option<Kick>>,
    limit: Option<u64>,
}

impl Limit {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self {
            state: AtomicU64::new(IDLE),
            thread: Mutex::new(None),
            limit: limit.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)),
        }
    }

    /// A call begins, on this thread.
    pub(super) fn begin(&self, thread: Kick) {
        if self.limit.is_none() {
            return;
        }
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        self.state.store(clock::now().clamp(1, EXPIRED - 1), Ordering::Release);
    }

    /// It has ended.
    pub(super) fn end(&self) {
        self.state.store(IDLE, Ordering::Release);
    }

    /// It is out of time.
    pub(super) fn expire(&self) {
        self.state.store(EXPIRED, Ordering::Release);
    }

    /// Whether it is out of time.
    pub(super) fn is_over(&self) -> bool {
        self.state.load(Ordering::Acquire) == EXPIRED
    }

    /// How much it has left; `None` for no limit.
    pub(super) fn left(&self) -> Option<Duration> {
        let limit = self.limit?;
        let began = self.state.load(Ordering::Acquire);
        let until = if began == EXPIRED {
            0
        } else {
            began.saturating_add(limit)
        };
        Some(Duration::from_nanos(until.saturating_sub(clock::now())))
    }

    /// Ends it if it is out of time; tells when to look again, in nanoseconds from `now`.
    pub(super) fn look(&self, now: u64) -> Option<u64> {
        let limit = self.limit?;
        let began = self.state.load(Ordering::Acquire);
        if matches!(began, IDLE | EXPIRED) {
            return Some(limit);
        }
        let until = began.saturating_add(limit);
        if until > now {
            return Some(until - now);
        }
        // Who has ended meanwhile, and perhaps begun again, is left alone.
        let over = self
            .state
            .compare_exchange(began, EXPIRED, Ordering::AcqRel, Ordering::Relaxed);
        if over.is_ok()
            && let Some(thread) = *self.thread.lock().unwrap_or_else(PoisonError::into_inner)
        {
            thread.kick();
        }
        Some(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_over_when_its_time_is_and_not_before() {
        let limit = Limit::new(Some(Duration::from_nanos(100)));
        assert_eq!(limit.look(5000), Some(100), "idle: whoever begins now has that long");
        limit.state.store(1000, Ordering::Release);
        assert_eq!(limit.look(1040), Some(60));
        assert!(!limit.is_over());
        assert_eq!(limit.look(1100), Some(100));
        assert!(limit.is_over() && limit.left() == Some(Duration::ZERO));
        limit.end();
        assert!(!limit.is_over());
    }

    #[test]
    fn without_a_limit_nobody_looks() {
        let limit = Limit::new(None);
        assert_eq!((limit.look(u64::MAX), limit.left()), (None, None));
        limit.expire();
        assert!(limit.is_over(), "a guest that waits for ever is ended all the same");
    }
}
