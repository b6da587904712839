//! Processors that are held between two instructions and have handed over their states.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chiton_core::machine::{End, Machine};

use super::{Hub, SHORT, StopReason, lock};
use crate::Error;
use crate::board::HubBoard;
use crate::snapshot::TakeError;
use crate::state::VcpuState;
use crate::vcpu::KvmVcpu;

/// Where processors hand over their states.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// How often processors have been started and have not parked: one that is to start again already counts twice,
    /// and is not held as long as that is so.
    begun: AtomicU32,
    states: Mutex<Vec<(u32, Result<VcpuState, String>)>>,
    changed: Condvar,
}

impl Hub {
    /// A processor runs from now on.
    pub(crate) fn begins(&self) {
        self.desk.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// A processor no longer runs.
    pub(crate) fn parks(&self) {
        let _states = lock(&self.desk.states);
        self.desk.begun.fetch_sub(1, Ordering::SeqCst);
        // Whoever waits for its state need not.
        self.desk.changed.notify_all();
    }

    /// Whether processors are asked for their states.
    pub(crate) fn is_asking(&self) -> bool {
        self.gate.is_asking()
    }

    /// Runs a processor to its end, and hands over its state whenever somebody asks.
    pub(crate) fn run(&self, number: u32, machine: &mut Machine<KvmVcpu, HubBoard>) -> Result<End, Error> {
        loop {
            match machine.run()? {
                End::Asked => self.hand_over(number, &machine.vcpu),
                end => return Ok(end),
            }
        }
    }

    fn hand_over(&self, number: u32, vcpu: &KvmVcpu) {
        let state = VcpuState::of(vcpu).map_err(|error| error.to_string());
        self.gate.be_asked(|| {
            let mut states = lock(&self.desk.states);
            states.retain(|(other, _)| *other != number);
            states.push((number, state));
            self.desk.changed.notify_all();
        });
        self.gate.pass();
    }

    /// Holds all processors between two instructions, does something with their states, in order, and lets them go on.
    pub(crate) fn held<R>(
        &self,
        patience: Duration,
        what: impl FnOnce(Vec<(u32, VcpuState)>) -> Result<R, TakeError>,
    ) -> Result<R, TakeError> {
        // Cleared before, since processors answer as soon as they are asked.
        lock(&self.desk.states).clear();
        self.gate.ask(true);
        let states = self.collect(patience);
        let result = states.and_then(what);
        // Who ends with a snapshot takes this process along: first it is told that there is one.
        if self.stop_reason() != Some(StopReason::Snapshot) {
            self.let_go();
        }
        result
    }

    /// Lets processors go on that are held.
    pub(crate) fn let_go(&self) {
        self.gate.ask(false);
    }

    fn collect(&self, patience: Duration) -> Result<Vec<(u32, VcpuState)>, TakeError> {
        let until = Instant::now() + patience;
        self.interrupt();
        // Who sleeps in this process is not woken by that.
        self.news.post();
        let mut states = lock(&self.desk.states);
        while states.len() as u32 != self.desk.begun.load(Ordering::SeqCst) {
            if self.stopped() {
                return Err(TakeError::Ending);
            }
            if Instant::now() >= until {
                return Err(TakeError::NotHeld(patience.as_secs()));
            }
            let waited = self.desk.changed.wait_timeout(states, SHORT);
            states = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut states = std::mem::take(&mut *states);
        states.sort_by_key(|(number, _)| *number);
        let unwrap = |(number, state): (u32, Result<VcpuState, String>)| match state {
            Ok(state) => Ok((number, state)),
            Err(why) => Err(TakeError::Processor { number, why }),
        };
        if self.stopped() {
            return Err(TakeError::Ending);
        }
        states.into_iter().map(unwrap).collect()
    }
}
