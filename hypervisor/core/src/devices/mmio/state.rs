//! A transport and its device as bytes, and back.

use chiton_shared::processor;
use chiton_shared::virtio::ring::device::Mark;
use chiton_shared::virtio::ring::{DeviceQueue, Format, QueueConfig};
use chiton_shared::virtio::status;

use super::Transport;
use super::registers::is_usable;
use crate::devices::NotSaved;
use crate::state::{Reader, StateError, Writer};

impl Transport {
    /// Writes down everything that [`load`](Self::load) needs to go on with the same queues: registers, queues, and
    /// what the device remembers. It changes nothing, so the device itself may go on too.
    ///
    /// # Errors
    ///
    /// [`NotSaved`] if something would be lost.
    pub fn save(&self, state: &mut Writer) -> Result<(), NotSaved> {
        if let Some(broken) = self.broken {
            return Err(NotSaved::Broken(broken));
        }
        state.u32(self.id());
        state.u32(self.status);
        state.u32(self.interrupt);
        state.u32(self.generation);
        state.u32(self.device_features_select);
        state.u32(self.driver_features_select);
        state.u64(self.driver_features);
        state.flag(self.beyond_features);
        state.u32(self.queue_select);
        state.u32(self.queues.len() as u32);
        self.aimed.iter().for_each(|processor| state.u32(*processor));
        for queue in &self.queues {
            state.u16(queue.config.size);
            state.u64(queue.config.descriptors);
            state.u64(queue.config.driver);
            state.u64(queue.config.device);
            state.flag(queue.ready.is_some());
            if let Some(ready) = &queue.ready {
                let Mark { used, untold } = ready.mark();
                state.u16(used);
                state.u16(untold);
            }
        }
        self.device.save(state)
    }

    /// Takes on a state, from whatever state it is in. The device has to be of the same kind, with as many queues, and
    /// to offer what was negotiated.
    ///
    /// # Errors
    ///
    /// [`StateError`]; the device is then as after a reset.
    pub fn load(&mut self, state: &mut Reader<'_>) -> Result<(), StateError> {
        self.reset();
        let loaded = self.try_load(state);
        if loaded.is_err() {
            self.reset();
        }
        loaded
    }

    fn try_load(&mut self, state: &mut Reader<'_>) -> Result<(), StateError> {
        expect("the kind of a device", state.u32()?, self.id())?;
        self.status = state.u32()?;
        self.interrupt = state.u32()?;
        self.generation = state.u32()?;
        self.device_features_select = state.u32()?;
        self.driver_features_select = state.u32()?;
        self.driver_features = state.u64()?;
        self.beyond_features = state.flag()?;
        self.queue_select = state.u32()?;
        let negotiated = self.status & status::FEATURES_OK != 0;
        if negotiated && !self.features_are_acceptable() {
            return Err(StateError::value("the features of a device", self.driver_features));
        }
        if negotiated {
            self.device.negotiated(self.driver_features);
        }
        expect("the queues of a device", state.u32()?, self.queues.len() as u32)?;
        for aimed in &mut self.aimed {
            let processor = state.u32()?;
            if processor >= processor::MAX {
                return Err(StateError::value("the processor of an interrupt", processor));
            }
            *aimed = processor;
        }
        let features = self.driver_features;
        for (queue, max) in self.queues.iter_mut().zip(self.device.queue_sizes()) {
            let config = QueueConfig {
                size: state.u16()?,
                descriptors: state.u64()?,
                driver: state.u64()?,
                device: state.u64()?,
            };
            queue.config = config;
            if state.flag()? {
                let mark = Mark {
                    used: state.u16()?,
                    untold: state.u16()?,
                };
                let usable = negotiated && is_usable(&config, Format::of(features), *max);
                let ready = DeviceQueue::resumed(config, features, mark).filter(|_| usable);
                queue.ready = Some(ready.ok_or(StateError::value("a place in a queue", mark.used))?);
            }
        }
        self.device.load(state)
    }
}

/// Whether a number is the one that this machine has.
fn expect(what: &'static str, value: u32, own: u32) -> Result<(), StateError> {
    if value == own {
        Ok(())
    } else {
        Err(StateError::value(what, value))
    }
}
