//! The emulated devices on the hub: their registers, and the input that some wait for.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chiton_core::devices::Emulated;
use chiton_shared::boot::DeviceEntry;
use chiton_shared::map;
use rustix::event::epoll;

use crate::host::complaint::Complaint;
use crate::host::console::Failures;
use crate::hub::{Hub, Server, Token};

/// An emulated device with what the host needs to drive it.
pub(crate) struct EmulatedSlot {
    state: Mutex<State>,
    input: Option<OwnedFd>,
    failures: Arc<Failures>,
    complaint: Complaint,
}

struct State {
    device: Box<dyn Emulated>,
    /// Whether epoll watches the input.
    watched: bool,
}

impl EmulatedSlot {
    pub(crate) fn new(device: Box<dyn Emulated>, input: Option<OwnedFd>) -> Self {
        Self {
            state: Mutex::new(State { device, watched: false }),
            input,
            failures: Arc::default(),
            complaint: Complaint::default(),
        }
    }

    /// Says in the log what its backend leaves there.
    pub(crate) fn reporting(self, failures: Arc<Failures>, complaint: Complaint) -> Self {
        Self {
            failures,
            complaint,
            ..self
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the boot page says of it, as device number `index`.
    pub(crate) fn entry(&self, index: usize) -> DeviceEntry {
        DeviceEntry {
            id: self.state().device.id(),
            registers: map::device_registers(index),
            ..DeviceEntry::default()
        }
    }

    /// How many operations have failed.
    pub(crate) fn failures(&self) -> u64 {
        self.state().device.failures()
    }
}

impl Hub {
    /// The guest reads a register of an emulated device, or an address where nothing is.
    pub(crate) fn emulated_read(&self, address: u64, data: &mut [u8]) {
        match self.emulated_at(address) {
            Some((_, slot, offset)) => slot.state().device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes a register of an emulated device, or where nothing is.
    pub(crate) fn emulated_write(&self, address: u64, data: &[u8]) {
        let Some((index, slot, offset)) = self.emulated_at(address) else {
            return;
        };
        let mut state = slot.state();
        state.device.write(offset, data, self.ram.as_ref());
        self.after_emulated(index, slot, &mut state);
    }

    /// Lets an emulated device take in what has come.
    pub(crate) fn process_emulated(&self, index: usize) {
        let Some(slot) = index
            .checked_sub(self.slots().len())
            .and_then(|i| self.emulated().get(i))
        else {
            return;
        };
        let mut state = slot.state();
        state.device.work(self.ram.as_ref());
        self.after_emulated(index, slot, &mut state);
    }

    /// What has to follow whenever a device has done something: raise its interrupt, tell what
    /// failed, and watch for input while there is room for it.
    fn after_emulated(&self, index: usize, slot: &EmulatedSlot, state: &mut State) {
        if state.device.interrupt() {
            self.post_news();
        }
        self.report(index, &slot.failures, &slot.complaint);
        let wanted = state.device.wants_input();
        if let Some(input) = slot.input.as_ref().filter(|_| state.watched != wanted) {
            let token = Token::Input(index);
            match self.watch_descriptor(Server::Devices, input, token, epoll::EventFlags::IN, wanted) {
                Ok(()) => state.watched = wanted,
                Err(error) => self.log(&format!("cannot watch a descriptor: {error}")),
            }
        }
    }

    fn emulated_at(&self, address: u64) -> Option<(usize, &EmulatedSlot, u64)> {
        let offset = address.checked_sub(map::DEVICES)?;
        let index = usize::try_from(offset / map::DEVICE_STRIDE).ok()?;
        let slot = self.emulated().get(index.checked_sub(self.slots().len())?)?;
        Some((index, slot, offset % map::DEVICE_STRIDE))
    }
}
