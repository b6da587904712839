//! What the processor of a callable guest is plugged into: memory, devices, a clock, and somebody who reads
//! its log.

use std::sync::Arc;
use std::time::Duration;

use chiton_core::machine::Board;
use chiton_shared::doorbell::LogLevel;
use chiton_shared::memory::GuestMemory;
use rustix::time::Timespec;

use super::devices::Devices;
use super::limit::Limit;
use super::template::Log;
use crate::clock;
use crate::ram::Ram;
use crate::signal::acknowledge_kick;

impl CallBoard {
    /// Says what is wrong with a device, if something is.
    fn complain(&self, complaint: Option<String>) {
        if let Some(complaint) = complaint {
            self.log.say(&complaint);
        }
    }
}

/// The board.
pub(super) struct CallBoard {
    pub(super) ram: Arc<Ram>,
    pub(super) devices: Devices,
    pub(super) limit: Arc<Limit>,
    pub(super) log: Arc<Log>,
}

impl Board for CallBoard {
    fn memory(&self) -> &dyn GuestMemory {
        self.ram.as_ref()
    }

    fn start(&mut self, processor: u32) {
        self.log.say(&format!(
            "processor {processor} does not exist: a guest that is called has one"
        ));
    }

    fn wake(&mut self, _processor: u32) {}

    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        self.devices.read(address, data);
    }

    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        let complaint = self.devices.write(address, data, &self.ram);
        self.complain(complaint);
    }

    fn kick(&mut self, device: usize) {
        let complaint = self.devices.kick(device, &self.ram);
        self.complain(complaint);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.drain();
        if self.devices.take_news() {
            return;
        }
        let left = self.limit.left();
        let Some(sleep) = [timeout, left].into_iter().flatten().min() else {
            // Nothing can wake it, ever.
            self.limit.expire();
            return;
        };
        let time = Timespec {
            tv_sec: sleep.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: sleep.subsec_nanos().into(),
        };
        // A signal ends it early, which a wait may.
        let _ = rustix::thread::clock_nanosleep_relative(rustix::thread::ClockId::Monotonic, &time);
        if self.limit.left().is_some_and(|left| left.is_zero()) {
            self.limit.expire();
        }
    }

    fn log(&mut self, level: LogLevel, text: &str) {
        self.log.guest(level, text);
    }

    fn drain(&mut self) {
        let complaint = self.devices.work(&self.ram);
        self.complain(complaint);
    }

    fn hold(&mut self) {
        acknowledge_kick();
    }

    fn stopped(&self) -> bool {
        self.limit.is_over()
    }

    fn now_ns(&self) -> u64 {
        clock::now()
    }
}
