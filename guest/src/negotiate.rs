//! A device that its driver brings up by itself, by the device's registers (virtio 1.3 sections 3.1.1 and 4.2.3.1).

use chiton_shared::boot::DeviceEntry;
use chiton_shared::virtio::feature;
use chiton_shared::virtio::mmio::{MAGIC, Register, VERSION};
use chiton_shared::virtio::ring::Format;
use chiton_shared::virtio::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK};

use crate::boot;
use crate::host::{Doorbells, Host, read, write};
use crate::queue::{QueueError, areas, config};

/// Resets a device and brings it up with other features than the host has: those of `features` that it offers, and
/// VERSION_1. Its queues are where they were. Returns what the boot page says of the device, with the features that
/// are negotiated now.
///
/// # Errors
///
/// [`QueueError::NoDevice`], [`QueueError::Features`], [`QueueError::Missing`]; the device is then of no use.
///
/// # Safety
///
/// The entry must be one of the boot page's, and none of the device's queues be open, nor opened by anybody else before
/// this returns.
pub unsafe fn negotiate(entry: &DeviceEntry, features: u64) -> Result<DeviceEntry, QueueError> {
    let registers = entry.registers;
    let identity = [Register::MagicValue, Register::Version, Register::DeviceId].map(|it| read(registers, it));
    if identity != [MAGIC, VERSION, entry.id] {
        return Err(QueueError::NoDevice(registers));
    }
    Doorbells.reset(registers);
    add_status(registers, ACKNOWLEDGE);
    add_status(registers, DRIVER);
    let features = features & offered(registers) | feature::VERSION_1;
    accept(registers, features);
    add_status(registers, FEATURES_OK);
    if read(registers, Register::Status) & FEATURES_OK == 0 {
        add_status(registers, FAILED);
        return Err(QueueError::Features(features));
    }
    let format = Format::of(features);
    for (index, queue) in boot::page().queues_of(entry).iter().enumerate() {
        // SAFETY: memory of the contract, which only the driver of this queue reaches: nobody, the caller promises.
        let found = u16::try_from(queue.size)
            .ok()
            .and_then(|size| Some((unsafe { areas(queue, size) }?, size)))
            .filter(|(_, size)| u32::from(*size) <= Doorbells.queue_size_max(registers, index as u16));
        let Some((areas, size)) = found else {
            add_status(registers, FAILED);
            return Err(QueueError::Missing(index));
        };
        areas.clear(format, size);
        // SAFETY: the memory is the queue's, and zero as at its start.
        unsafe { Doorbells.set_up_queue(registers, index as u16, &config(&areas, size)) };
    }
    add_status(registers, DRIVER_OK);
    Ok(DeviceEntry { features, ..*entry })
}

/// What the device offers, of which it has 64 bits.
fn offered(registers: u64) -> u64 {
    let half = |select| {
        // SAFETY: the write changes no memory.
        unsafe { write(registers, Register::DeviceFeaturesSel, select) };
        u64::from(read(registers, Register::DeviceFeatures))
    };
    half(0) | half(1) << 32
}

fn accept(registers: u64, features: u64) {
    for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
        // SAFETY: the writes change no memory.
        unsafe {
            write(registers, Register::DriverFeaturesSel, select);
            write(registers, Register::DriverFeatures, half);
        }
    }
}

fn add_status(registers: u64, bit: u32) {
    let now = read(registers, Register::Status);
    // SAFETY: the device works on queues only that were set up with their drivers' promise.
    unsafe { write(registers, Register::Status, now | bit) };
}
