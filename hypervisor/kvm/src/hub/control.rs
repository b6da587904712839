//! What others may see and change of a running guest.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chiton_core::devices::Transport;
use chiton_core::exits::ExitTable;
use chiton_shared::boot::STOP_REQUESTED;
use chiton_shared::map;
use chiton_shared::memory::GuestMemory;
use rustix::event::epoll;

use super::{Handle, Hub, StopReason, Token, add, lock};
use crate::Error;
use crate::control::server::Server;
use crate::host::console::SizeHandle;
use crate::host::pages::BalloonHandle;

impl Hub {
    /// With clients served by the device loop.
    pub(crate) fn controlled_by(mut self, server: Server) -> Result<Self, Error> {
        let fd = server.as_fd().as_raw_fd();
        add(&self.devices.epoll, fd, Token::Control, epoll::EventFlags::IN)?;
        self.control = Some(Mutex::new(server));
        Ok(self)
    }

    /// Asking the guest to end at a signal, and ending it only so much later.
    pub(crate) fn patient(mut self, stop_timeout: Option<Duration>) -> Self {
        self.stop_timeout = stop_timeout;
        self
    }

    pub(super) fn serve_control(&self) {
        if let Some(server) = &self.control {
            lock(server).serve(self);
        }
    }

    /// A signal came that ends the guest, at once or if it does not end when asked. A second one
    /// always ends it.
    pub(super) fn signalled(&self, signal: i32) {
        match self.stop_timeout {
            Some(timeout) if !self.was_asked_to_stop() => self.ask(Some(timeout), StopReason::Signal(signal)),
            _ => self.stop(StopReason::Signal(signal)),
        }
    }

    /// Asks the guest to end; ends it after so long if it has not by then.
    pub(crate) fn ask_to_stop(&self, timeout: Option<Duration>) {
        self.ask(timeout, StopReason::NotStopped(timeout.unwrap_or_default()));
    }

    fn ask(&self, timeout: Option<Duration>, reason: StopReason) {
        if let Some(at) = timeout.and_then(|timeout| Instant::now().checked_add(timeout)) {
            *lock(&self.last_chance) = Some((at, reason));
            // The device loop may sleep for longer than that.
            self.devices.wake();
        }
        self.asked.store(true, Ordering::Release);
        if let Some(word) = self.ram.window(map::BOOT_PAGE + STOP_REQUESTED as u64, 4) {
            word.write_u32(0, 1);
        }
        self.rouse();
    }

    pub(crate) fn was_asked_to_stop(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// When a guest that was asked to end is ended.
    pub(super) fn last_chance(&self) -> Option<Instant> {
        lock(&self.last_chance).map(|(at, _)| at)
    }

    /// Ends a guest that has not done as asked.
    pub(super) fn use_last_chance(&self) {
        let mut place = lock(&self.last_chance);
        if let Some((at, reason)) = *place
            && Instant::now() >= at
        {
            *place = None;
            self.stop(reason);
        }
    }

    /// Holds every processor at its next exit, and causes one.
    pub(crate) fn pause(&self) {
        if !self.stopped() {
            self.gate.close();
            self.interrupt();
        }
        // Who asked the guest to end meanwhile must not find it held.
        if self.stopped() {
            self.gate.open();
        }
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) {
        self.gate.open();
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.gate.is_closed()
    }

    /// Returns when the guest is not paused.
    pub(crate) fn hold(&self) {
        self.gate.pass();
    }

    /// Whether the guest has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// How long it has been running.
    pub(crate) fn running(&self) -> Duration {
        self.start.elapsed()
    }

    /// The exits so far of each processor that has been started.
    pub(crate) fn exits(&self) -> Vec<(u32, ExitTable)> {
        let mut exits: Vec<_> = lock(&self.vcpus).iter().map(|p| (p.number, p.exits.table())).collect();
        exits.sort_by_key(|(number, _)| *number);
        exits
    }

    /// How many kicks that came through ioeventfds have been seen so far.
    pub(crate) fn kicks_so_far(&self) -> u64 {
        let kicks = self.slots.iter().map(|slot| slot.kicks.load(Ordering::Relaxed));
        kicks.fold(0, u64::wrapping_add)
    }

    /// The places of the devices of one kind.
    pub(crate) fn slots_of(&self, id: u32) -> impl Iterator<Item = usize> {
        let all = self.slots.iter().enumerate();
        all.filter(move |(_, slot)| slot.id == id).map(|(index, _)| index)
    }

    /// Looks at a device.
    pub(crate) fn look_at<R>(&self, index: usize, look: impl FnOnce(&Transport) -> R) -> Option<R> {
        let slot = self.slots.get(index)?;
        Some(look(&lock(&slot.state).transport))
    }

    /// Changes a device, which then works on its queues: it may have waited for that.
    pub(crate) fn change<R>(&self, index: usize, change: impl FnOnce(&mut Transport) -> R) -> Option<R> {
        let slot = self.slots.get(index)?;
        let changed = change(&mut lock(&slot.state).transport);
        self.process(index);
        Some(changed)
    }

    /// What the host says of a device has changed: tells its driver.
    pub(crate) fn config_changed(&self, index: usize) {
        if let Some(outcome) = self.change(index, Transport::config_changed) {
            self.notify(index, outcome);
        }
    }

    /// The balloon, and its place.
    pub(crate) fn balloon(&self) -> Option<(usize, &Arc<BalloonHandle>)> {
        self.slots
            .iter()
            .enumerate()
            .find_map(|(index, slot)| match &slot.handle {
                Handle::Balloon(balloon) => Some((index, balloon)),
                _ => None,
            })
    }

    /// The size of the console, and its place.
    pub(crate) fn console_size(&self) -> Option<(usize, &Arc<SizeHandle>)> {
        self.slots
            .iter()
            .enumerate()
            .find_map(|(index, slot)| match &slot.handle {
                Handle::Console(size) => Some((index, size)),
                _ => None,
            })
    }
}
