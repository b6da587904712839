//! Where the processors of a paused guest wait.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Nobody passes.
const CLOSED: u32 = 1;
/// Who comes is asked for something, and so is let through to where that is done.
const ASKING: u32 = 2;
/// Added each time that something is asked, so that nobody takes one time for another.
const TIME: u32 = 4;

/// Open at first.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Whether it is closed, so that passing an open one costs next to nothing.
    state: AtomicU32,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Gate {
    /// From now on who comes waits.
    pub(crate) fn close(&self) {
        self.change(CLOSED, true);
    }

    /// Lets everyone go on who waits.
    pub(crate) fn open(&self) {
        self.change(CLOSED, false);
    }

    /// From now on who comes, or waits, is asked for something; or no longer.
    pub(crate) fn ask(&self, yes: bool) {
        let time = if yes { TIME } else { 0 };
        self.update(|state| if yes { state | ASKING } else { state & !ASKING }.wrapping_add(time));
    }

    fn change(&self, bit: u32, set: bool) {
        self.update(|state| if set { state | bit } else { state & !bit });
    }

    fn update(&self, change: impl Fn(u32) -> u32) {
        let _locked = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state.load(Ordering::SeqCst);
        self.state.store(change(state), Ordering::SeqCst);
        self.changed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::SeqCst) & CLOSED != 0
    }

    pub(crate) fn is_asking(&self) -> bool {
        self.state.load(Ordering::SeqCst) & ASKING != 0
    }

    /// Returns as soon as it is open, or asks.
    pub(crate) fn pass(&self) {
        self.wait(|state| state & (CLOSED | ASKING) == CLOSED);
    }

    /// Answers what is asked now, if something is, and returns as soon as it is asked no more.
    pub(crate) fn be_asked(&self, answer: impl FnOnce()) {
        let mut locked = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let state = || self.state.load(Ordering::SeqCst);
        let now = state();
        // Nobody ends this time, or begins another, before the answer is given.
        if now & ASKING != 0 {
            answer();
        }
        while state() & ASKING != 0 && state() / TIME == now / TIME {
            locked = self.changed.wait(locked).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait(&self, while_in: impl Fn(u32) -> bool) {
        if !while_in(self.state.load(Ordering::SeqCst)) {
            return;
        }
        let mut locked = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while while_in(self.state.load(Ordering::SeqCst)) {
            locked = self.changed.wait(locked).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_closed_gate_holds_who_comes_until_it_opens() {
        let gate = Gate::default();
        gate.pass();
        gate.close();
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                gate.pass();
                tell.send(gate.is_closed()).unwrap();
            });
            assert!(told.try_recv().is_err());
            gate.open();
            assert!(!told.recv().unwrap());
        });
        gate.pass();
    }

    #[test]
    fn a_closed_gate_that_asks_lets_who_waits_through_to_answer_and_holds_them_again() {
        let gate = Gate::default();
        gate.close();
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                gate.pass();
                tell.send(gate.is_asking()).unwrap();
                gate.be_asked(|| {});
                gate.pass();
                tell.send(gate.is_closed()).unwrap();
            });
            gate.ask(true);
            assert!(told.recv().unwrap());
            gate.ask(false);
            assert!(told.try_recv().is_err());
            gate.open();
            assert!(!told.recv().unwrap());
        });
    }
}
