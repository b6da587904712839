//! The devices of a guest that is called: a console whose output goes with the reply, and random bytes.
//!
//! The thread that runs the guest works on them, and nobody else. What they write into guest memory KVM does
//! not see, so it is noted here.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use chiton_core::devices::console::{Console, Input, Output, Port};
use chiton_core::devices::entropy::Entropy;
use chiton_core::devices::{Effect, NotSaved, Preset, Transport, preset_all};
use chiton_core::state::{Reader, StateError, Writer};
use chiton_shared::map;
use chiton_shared::memory::{GuestMemory, Window};

use crate::Error;
use crate::host::random::KernelRandom;
use crate::ram::Ram;

/// The most output of a call that is kept, in bytes.
const MAX_OUTPUT: usize = 1 << 20;

/// How often a device is asked to go on before the guest does.
const TURNS: usize = 1024;

/// What the console has been given, of which the end is thrown away if it is too much.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn take(&self) -> Vec<u8> {
        mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Port for Said {
    fn read(&mut self, _to: &[Window<'_>]) -> Input {
        Input::End
    }

    fn write(&mut self, from: &[Window<'_>]) -> Output {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for window in from {
            let start = said.len();
            let len = window.len().min(MAX_OUTPUT - start.min(MAX_OUTPUT));
            said.resize(start + len, 0);
            if let Some(window) = window.part(0, len) {
                window.read(0, &mut said[start..]);
            }
        }
        Output::Bytes(from.iter().map(Window::len).sum())
    }

    fn emergency(&mut self, byte: u8) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < MAX_OUTPUT {
            said.push(byte);
        }
    }
}

/// Guest memory that notes which pages a device may have written.
struct Noted<'m> {
    ram: &'m Ram,
    pages: RefCell<&'m mut BTreeSet<u64>>,
}

impl GuestMemory for Noted<'_> {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        let window = self.ram.window(address, len)?;
        let pages = (address / map::PAGE..).take_while(|page| page * map::PAGE < address + len as u64);
        self.pages.borrow_mut().extend(pages.map(|page| page * map::PAGE));
        Some(window)
    }
}

/// The devices of one machine.
pub(super) struct Devices {
    transports: Vec<Transport>,
    said: Said,
    /// Addresses of pages that they may have written.
    pages: BTreeSet<u64>,
    /// Whether they may be in another state than before the call.
    touched: bool,
    /// Whether a queue has news for a guest that waits.
    news: bool,
}

/// Devices that are as they were when the guest was ready.
pub(super) struct Saved(Vec<Vec<u8>>);

impl Devices {
    fn new() -> Self {
        let said = Said::default();
        let transports = vec![
            Transport::new(Box::new(Console::new(said.clone()))),
            Transport::new(Box::new(Entropy::new(KernelRandom))),
        ];
        Self {
            transports,
            said,
            pages: BTreeSet::new(),
            touched: false,
            news: false,
        }
    }

    /// Devices that are ready for use, and what the boot page says of them.
    pub(super) fn preset() -> Result<(Self, Preset), Error> {
        let mut devices = Self::new();
        let preset = preset_all(&mut devices.transports)?;
        Ok((devices, preset))
    }

    /// Their state.
    pub(super) fn save(&self) -> Result<Saved, NotSaved> {
        let save = |transport: &Transport| {
            let mut state = Writer::new();
            transport.save(&mut state).map(|()| state.into_bytes())
        };
        self.transports.iter().map(save).collect::<Result<_, _>>().map(Saved)
    }

    /// Other devices in this state.
    pub(super) fn copy(saved: &Saved) -> Result<Self, StateError> {
        let mut devices = Self::new();
        devices.load(saved)?;
        Ok(devices)
    }

    fn load(&mut self, saved: &Saved) -> Result<(), StateError> {
        for (transport, state) in self.transports.iter_mut().zip(&saved.0) {
            transport.load(&mut Reader::new(state))?;
        }
        Ok(())
    }

    /// Puts them into this state again; calls `page` with the address of each page that they may have written.
    pub(super) fn put_back(&mut self, saved: &Saved, page: impl FnMut(u64)) -> Result<(), StateError> {
        mem::take(&mut self.pages).into_iter().for_each(page);
        self.news = false;
        if mem::take(&mut self.touched) {
            self.load(saved)?;
        }
        Ok(())
    }

