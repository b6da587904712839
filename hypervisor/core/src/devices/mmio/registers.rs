//! The register block (virtio 1.3 section 4.2.2).

use chiton_shared::map;
use chiton_shared::virtio::mmio::{CONFIG, MAGIC, Register, VENDOR, VERSION};
use chiton_shared::virtio::ring::{DeviceQueue, Format, QueueConfig};
use chiton_shared::virtio::{feature, status};

use super::{Queue, Transport};

/// What a register write means to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing.
    None,
    /// The driver kicked this queue: call [`Transport::process_queue`].
    Kick(usize),
    /// The driver has set DRIVER_OK: the device is live from now on.
    Live,
    /// The driver has reset the device.
    Reset,
    /// The interrupt of some queue goes to another processor from now on: see
    /// [`Transport::processor_of`].
    Aimed,
    /// The write had no effect, for this reason; worth a line in a log.
    Ignored(Ignored),
}

/// Why a register write had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// No register there, or one that is only read.
    #[error("nothing to write at offset {0:#x}")]
    NotWritable(u64),
    /// Registers take 32-bit, aligned writes only (section 4.2.2.2).
    #[error("a write of {len} bytes at offset {offset:#x}: registers take 4, aligned")]
    Width {
        /// Offset in the block.
        offset: u64,
        /// Length of the write, in bytes.
        len: usize,
    },
    /// Features are final once FEATURES_OK is set.
    #[error("features written after FEATURES_OK")]
    FeaturesFinal,
    /// Bits were accepted that are not offered, or VERSION_1 was not accepted: FEATURES_OK stays
    /// clear.
    #[error("features {accepted:#x} are not a choice among {offered:#x} with VERSION_1 (bit 32)")]
    Features {
        /// What the driver accepts, of bits 0 to 63.
        accepted: u64,
        /// What the device offers.
        offered: u64,
    },
    /// A status that clears bits or sets them before those they build on.
    #[error("status {wanted:#x} does not follow status {current:#x}")]
    Status {
        /// Status as it is.
        current: u32,
        /// Status as written.
        wanted: u32,
    },
    /// The device has no such queue.
    #[error("there is no queue {0}")]
    NoQueue(u32),
    /// A queue's size and addresses are fixed while it is ready.
    #[error("queue {0} is in use")]
    QueueInUse(u32),
    /// A queue becomes ready after FEATURES_OK only, and with a size and addresses that are valid.
    #[error("queue {queue} cannot become ready: {config:x?}")]
    QueueNotValid {
        /// The queue.
        queue: u32,
        /// What was written.
        config: QueueConfig,
    },
    /// There are no interrupts that could go anywhere.
    #[error("the guest has no interrupts that could go to a processor: its manifest has to ask for them")]
    NoInterrupts,
    /// The guest has no such processor.
    #[error("there is no processor {processor} for the interrupt of queue {queue}: the guest has {processors}")]
    NoProcessor {
        /// The queue.
        queue: u32,
        /// The processor that was asked for.
        processor: u32,
        /// How many there are.
        processors: u32,
    },
    /// A kick before DRIVER_OK, on a device that needs a reset, or of a queue that is not ready.
    #[error("queue {0} was kicked but is not at work")]
    NotAtWork(u32),
}

/// Bits of the status that a driver sets.
const DRIVER_BITS: u32 =
    status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK | status::FAILED;

