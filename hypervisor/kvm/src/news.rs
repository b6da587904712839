//! The bell that waiting vCPUs sleep beside.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use crate::Error;

/// What wakes one that sleeps beside descriptors: a descriptor.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<EventFd>);

impl Bell {
    pub(crate) fn new() -> Result<Self, Error> {
        let fd = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(Error::system("eventfd"))?;
        Ok(Self(Arc::new(fd)))
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the bell is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// Remembers for each processor that there was news until it asks, and wakes those that sleep.
#[derive(Debug, Default)]
pub(crate) struct News {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// A bit for each processor: something happened since its last [`News::wait`].
    pending: u64,
    /// Nobody shall sleep any more.
    over: bool,
    /// How many sleep. Waking nobody is a system call too.
    asleep: u32,
    /// The bell of one that sleeps beside descriptors.
    bell: Option<Bell>,
}

impl News {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is news for everyone.
    pub(crate) fn post(&self) {
        self.tell(|state| state.pending = u64::MAX);
    }

    /// There is news for one processor.
    pub(crate) fn wake(&self, processor: u32) {
        self.tell(|state| state.pending |= bit(processor));
    }

    /// From now on nobody sleeps.
    pub(crate) fn end(&self) {
        self.tell(|state| state.over = true);
    }

    fn tell(&self, what: impl FnOnce(&mut State)) {
        let mut state = self.state();
        what(&mut state);
        let asleep = state.asleep > 0;
        if let Some(bell) = state.bell.take() {
            // It fails only if it rings already.
            let _ = bell.0.write(1);
        }
        drop(state);
        if asleep {
            self.changed.notify_all();
        }
    }

    /// This processor is about to sleep beside the bell, which rings at the next news; or true, and
    /// the news is forgotten, if there is some already, or nobody shall sleep.
    pub(crate) fn begin(&self, processor: u32, bell: &Bell) -> bool {
        let mut state = self.state();
        if state.pending & bit(processor) != 0 || state.over {
            state.pending &= !bit(processor);
            return true;
        }
        state.bell = Some(bell.clone());
        false
    }

    /// It sleeps no more, and the bell is quiet.
    pub(crate) fn end_of_sleep(&self, bell: &Bell) {
        if self.state().bell.take().is_none() {
            let _ = bell.0.read();
        }
    }

    /// Sleeps until there is news for this processor or the time is up, and forgets the news.
    pub(crate) fn wait(&self, processor: u32, timeout: Option<Duration>) {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut state = self.state();
        state.asleep += 1;
        while state.pending & bit(processor) == 0 && !state.over {
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
        state.asleep -= 1;
        state.pending &= !bit(processor);
    }
}

/// There are at most 64 processors.
const fn bit(processor: u32) -> u64 {
    1_u64.rotate_left(processor)
}

const _: () = assert!(chiton_shared::processor::MAX <= u64::BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_before_the_wait_is_not_lost_and_counts_once() {
        let news = News::default();
        news.post();
        news.post();
        news.wait(0, None);
        let start = Instant::now();
        news.wait(0, Some(Duration::from_millis(20)));
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn news_wakes_a_sleeper() {
        let news = News::default();
        std::thread::scope(|scope| {
            scope.spawn(|| news.wait(0, None));
            std::thread::sleep(Duration::from_millis(5));
            news.post();
        });
    }

    /// Whether the bell's descriptor is ready now.
    fn rings(bell: &Bell) -> bool {
        bell.0.read().is_ok()
    }

    #[test]
    fn a_bell_rings_once_at_news_and_only_for_who_sleeps_beside_it() {
        let (news, bell) = (News::default(), Bell::new().unwrap());
        news.post();
        assert!(!rings(&bell));
        assert!(news.begin(0, &bell), "there is news already");
        assert!(!news.begin(0, &bell));
        news.post();
        news.post();
        assert!(rings(&bell));
        news.end_of_sleep(&bell);
        assert!(news.begin(0, &bell));
        news.post();
        assert!(!rings(&bell), "nobody sleeps");
    }

    #[test]
    fn a_bell_is_quiet_after_the_sleep_and_news_for_another_leaves_it_asleep() {
        let (news, bell) = (News::default(), Bell::new().unwrap());
        assert!(!news.begin(0, &bell));
        news.wake(1);
        news.end_of_sleep(&bell);
        assert!(!rings(&bell));
        assert!(!news.begin(0, &bell), "that was not for processor 0");
        news.end();
        assert!(news.begin(0, &bell));
    }

    #[test]
    fn nobody_sleeps_after_the_end() {
        let news = News::default();
        news.end();
        news.wait(0, None);
        news.wait(0, None);
    }

    #[test]
    fn a_call_reaches_one_processor_and_news_all() {
        let news = News::default();
        news.wake(31);
        news.wait(31, None);
        news.post();
        news.wait(0, None);
        news.wait(31, None);
        let start = Instant::now();
        news.wake(1);
        news.wait(0, Some(Duration::from_millis(20)));
        assert!(start.elapsed() >= Duration::from_millis(20));
    }
}