    /// What the guest has printed since this was last asked.
    pub(super) fn take_output(&self) -> Vec<u8> {
        self.said.take()
    }

    /// Whether a queue has had news since this was last asked.
    pub(super) fn take_news(&mut self) -> bool {
        mem::take(&mut self.news)
    }

    /// Has a device work on its queues; returns why it is broken, if it has just become so.
    pub(super) fn kick(&mut self, device: usize, ram: &Ram) -> Option<String> {
        let transport = self.transports.get_mut(device)?;
        let was_broken = transport.broken().is_some();
        self.touched = true;
        let memory = Noted {
            ram,
            pages: RefCell::new(&mut self.pages),
        };
        for _ in 0..TURNS {
            let outcome = transport.process(&memory);
            self.news |= outcome.notify;
            if !outcome.more {
                break;
            }
        }
        let broken = transport.broken().filter(|_| !was_broken)?;
        Some(format!("device {device} needs a reset: {broken}"))
    }

    /// Has all that have something to do work on it, kicked or not.
    pub(super) fn work(&mut self, ram: &Ram) -> Option<String> {
        let mut said = None;
        for device in 0..self.transports.len() {
            if self.transports[device].has_work(ram) {
                said = self.kick(device, ram).or(said);
            }
        }
        said
    }

    /// The guest reads a register; where there is none, all ones.
    pub(super) fn read(&self, address: u64, data: &mut [u8]) {
        match at(address).and_then(|(device, offset)| Some((self.transports.get(device)?, offset))) {
            Some((transport, offset)) => transport.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes a register.
    pub(super) fn write(&mut self, address: u64, data: &[u8], ram: &Ram) -> Option<String> {
        let (device, offset) = at(address)?;
        let transport = self.transports.get_mut(device)?;
        self.touched = true;
        match transport.write(offset, data) {
            Effect::Kick(_) | Effect::Live => self.kick(device, ram),
            Effect::Ignored(why) => Some(format!("device {device}: {why}")),
            Effect::Reset => {
                self.news = true;
                None
            }
            Effect::Aimed | Effect::None => None,
        }
    }
}

/// The device whose register block an address is in, and where in it.
fn at(address: u64) -> Option<(usize, u64)> {
    let offset = address.checked_sub(map::DEVICES)?;
    let device = usize::try_from(offset / map::DEVICE_STRIDE).ok()?;
    Some((device, offset % map::DEVICE_STRIDE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_a_device_was_given_are_noted_and_those_beyond_memory_are_not() {
        let ram = Ram::new(1 << 20).unwrap();
        let mut pages = BTreeSet::new();
        let memory = Noted {
            ram: &ram,
            pages: RefCell::new(&mut pages),
        };
        assert!(memory.window(0x1fff, 2).is_some());
        assert!(memory.window(0x5000, 0x1000).is_some());
        assert!(memory.window(u64::MAX, 2).is_none());
        assert!(memory.window(1 << 20, 1).is_none());
        assert_eq!(pages.into_iter().collect::<Vec<_>>(), [0x1000, 0x2000, 0x5000]);
    }

    #[test]
    fn output_beyond_what_is_kept_is_thrown_away_and_holds_nobody_up() {
        let ram = Ram::new(2 << 20).unwrap();
        let mut said = Said::default();
        let all = [ram.window(0, 2 << 20).unwrap()];
        assert_eq!(said.write(&all), Output::Bytes(2 << 20));
        assert_eq!(said.write(&all), Output::Bytes(2 << 20));
        said.emergency(b'!');
        assert_eq!(said.take().len(), MAX_OUTPUT);
        assert_eq!(said.take().len(), 0);
    }

    #[test]
    fn devices_are_put_back_into_the_state_that_was_saved() {
        let ram = Ram::new(4 << 20).unwrap();
        let (mut devices, _) = Devices::preset().unwrap();
        let saved = devices.save().unwrap();
        // Reset by a driver, and so no longer live.
        let status = map::device_registers(0) + chiton_shared::virtio::mmio::Register::Status as u64;
        assert_eq!(devices.write(status, &[0; 4], &ram), None);
        let mut now = [0; 4];
        devices.read(status, &mut now);
        assert_eq!(now, [0; 4]);
        devices.put_back(&saved, |_| {}).unwrap();
        devices.read(status, &mut now);
        assert_eq!(now, [0xf, 0, 0, 0]);
        assert_eq!(devices.save().unwrap().0, saved.0);
    }
}
