//! What the processor of a callable guest is plugged into: memory, a clock, and somebody who reads its
//! log.

use std::sync::Arc;
use std::time::Duration;

use chiton_core::machine::Board;
use chiton_shared::doorbell::LogLevel;
use chiton_shared::memory::GuestMemory;
use rustix::time::Timespec;

use super::limit::Limit;
use super::template::Log;
use crate::clock;
use crate::ram::Ram;
use crate::signal::acknowledge_kick;

/// The board.
pub(super) struct CallBoard {
    pub(super) ram: Arc<Ram>,
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

    fn mmio_read(&mut self, _address: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn mmio_write(&mut self, _address: u64, _data: &[u8]) {}

    fn kick(&mut self, _device: usize) {}

    fn wait(&mut self, timeout: Option<Duration>) {
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

    fn drain(&mut self) {}

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
