//! What a guest's processor is plugged into here: core's devices, without a host behind them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use chiton_bare::command::Command;
use chiton_bare::ramdisk::{Ramdisk, RamdiskError};
use chiton_core::devices::{Block, Console, Effect, Entropy, Outcome, Preset, PresetError, Transport, preset_all};
use chiton_core::machine::Board;
use chiton_core::physical::GuestRam;
use chiton_shared::doorbell::LogLevel;
use chiton_shared::map;
use chiton_shared::memory::GuestMemory;

use super::console::SerialPort;
use super::debug::say;
use super::disk::MemoryDisk;
use super::random::Random;
use super::time;

/// Why a guest's devices cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeviceError {
    /// A disk that is no file of the ramdisk.
    #[error("the ramdisk has no file {0:?} for a disk")]
    NoDisk(String),
    /// A disk that is damaged.
    #[error(transparent)]
    Ramdisk(#[from] RamdiskError),
    /// A disk that ends within a sector.
    #[error(
        "the disk {file:?} is {bytes} bytes long, not a multiple of 512: make it so with `truncate -s {}`",
        bytes.next_multiple_of(512)
    )]
    Length {
        /// The file of the ramdisk.
        file: String,
        /// How long it is.
        bytes: usize,
    },
    /// A disk that is too large.
    #[error("no memory is left for a copy of the disk {0:?}")]
    NoMemory(String),
    /// There are too many.
    #[error(transparent)]
    Preset(#[from] PresetError),
}

/// The board of a machine with one processor.
pub(super) struct BareBoard {
    memory: GuestRam,
    transports: Vec<Transport>,
    /// Which of them was said to be broken.
    reported: Vec<bool>,
    /// Something has happened since the last wait.
    news: bool,
    name: String,
    log: LogLevel,
    /// When the guest's time is up, in ticks of the time-stamp counter.
    deadline: Option<u64>,
    /// How many bytes of its console have been sent.
    sent: Arc<AtomicU64>,
    /// Its disks, and whether anything was written to each.
    disks: Vec<(String, Arc<AtomicBool>)>,
}

impl BareBoard {
    /// Console, entropy, then the disks, as under KVM.
    ///
    /// # Errors
    ///
    /// [`DeviceError`].
    pub(super) fn new(
        memory: GuestRam,
        command: &Command,
        ramdisk: &Ramdisk<'_>,
    ) -> Result<(Self, Preset), DeviceError> {
        let port = SerialPort::new(command.input, command.beside.then_some(command.on));
        let sent = port.sent();
        let mut transports = Vec::from([
            Transport::new(Box::new(Console::new(port))),
            Transport::new(Box::new(Entropy::new(Random::of_processor()))),
        ]);
        let mut disks = Vec::new();
        for disk in &command.disks {
            let file = disk.file.clone();
            let content = ramdisk
                .file(&disk.file)?
                .ok_or_else(|| DeviceError::NoDisk(disk.file.clone()))?;
            if !content.len().is_multiple_of(512) {
                let (file, bytes) = (disk.file.clone(), content.len());
                return Err(DeviceError::Length { file, bytes });
            }
            let memory = MemoryDisk::new(content, disk.read_only);
            let disk = memory.ok_or_else(|| DeviceError::NoMemory(disk.file.clone()))?;
            disks.push((file, disk.written()));
            transports.push(Transport::new(Box::new(Block::new(disk))));
        }
        let preset = preset_all(&mut transports)?;
        let board = Self {
            memory,
            reported: transports.iter().map(|_| false).collect(),
            transports,
            news: false,
            name: command.guest.clone(),
            log: command.log,
            deadline: None,
            sent,
            disks,
        };
        Ok((board, preset))
    }

    /// From now on the guest has so long.
    pub(super) fn limit(&mut self, time: Duration) {
        self.deadline = Some(time::ticks().saturating_add(time::in_ticks(time)));
    }

    /// How many bytes the guest's console has sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The disks that the guest has written to: files of the ramdisk, which do not change.
    pub(super) fn written(&self) -> impl Iterator<Item = &str> {
        let written = self.disks.iter().filter(|(_, written)| written.load(Ordering::Relaxed));
        written.map(|(file, _)| file.as_str())
    }

    /// How many requests the devices answered with a failure.
    pub(super) fn failures(&self) -> u64 {
        self.transports.iter().map(Transport::failures).sum()
    }

    /// Works on the queues of one device; whether there may be more to do.
    fn process(&mut self, index: usize) -> bool {
        let Some(transport) = self.transports.get_mut(index) else {
            return false;
        };
        let outcome = transport.process(&self.memory);
        self.after(index, outcome)
    }

    /// What has to follow any work of a device.
    fn after(&mut self, index: usize, outcome: Outcome) -> bool {
        self.news |= outcome.notify;
        let broken = self.transports[index].broken();
        if let (Some(broken), false) = (broken, self.reported[index]) {
            say!("{}: device {index} needs a reset: {broken}", self.name);
            self.news = true;
        }
        self.reported[index] = broken.is_some();
        outcome.more
    }

    /// Works on the queues of all devices once; whether there may be more to do.
    fn process_all(&mut self) -> bool {
        (0..self.transports.len()).fold(false, |more, index| self.process(index) | more)
    }

    /// The device whose registers are there, and which of them.
    fn device_at(&self, address: u64) -> Option<(usize, u64)> {
        let offset = address.checked_sub(map::DEVICES)?;
        let index = usize::try_from(offset / map::DEVICE_STRIDE).ok()?;
        (index < self.transports.len()).then_some((index, offset % map::DEVICE_STRIDE))
    }
}

impl Board for BareBoard {
    fn memory(&self) -> &dyn GuestMemory {
        &self.memory
    }

    fn start(&mut self, _processor: u32) {}

    fn wake(&mut self, _processor: u32) {}

    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        match self.device_at(address) {
            Some((index, offset)) => self.transports[index].read(offset, data),
            None => data.fill(0xff),
        }
    }

    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        let Some((index, offset)) = self.device_at(address) else {
            return;
        };
        match self.transports[index].write(offset, data) {
            Effect::Kick(queue) => {
                let outcome = self.transports[index].process_queue(queue, &self.memory);
                self.after(index, outcome);
            }
            Effect::Live => {
                self.process(index);
            }
            Effect::Ignored(why) => say!("{}: device {index}: {why}", self.name),
            Effect::Reset => self.news = true,
            Effect::None => {}
        }
    }

    fn kick(&mut self, device: usize) {
        while self.process(device) && !self.stopped() {}
    }

    /// Nothing but a device's own doing, the line and the clock can bring news, so it looks at all
    /// three in turn.
    fn wait(&mut self, timeout: Option<Duration>) {
        let until = timeout.map_or(u64::MAX, |time| time::ticks().saturating_add(time::in_ticks(time)));
        loop {
            let more = self.process_all();
            if core::mem::take(&mut self.news) || self.stopped() || time::ticks() >= until {
                return;
            }
            if !more {
                core::hint::spin_loop();
            }
        }
    }

    fn log(&mut self, level: LogLevel, text: &str) {
        // The guest is told the level in its boot page, and need not keep to it.
        if level > self.log {
            return;
        }
        for line in text.lines() {
            say!("{}: {}: {line}", self.name, level.word());
        }
    }

    fn drain(&mut self) {
        while self.process_all() && !self.stopped() {}
    }

    fn stopped(&self) -> bool {
        self.deadline.is_some_and(|deadline| time::ticks() >= deadline)
    }

    fn now_ns(&self) -> u64 {
        time::now_ns()
    }
}
