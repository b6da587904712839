//! Where the processors of a paused guest wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Open at first.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Whether it is closed, so that passing an open one costs next to nothing.
    closed: AtomicBool,
    lock: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    /// From now on who comes waits.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Lets everyone go on who waits.
    pub(crate) fn open(&self) {
        let _locked = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(false, Ordering::SeqCst);
        self.opened.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Returns as soon as it is open.
    pub(crate) fn pass(&self) {
        if !self.is_closed() {
            return;
        }
        let mut locked = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.is_closed() {
            locked = self.opened.wait(locked).unwrap_or_else(PoisonError::into_inner);
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
}
