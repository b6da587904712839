//! What a KVM machine's processor is plugged into: the hub, as [`Board`] asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chiton_core::machine::Board;
use chiton_shared::doorbell::{self, LogLevel};
use chiton_shared::map;
use chiton_shared::memory::GuestMemory;
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};

use crate::hub::Hub;
use crate::interrupts;
use crate::processors::Processors;
use crate::signal::acknowledge_kick;

/// How many kicks of a device are exits before the kernel is asked to turn them into events.
///
/// An event costs a tenth of an exit. But a machine that has a single one takes a grace period of
/// the kernel longer to take down, 12 ms on Linux 6.18: as much as some hundred exits. So a guest
/// that says a few words and ends never pays for events, and one that works hard gets them early.
const KICKS_BEFORE_EVENTS: u32 = 256;

/// What the boards of all processors share.
pub(crate) struct Mainboard {
    pub(crate) hub: Arc<Hub>,
    pub(crate) vm: VmFd,
    interrupts: bool,
    log_level: Option<LogLevel>,
    kicks: [AtomicU32; map::DEVICE_MAX],
    start: Instant,
}

/// The board of one processor.
pub(crate) struct HubBoard {
    main: Arc<Mainboard>,
    processors: Arc<Processors>,
    /// Which processor it is.
    number: u32,
    mailbox: u64,
}

impl HubBoard {
    pub(crate) const fn new(main: Arc<Mainboard>, processors: Arc<Processors>, number: u32, mailbox: u64) -> Self {
        Self {
            main,
            processors,
            number,
            mailbox,
        }
    }
}

impl Mainboard {
    pub(crate) fn new(hub: Arc<Hub>, vm: VmFd, interrupts: bool, log_level: Option<LogLevel>) -> Self {
        Self {
            hub,
            vm,
            interrupts,
            log_level,
            kicks: [const { AtomicU32::new(0) }; map::DEVICE_MAX],
            start: Instant::now(),
        }
    }

    /// Makes the kernel turn a device's kicks into events for the device loop. Where it cannot,
    /// they stay exits, which work too.
    fn listen(&self, device: usize) {
        let Some(slot) = self.hub.slots().get(device) else {
            return;
        };
        let port = IoEventAddress::Pio(doorbell::kick(device).into());
        if let Err(error) = self.vm.register_ioevent(&slot.kick, &port, NoDatamatch) {
            self.hub.log(&format!(
                "kicks of device {device} stay exits: KVM_IOEVENTFD failed: {error}"
            ));
        }
    }
}

impl Board for HubBoard {
    fn memory(&self) -> &dyn GuestMemory {
        self.main.hub.ram.as_ref()
    }

    fn mailbox(&self) -> u64 {
        self.mailbox
    }

    fn start(&mut self, processor: u32) {
        Processors::start(&self.processors, &self.main, processor);
    }

    fn wake(&mut self, processor: u32) {
        if processor < self.processors.count() {
            self.main.hub.wake(processor);
            if self.main.interrupts {
                interrupts::call(&self.main.vm, processor);
            }
        }
    }

    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        self.main.hub.mmio_read(address, data);
    }

    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        self.main.hub.mmio_write(address, data);
    }

    fn kick(&mut self, device: usize) {
        self.main.hub.kicked(device);
        if let Some(kicks) = self.main.kicks.get(device)
            && kicks.fetch_add(1, Ordering::Relaxed) + 1 == KICKS_BEFORE_EVENTS
        {
            self.main.listen(device);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.main.hub.wait(self.number, timeout);
        self.main.hub.hold();
    }

    fn hold(&mut self) {
        acknowledge_kick();
        self.main.hub.hold();
    }

    fn log(&mut self, level: LogLevel, text: &str) {
        // The guest is told the level in its boot page, and need not keep to it.
        if self.main.log_level.is_none_or(|most| level > most) {
            return;
        }
        for line in text.lines() {
            self.main.hub.log(&format!("{}: {line}", level.word()));
        }
    }

    fn asked(&self) -> bool {
        self.main.hub.is_asking()
    }

    fn drain(&mut self) {
        self.main.hub.drain();
    }

    fn stopped(&self) -> bool {
        self.main.hub.stopped()
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.main.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
