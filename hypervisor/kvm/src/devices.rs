//! The devices of a machine, with what each needs from the host.

use std::sync::Arc;

use chiton_core::devices::balloon::Balloon;
use chiton_core::devices::block::Block;
use chiton_core::devices::console::Console as ConsoleDevice;
use chiton_core::devices::entropy::Entropy;
use chiton_core::devices::{Transport, preset_all};
use chiton_shared::boot::DeviceEntry;
use chiton_shared::map;

use crate::Error;
use crate::clock;
use crate::host::console::{Console, HostPort};
use crate::host::disk::Disk;
use crate::host::pages::KernelPages;
use crate::host::random::KernelRandom;
use crate::hub::SlotFiles;

/// Console, entropy, the disks in order, then the balloon; each has the register block of its place.
pub(crate) struct Devices {
    transports: Vec<Transport>,
    files: Vec<SlotFiles>,
}

impl Devices {
    pub(crate) fn new(console: Console, disks: Vec<Disk>, balloon: Option<u64>) -> Result<Self, Error> {
        let count = 2 + disks.len() + usize::from(balloon.is_some());
        if count > map::DEVICE_MAX {
            return Err(Error::TooManyDevices(count));
        }
        let mut devices = Self {
            transports: Vec::with_capacity(count),
            files: Vec::with_capacity(count),
        };
        let files = SlotFiles::default();
        let port = HostPort::new(console, Arc::clone(&files.failures));
        let (input, output) = port.watched()?;
        devices.add(
            Transport::new(Box::new(ConsoleDevice::new(port))),
            SlotFiles { input, output, ..files },
        );
        devices.add(
            Transport::new(Box::new(Entropy::new(KernelRandom))),
            SlotFiles::default(),
        );
        for disk in disks {
            let files = SlotFiles {
                complaint: disk.complaint.clone(),
                ..SlotFiles::default()
            };
            let limits = disk.limits;
            let block = Block::new(disk).limited(limits, clock::now);
            devices.add(Transport::new(Box::new(block)), files);
        }
        if let Some(bytes) = balloon {
            let files = SlotFiles::default();
            let complaint = files.complaint.clone();
            let target = u32::try_from(bytes / map::PAGE).unwrap_or(u32::MAX);
            let balloon = Balloon::new(KernelPages { complaint }, target);
            devices.add(Transport::new(Box::new(balloon)), files);
        }
        Ok(devices)
    }

    fn add(&mut self, transport: Transport, files: SlotFiles) {
        self.transports.push(transport);
        self.files.push(files);
    }

    /// Makes every device ready for use; returns what the boot page says of them.
    pub(crate) fn preset(&mut self) -> Result<Vec<DeviceEntry>, Error> {
        Ok(preset_all(&mut self.transports)?)
    }

    pub(crate) fn into_slots(self) -> Vec<(Transport, SlotFiles)> {
        self.transports.into_iter().zip(self.files).collect()
    }
}
