//! The thread behind a pool: it makes machines ahead of the calls, and ends calls that take too long.

use std::sync::{Arc, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::Shared;
use super::limit::Limit;
use super::machine::Worker;
use crate::Error;
use crate::clock;

/// Stack of the thread, in bytes.
const STACK: usize = 256 << 10;

/// Starts the thread. It ends when nobody else has the pool any more.
pub(super) fn start(shared: &Arc<Shared>) -> Result<(), Error> {
    let pool = Arc::downgrade(shared);
    let builder = thread::Builder::new().name("keeper".into()).stack_size(STACK);
    let started = builder.spawn(move || {
        while let Some(shared) = Weak::upgrade(&pool)
            && keep(&shared)
        {}
    });
    started
        .map(|_| ())
        .map_err(Error::system("start the thread that keeps machines ready"))
}

/// Does what is due, then waits; false if that was all.
fn keep(shared: &Shared) -> bool {
    let mut state = shared.lock();
    if state.closed {
        return false;
    }
    if state.machines < shared.options.size && state.failed.is_none() {
        state.machines += 1;
        drop(state);
        let made = Worker::new(&shared.template);
        let mut state = shared.lock();
        match made {
            Ok(worker) => state.add(worker),
            Err(error) => {
                state.machines -= 1;
                state.failed = Some(error);
            }
        }
        drop(state);
        shared.idle.notify_one();
        return true;
    }
    let spent = std::mem::take(&mut state.spent);
    if !spent.is_empty() {
        drop((state, spent));
        return true;
    }
    state.limits.retain(|limit| limit.strong_count() > 0);
    let now = clock::now();
    let looks = state.limits.iter().filter_map(|limit| limit.upgrade()?.look(now));
    match looks.min() {
        None => drop(shared.work.wait(state).unwrap_or_else(PoisonError::into_inner)),
        Some(ns) => drop(
            shared
                .work
                .wait_timeout(state, Duration::from_nanos(ns))
                .unwrap_or_else(PoisonError::into_inner),
        ),
    }
    true
}

/// Does something that has so much time, before there is a pool.
pub(super) fn watched<T>(limit: &Limit, work: impl FnOnce() -> T) -> T {
    let done = (std::sync::Mutex::new(false), std::sync::Condvar::new());
    let lock = || done.0.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        if limit.left().is_some() {
            scope.spawn(|| {
                let mut over = lock();
                while !*over {
                    let ns = limit.look(clock::now()).unwrap_or(u64::MAX);
                    let waited = done.1.wait_timeout(over, Duration::from_nanos(ns));
                    over = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            });
        }
        let result = work();
        *lock() = true;
        done.1.notify_all();
        result
    })
}