impl Transport {
    /// Reads at `offset` of the block. What cannot be read reads as zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = config_offset(offset) {
            self.device.read_config(offset, data);
        } else if let (Some(register), Ok(data)) = (Register::at(offset), <&mut [u8; 4]>::try_from(data)) {
            *data = self.read_register(register).to_le_bytes();
        }
    }

    fn read_register(&self, register: Register) -> u32 {
        match register {
            Register::MagicValue => MAGIC,
            Register::Version => VERSION,
            Register::DeviceId => self.device.id(),
            Register::VendorId => VENDOR,
            Register::DeviceFeatures => half(self.features(), self.device_features_select),
            Register::QueueSizeMax => self.queue_size_max().map_or(0, u32::from),
            Register::QueueReady => u32::from(self.selected().is_some_and(|q| q.ready.is_some())),
            Register::InterruptStatus => self.interrupt,
            Register::Status => self.status,
            Register::ShmLenLow | Register::ShmLenHigh | Register::ShmBaseLow | Register::ShmBaseHigh => u32::MAX,
            Register::ConfigGeneration => self.generation,
            Register::QueueProcessor => self.processors,
            Register::DeviceFeaturesSel
            | Register::DriverFeatures
            | Register::DriverFeaturesSel
            | Register::QueueSel
            | Register::QueueSize
            | Register::QueueNotify
            | Register::InterruptAck
            | Register::QueueDescLow
            | Register::QueueDescHigh
            | Register::QueueDriverLow
            | Register::QueueDriverHigh
            | Register::QueueDeviceLow
            | Register::QueueDeviceHigh
            | Register::ShmSel
            // The reset of a queue is done when the write is.
            | Register::QueueReset => 0,
        }
    }

    /// Writes at `offset` of the block.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let Some(offset) = config_offset(offset) {
            self.device.write_config(offset, data);
            return Effect::None;
        }
        let Ok(value) = <[u8; 4]>::try_from(data) else {
            return Effect::Ignored(Ignored::Width {
                offset,
                len: data.len(),
            });
        };
        let Some(register) = Register::at(offset) else {
            return Effect::Ignored(Ignored::NotWritable(offset));
        };
        self.write_register(register, u32::from_le_bytes(value))
            .unwrap_or_else(Effect::Ignored)
    }

    fn write_register(&mut self, register: Register, value: u32) -> Result<Effect, Ignored> {
        match register {
            Register::DeviceFeaturesSel => self.device_features_select = value,
            Register::DriverFeaturesSel => self.driver_features_select = value,
            Register::DriverFeatures => self.accept_features(value)?,
            Register::QueueSel => self.queue_select = value,
            Register::QueueSize => {
                // A size beyond 16 bits is invalid, and so is the 0 that stands for it.
                self.idle_queue()?.config.size = u16::try_from(value).unwrap_or(0);
            }
            Register::QueueDescLow => set_low(&mut self.idle_queue()?.config.descriptors, value),
            Register::QueueDescHigh => set_high(&mut self.idle_queue()?.config.descriptors, value),
            Register::QueueDriverLow => set_low(&mut self.idle_queue()?.config.driver, value),
            Register::QueueDriverHigh => set_high(&mut self.idle_queue()?.config.driver, value),
            Register::QueueDeviceLow => set_low(&mut self.idle_queue()?.config.device, value),
            Register::QueueDeviceHigh => set_high(&mut self.idle_queue()?.config.device, value),
            Register::QueueReady => self.write_queue_ready(value)?,
            Register::QueueNotify => return self.kick(value),
            Register::QueueReset if self.has_negotiated(feature::RING_RESET) => self.reset_queue(value)?,
            Register::InterruptAck => self.interrupt &= !value,
            Register::QueueProcessor => return self.aim(value & 0xffff, value >> 16),
            Register::Status => return self.write_status(value),
            // There are no shared memory regions to select.
            Register::ShmSel => {}
            Register::MagicValue
            | Register::Version
            | Register::DeviceId
            | Register::VendorId
            | Register::DeviceFeatures
            | Register::QueueSizeMax
            | Register::InterruptStatus
            | Register::ShmLenLow
            | Register::ShmLenHigh
            | Register::ShmBaseLow
            | Register::ShmBaseHigh
            // RING_RESET is not negotiated.
            | Register::QueueReset
            | Register::ConfigGeneration => return Err(Ignored::NotWritable(register as u64)),
        }
        Ok(Effect::None)
    }

    fn accept_features(&mut self, value: u32) -> Result<(), Ignored> {
        if self.status & status::FEATURES_OK != 0 {
            return Err(Ignored::FeaturesFinal);
        }
        match self.driver_features_select {
            0 => set_low(&mut self.driver_features, value),
            1 => set_high(&mut self.driver_features, value),
            _ => self.beyond_features |= value != 0,
        }
        Ok(())
    }

    /// The status field (section 2.1): bits are added in the order of section 3.1.1 and taken
    /// away only all together.
    fn write_status(&mut self, value: u32) -> Result<Effect, Ignored> {
        if value == 0 {
            self.reset();
            return Ok(Effect::Reset);
        }
        let wanted = value & DRIVER_BITS;
        let current = self.status & DRIVER_BITS;
        let refused = Ignored::Status {
            current: self.status,
            wanted: value,
        };
        let needs = |bit: u32, before: u32| wanted & bit == 0 || wanted & before == before;
        let ordered = current & !wanted == 0
            && needs(status::DRIVER, status::ACKNOWLEDGE)
            && needs(status::FEATURES_OK, status::DRIVER)
            && needs(status::DRIVER_OK, status::FEATURES_OK);
        if !ordered {
            return Err(refused);
        }
        let added = wanted & !current;
        if added & status::FEATURES_OK != 0 {
            if !self.features_are_acceptable() {
                // What came before FEATURES_OK is taken; what builds on it is not.
                self.status |= wanted & !(status::FEATURES_OK | status::DRIVER_OK);
                return Err(Ignored::Features {
                    accepted: self.driver_features,
                    offered: self.features(),
                });
            }
            self.device.negotiated(self.driver_features);
        }
        self.status |= wanted;
        Ok(if added & status::DRIVER_OK != 0 {
            Effect::Live
        } else {
            Effect::None
        })
    }

    /// Whether the driver accepts nothing that is not offered, and VERSION_1.
    pub(super) fn features_are_acceptable(&self) -> bool {
        !self.beyond_features
            && self.driver_features & !self.features() == 0
            && self.driver_features & feature::VERSION_1 != 0
    }

    fn write_queue_ready(&mut self, value: u32) -> Result<(), Ignored> {
        let selected = self.queue_select;
        let max = self.queue_size_max().ok_or(Ignored::NoQueue(selected))?;
        let (features, negotiated) = (self.driver_features, self.has_negotiated(0));
        let queue = self.selected_mut()?;
        if value & 1 == 0 {
            if queue.ready.take().is_some() {
                self.device.stop(selected as usize);
            }
        } else if queue.ready.is_none() {
            if !negotiated || !is_usable(&queue.config, Format::of(features), max) {
                return Err(Ignored::QueueNotValid {
                    queue: selected,
                    config: queue.config,
                });
            }
            queue.ready = Some(DeviceQueue::new(queue.config, features));
        }
        Ok(())
    }

    /// Whether these features are negotiated, once and for all.
    const fn has_negotiated(&self, features: u64) -> bool {
        self.status & status::FEATURES_OK != 0 && self.driver_features & features == features
    }

    /// Brings the selected queue back to its state at start (section 2.6.1).
    fn reset_queue(&mut self, value: u32) -> Result<(), Ignored> {
        let selected = self.queue_select as usize;
        let queue = self.selected_mut()?;
        if value & 1 != 0 {
            let was_ready = core::mem::take(queue).ready.is_some();
            if was_ready {
                self.device.stop(selected);
            }
        }
        Ok(())
    }

    /// A kick. What else notification data says (section 2.9) is a hint: the queue tells the same, and has to be
    /// checked anyway. See [`look_at_kick`](Self::look_at_kick).
    fn kick(&mut self, value: u32) -> Result<Effect, Ignored> {
        let has_data = self.has_negotiated(feature::NOTIFICATION_DATA);
        let number = if has_data { value & 0xffff } else { value };
        let (index, is_live) = (number as usize, self.is_live());
        let queue = self.queues.get_mut(index).ok_or(Ignored::NoQueue(number))?;
        if queue.ready.is_none() || !is_live {
            return Err(Ignored::NotAtWork(number));
        }
        queue.told = has_data.then_some((value >> 16) as u16);
        Ok(Effect::Kick(index))
    }

    /// Sends the interrupt of a queue to a processor.
    fn aim(&mut self, number: u32, processor: u32) -> Result<Effect, Ignored> {
        let processors = self.processors;
        if processors == 0 {
            return Err(Ignored::NoInterrupts);
        }
        let aimed = self.aimed.get_mut(number as usize).ok_or(Ignored::NoQueue(number))?;
        if processor >= processors {
            return Err(Ignored::NoProcessor {
                queue: number,
                processor,
                processors,
            });
        }
        *aimed = processor;
        Ok(Effect::Aimed)
    }

    fn selected(&self) -> Option<&Queue> {
        self.queues.get(self.queue_select as usize)
    }

    fn queue_size_max(&self) -> Option<u16> {
        self.device.queue_sizes().get(self.queue_select as usize).copied()
    }

    fn selected_mut(&mut self) -> Result<&mut Queue, Ignored> {
        self.queues
            .get_mut(self.queue_select as usize)
            .ok_or(Ignored::NoQueue(self.queue_select))
    }

    /// The selected queue, unless it is ready and so not to be changed.
    fn idle_queue(&mut self) -> Result<&mut Queue, Ignored> {
        let selected = self.queue_select;
        let queue = self.selected_mut()?;
        if queue.ready.is_some() {
            Err(Ignored::QueueInUse(selected))
        } else {
            Ok(queue)
        }
    }
}

/// Whether a queue may be put to work: valid by section 2.7 or 2.8, not larger than the device
/// allows, and what the device writes of it where a device may write.
pub(super) const fn is_usable(config: &QueueConfig, format: Format, max: u16) -> bool {
    let writable = config.device >= map::QUEUES
        && match format {
            Format::Split => true,
            Format::Packed => config.descriptors >= map::QUEUES,
        };
    config.fits(format) && config.size <= max && writable
}

/// The offset in the configuration space, if this is one.
fn config_offset(offset: u64) -> Option<usize> {
    usize::try_from(offset.checked_sub(CONFIG)?).ok()
}

/// The 32 bits that `select` names; nothing is beyond bit 63.
const fn half(bits: u64, select: u32) -> u32 {
    match select {
        0 => bits as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}

fn set_low(word: &mut u64, value: u32) {
    *word = *word & !0xffff_ffff | u64::from(value);
}

fn set_high(word: &mut u64, value: u32) {
    *word = *word & 0xffff_ffff | u64::from(value) << 32;
}
