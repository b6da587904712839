//! The bell that a waiting vCPU sleeps beside.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Remembers that a queue had news until a vCPU asks, and wakes one that sleeps.
#[derive(Debug, Default)]
pub(crate) struct News {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Something happened since the last [`News::wait`].
    pending: bool,
    /// Nobody shall sleep any more.
    over: bool,
}

impl News {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is news.
    pub(crate) fn post(&self) {
        self.state().pending = true;
        self.changed.notify_all();
    }

    /// From now on nobody sleeps.
    pub(crate) fn end(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }

    /// Sleeps until there is news or the time is up, and forgets the news.
    pub(crate) fn wait(&self, timeout: Option<Duration>) {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut state = self.state();
        while !state.pending && !state.over {
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.changed
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        state.pending = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_before_the_wait_is_not_lost_and_counts_once() {
        let news = News::default();
        news.post();
        news.post();
        news.wait(None);
        let start = Instant::now();
        news.wait(Some(Duration::from_millis(20)));
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn news_wakes_a_sleeper() {
        let news = News::default();
        std::thread::scope(|scope| {
            scope.spawn(|| news.wait(None));
            std::thread::sleep(Duration::from_millis(5));
            news.post();
        });
    }

    #[test]
    fn nobody_sleeps_after_the_end() {
        let news = News::default();
        news.end();
        news.wait(None);
        news.wait(None);
    }
}
