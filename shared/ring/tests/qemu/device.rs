//! A virtio-mmio device (section 4.2), as its driver sees it.

use std::time::{Duration, Instant};

use chiton_ring::{Areas, Buffer, DriverQueue, Format, MAX_SIZE, QueueConfig};

use super::machine::Machine;

const MAGIC: u64 = 0x000;
const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_SIZE_MAX: u64 = 0x034;
const QUEUE_SIZE: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC: u64 = 0x080;
const QUEUE_DRIVER: u64 = 0x090;
const QUEUE_DEVICE: u64 = 0x0a0;

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const ALL: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
const USED_BUFFER: u32 = 1;

/// How long anything may take; only a failure does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) type Queue<'m> = DriverQueue<'m, { MAX_SIZE as usize }>;

/// Buffers of these lengths, one behind the other from an address on.
pub(crate) fn buffers(mut address: u64, lengths: &[usize], write: bool) -> Vec<Buffer> {
    let buffer = |&len: &usize| {
        let buffer = Buffer {
            address,
            len: len as u32,
            write,
        };
        address += len as u64;
        buffer
    };
    lengths.iter().map(buffer).collect()
}

#[derive(Clone, Copy)]
pub(crate) struct Device<'m> {
    pub(crate) machine: &'m Machine,
    base: u64,
}

impl<'m> Device<'m> {
    pub(crate) fn new(machine: &'m Machine, base: u64) -> Self {
        Self { machine, base }
    }

    fn read(&self, register: u64) -> u32 {
        self.machine.read(self.base + register)
    }

    fn write(&self, register: u64, value: u32) {
        self.machine.write(self.base + register, value);
    }

    pub(crate) fn kind(&self) -> u32 {
        assert_eq!((self.read(MAGIC), self.read(VERSION)), (0x7472_6976, 2));
        self.read(DEVICE_ID)
    }

    pub(crate) fn offers(&self) -> u64 {
        let half = |which| {
            self.write(DEVICE_FEATURES_SEL, which);
            u64::from(self.read(DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    /// Resets the device and begins with these features and queues (section 3.1.1).
    pub(crate) fn begin(&self, features: u64, queues: &[QueueConfig]) -> Vec<Queue<'m>> {
        self.end();
        self.write(STATUS, ACKNOWLEDGE);
        self.write(STATUS, ACKNOWLEDGE | DRIVER);
        assert_eq!(features & !self.offers(), 0, "not offered");
        for half in [0, 1] {
            self.write(DRIVER_FEATURES_SEL, half);
            self.write(DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        let status = ACKNOWLEDGE | DRIVER | FEATURES_OK;
        self.write(STATUS, status);
        assert_eq!(self.read(STATUS), status, "features {features:#x} are not accepted");
        let queues = (0..)
            .zip(queues)
            .map(|(number, config)| self.set_up(number, config, features));
        let queues = queues.collect();
        self.write(STATUS, ALL);
        queues
    }

    fn set_up(&self, number: u32, config: &QueueConfig, features: u64) -> Queue<'m> {
        let format = Format::of(features);
        let areas = Areas::find_as(format, self.machine, config).expect("a good queue");
        areas.clear(format, config.size);
        self.write(QUEUE_SEL, number);
        assert_eq!(self.read(QUEUE_READY), 0);
        assert!(self.read(QUEUE_SIZE_MAX) >= config.size.into());
        self.write(QUEUE_SIZE, config.size.into());
        for (register, address) in [
            (QUEUE_DESC, config.descriptors),
            (QUEUE_DRIVER, config.driver),
            (QUEUE_DEVICE, config.device),
        ] {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(QUEUE_READY, 1);
        DriverQueue::new(areas, config.size, features).expect("a good queue")
    }

    /// Whether it has nothing against what its driver did.
    pub(crate) fn is_content(&self) -> bool {
        self.read(STATUS) == ALL
    }

    pub(crate) fn end(&self) {
        self.write(STATUS, 0);
        assert_eq!(self.read(STATUS), 0);
    }

    pub(crate) fn kick(&self, queue: u32) {
        self.write(QUEUE_NOTIFY, queue);
    }

    /// Takes a notification that came, and tells whether one did.
    pub(crate) fn notified(&self) -> bool {
        let status = self.read(INTERRUPT_STATUS);
        self.write(INTERRUPT_ACK, status);
        assert_eq!(status & !USED_BUFFER, 0, "the configuration changed");
        status != 0
    }

    /// Looks until there is an answer. To look at a register lets the device go on, too.
    pub(crate) fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(answer) = look() {
                return answer;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "waited in vain for {what}; status {:#x}",
                self.read(STATUS)
            );
        }
    }
}
