//! A device made ready by the host, as the boot page describes it.

use alloc::vec::Vec;

use chiton_shared::boot::{CONFIG_BYTES, DeviceEntry, QUEUE_MAX, QueueEntry, queue_address};
use chiton_shared::interrupts::queue_vector;
use chiton_shared::virtio::ring::{DeviceQueue, Format, QueueConfig};
use chiton_shared::virtio::{feature, status};
use chiton_shared::{doorbell, map};

use super::Transport;
use super::registers::is_usable;

/// What a device that is made ready does without.
const LEFT_OUT: u64 = feature::NOTIFICATION_DATA;

/// Why a device cannot be made ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PresetError {
    /// More devices than the map has register blocks and doorbells for.
    #[error("device number {0} is one too many: at most {max} devices are possible", max = map::DEVICE_MAX)]
    TooManyDevices(usize),
    /// The device has another number of queues.
    #[error("{given} queues given to a device with {has}")]
    QueueCount {
        /// How many were given.
        given: usize,
        /// How many the device has.
        has: usize,
    },
    /// More queues than the boot page can describe.
    #[error("the devices have {0} queues: at most {max} are possible for all together", max = QUEUE_MAX)]
    TooManyQueues(usize),
    /// A queue that is not valid, or too large for the device.
    #[error("queue {queue} is not usable: {config:x?}")]
    Queue {
        /// Index of the queue.
        queue: usize,
        /// What was given.
        config: QueueConfig,
    },
    /// VERSION_1 is not among the features.
    #[error("the features {0:#x} lack VERSION_1 (bit 32)")]
    Features(u64),
    /// The queues need more memory than the map has for them.
    #[error("the queues of the devices end at {end:#x}, beyond their memory, which ends at {max:#x}", max = map::QUEUES_END)]
    OutOfQueueMemory {
        /// The first address behind the queue that did not fit.
        end: u64,
    },
}

impl Transport {
    /// Puts the device, from whatever state it is in, where a driver would have brought it by the
    /// initialization of section 3.1: DRIVER_OK, with the offered ones of `features` negotiated
    /// and every queue ready. The memory of the queues has to be zero.
    ///
    /// Left out are notification data, since the reader of the boot page kicks by doorbell. With RING_PACKED the queues
    /// are packed.
    ///
    /// `index` is the number of the device, which fixes its registers and doorbell; its queues go
    /// to the end of `table`, which is the boot page's.
    ///
    /// # Errors
    ///
    /// Any [`PresetError`] but [`OutOfQueueMemory`](PresetError::OutOfQueueMemory); the device is
    /// then as after a reset, and the table as it was.
    pub fn preset(
        &mut self,
        index: usize,
        features: u64,
        queues: &[QueueConfig],
        table: &mut Vec<QueueEntry>,
    ) -> Result<DeviceEntry, PresetError> {
        self.reset();
        if index >= map::DEVICE_MAX {
            return Err(PresetError::TooManyDevices(index));
        }
        let features = features & self.features() & !LEFT_OUT;
        if features & feature::VERSION_1 == 0 {
            return Err(PresetError::Features(features));
        }
        if queues.len() != self.queues.len() {
            return Err(PresetError::QueueCount {
                given: queues.len(),
                has: self.queues.len(),
            });
        }
        if table.len() + queues.len() > QUEUE_MAX {
            return Err(PresetError::TooManyQueues(table.len() + queues.len()));
        }
        let mut entry = DeviceEntry {
            id: self.id(),
            queue_count: queues.len() as u16,
            kick: doorbell::kick(index),
            registers: map::device_registers(index),
            features,
            queues: queue_address(table.len()),
            config: [0; CONFIG_BYTES],
        };
        self.device.read_config(0, &mut entry.config);
        for (queue, (config, max)) in queues.iter().zip(self.device.queue_sizes()).enumerate() {
            if !is_usable(config, Format::of(features), *max) {
                return Err(PresetError::Queue { queue, config: *config });
            }
        }
        let number = table.len()..;
        table.extend(queues.iter().zip(number).map(|(config, number)| QueueEntry {
            size: u32::from(config.size),
            vector: queue_vector(number).into(),
            descriptors: config.descriptors,
            driver: config.driver,
            device: config.device,
        }));
        for (queue, config) in self.queues.iter_mut().zip(queues) {
            queue.config = *config;
            queue.ready = Some(DeviceQueue::new(*config, features));
        }
        self.driver_features = features;
        self.device.negotiated(features);
        self.status = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        Ok(entry)
    }
}

/// What the boot page says of the devices.
#[derive(Clone, Debug, Default)]
pub struct Preset {
    /// The devices, in order.
    pub devices: Vec<DeviceEntry>,
    /// The queues of all of them.
    pub queues: Vec<QueueEntry>,
}

/// Makes every device ready, in order, with all features it offers and with queues of the
/// greatest size, one after the other from [`map::QUEUES`] on. Returns the entries of the boot
/// page. The memory of the queues has to be zero.
///
/// # Errors
///
/// Any [`PresetError`].
pub fn preset_all(transports: &mut [Transport]) -> Result<Preset, PresetError> {
    preset_all_in(Format::Split, transports)
}

/// As [`preset_all`], with queues of this format. Each has as much memory as if it were split.
///
/// # Errors
///
/// As [`preset_all`].
pub fn preset_all_in(format: Format, transports: &mut [Transport]) -> Result<Preset, PresetError> {
    let features = match format {
        Format::Split => !feature::RING_PACKED,
        Format::Packed => u64::MAX,
    };
    let mut start = map::QUEUES;
    let mut preset = Preset {
        devices: Vec::with_capacity(transports.len()),
        queues: Vec::with_capacity(2 * transports.len()),
    };
    for (index, transport) in transports.iter_mut().enumerate() {
        let mut queues = Vec::with_capacity(transport.queue_sizes().len());
        for size in transport.queue_sizes() {
            let (queue, end) = QueueConfig::packed_at(start, *size);
            if end > map::QUEUES_END {
                return Err(PresetError::OutOfQueueMemory { end });
            }
            queues.push(queue);
            // No two queues share a line of the cache.
            start = end.next_multiple_of(64);
        }
        let entry = transport.preset(index, features, &queues, &mut preset.queues)?;
        preset.devices.push(entry);
    }
    Ok(preset)
}
