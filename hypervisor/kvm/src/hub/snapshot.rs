//! A snapshot of a guest that runs.

use std::fs::File;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use chiton_core::devices::NotSaved;
use chiton_core::state::Writer;
use chiton_shared::virtio::id;
use rustix::event::PollFlags;

use super::{Hub, SHORT, SlotState, StopReason, lock, wait_ready};
use crate::board::Mainboard;
use crate::control::kind;
use crate::host::random::random;
use crate::snapshot::take::{Facts, Take, Taken};
use crate::snapshot::write::{Which, write};
use crate::snapshot::{TakeError, format};
use crate::state::VcpuState;

/// How long processors and devices may take to come to a stop.
const PATIENCE: Duration = Duration::from_secs(60);

impl Hub {
    /// With what a snapshot needs to know of the guest.
    pub(crate) fn described(mut self, facts: Facts) -> Self {
        self.facts = Some(facts);
        self
    }

    /// Writes a snapshot of the guest into a file, and lets it go on, or ends it. Called by the device loop, which does
    /// nothing else meanwhile.
    pub(crate) fn take_snapshot(&self, file: &File, take: &Take) -> Result<Taken, TakeError> {
        let facts = self.facts.as_ref().ok_or(TakeError::Ending)?;
        let main = self
            .board
            .get()
            .and_then(std::sync::Weak::upgrade)
            .ok_or(TakeError::Ending)?;
        self.check(facts, take)?;
        let taken = self.held(PATIENCE, |vcpus| {
            let devices = self.come_to_rest()?;
            let taken = self.write_snapshot(file, take, facts, &main, &vcpus, &devices)?;
            if take.stop {
                // Before a processor or a device does anything that the snapshot does not have.
                self.stop(StopReason::Snapshot);
            }
            Ok(taken)
        });
        if taken.is_err() || !take.stop {
            // What arrived meanwhile, and what a device that came to rest had still to do.
            self.slots.iter().for_each(super::Slot::come_back);
        }
        taken
    }

    /// Refuses what needs no stop to be refused.
    fn check(&self, facts: &Facts, take: &Take) -> Result<(), TakeError> {
        if !self.emulated.is_empty() {
            return Err(TakeError::Emulated);
        }
        if facts.interrupts.is_some() && !crate::platform::KvmKind::detect().runs_ring_0() {
            return Err(TakeError::Unsupported(
                "the guest has interrupts, and on a software KVM the time-stamp counter, which its timers go by, \
                 cannot be set when it goes on",
            ));
        }
        if let Some(number) = facts.disks.iter().position(|disk| disk.is_writable_block_device()) {
            return Err(TakeError::BlockDevice(number));
        }
        if let Some(number) = facts
            .disks
            .iter()
            .position(|disk| !disk.read_only)
            .filter(|_| !take.stop)
        {
            return Err(TakeError::WritableDisk(number));
        }
        let last = lock(&self.last_snapshot);
        match (&take.parent, last.as_ref()) {
            (Some((id, _)), Some(last)) if last == id => Ok(()),
            (Some(_), Some(_)) => Err(TakeError::NoParent(
                "its parent is not the snapshot that was taken of this guest last",
            )),
            (Some(_), None) => Err(TakeError::NoParent(
                "nobody has noted what has changed since its parent: take that with --track",
            )),
            (None, _) => Ok(()),
        }
    }

    /// Has all devices finish what they have begun; they do nothing as long as they are in these hands.
    fn come_to_rest(&self) -> Result<Vec<MutexGuard<'_, SlotState>>, TakeError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut guards = Vec::with_capacity(self.slots.len());
            let mut busy = None;
            for (index, slot) in self.slots.iter().enumerate() {
                let mut state = lock(&slot.state);
                self.process_locked(index, slot, &mut state);
                match state.transport.save(&mut Writer::new()) {
                    Ok(()) => {}
                    Err(NotSaved::UnderWay) if Instant::now() < until => busy = Some(slot),
                    Err(why) => return Err(self.cannot_save(index, why)),
                }
                guards.push(state);
            }
            let Some(slot) = busy else { return Ok(guards) };
            // Whoever works on it needs it.
            drop(guards);
            if self.stopped() {
                return Err(TakeError::Ending);
            }
            match slot.input() {
                Some(fd) => wait_ready(std::os::fd::AsFd::as_fd(fd), PollFlags::IN),
                None => std::thread::sleep(SHORT),
            }
        }
    }

    fn cannot_save(&self, index: usize, why: NotSaved) -> TakeError {
        let id = self.slots.get(index).map_or(0, |slot| slot.id);
        let number = self.slots_of(id).take_while(|other| *other < index).count();
        TakeError::Device {
            kind: kind(id),
            number,
            why,
        }
    }

    fn write_snapshot(
        &self,
        file: &File,
        take: &Take,
        facts: &Facts,
        main: &Mainboard,
        vcpus: &[(u32, VcpuState)],
        devices: &[MutexGuard<'_, SlotState>],
    ) -> Result<Taken, TakeError> {
        let mut saved = Vec::with_capacity(devices.len());
        for (index, device) in devices.iter().enumerate() {
            let mut state = Writer::new();
            device
                .transport
                .save(&mut state)
                .map_err(|why| self.cannot_save(index, why))?;
            saved.push(state.into_bytes());
        }
        let vcpu = |(number, state): &(u32, VcpuState)| {
            let mut to = Writer::new();
            state.save(&mut to);
            (*number, to.into_bytes())
        };
        let balloon = self.balloon().map(|(_, balloon)| balloon.state().target);
        let vcpus = vcpus.iter().map(vcpu).collect();
        let mut description = facts.describe(self.ram.bytes(), balloon, saved, vcpus, take)?;
        let mut id = format::Id::default();
        random(&mut id).map_err(std::io::Error::from)?;
        let changes = match &take.parent {
            Some(_) => Some(self.ram.take_changes(&main.vm).map_err(TakeError::DirtyLog)?),
            None => None,
        };
        let which = changes.as_deref().map_or(Which::All, Which::Changed);
        // Whatever comes of it, what was noted of changes is gone.
        lock(&self.last_snapshot).take();
        let guest = facts.guest.bytes()?;
        let parent = take.parent.as_ref().map(|(id, _)| *id);
        let written = write(file, &self.ram, &which, &guest, &mut description, (id, parent))?;
        if take.track && !take.stop {
            if changes.is_none() {
                self.ram.watch_changes(&main.vm).map_err(TakeError::DirtyLog)?;
                // What was noted before, of the time until now.
                self.ram.take_changes(&main.vm).map_err(TakeError::DirtyLog)?;
            }
            *lock(&self.last_snapshot) = Some(id);
        }
        Ok(Taken {
            id,
            memory: self.ram.bytes(),
            written: written.bytes,
        })
    }

    /// Goes on from a snapshot: has every device look at what it has, and everyone who waits look again.
    pub(crate) fn resumed(&self) {
        for index in 0..self.slots.len() {
            self.process(index);
        }
        for index in self.slots_of(id::CONSOLE) {
            self.config_changed(index);
        }
        for (index, slot) in self.slots.iter().enumerate() {
            self.aim(index, &lock(&slot.state).transport);
        }
        self.rouse();
    }
}
