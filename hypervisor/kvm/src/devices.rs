//! The devices of a machine, with what each needs from the host.

use std::sync::Arc;

use chiton_core::devices::block::Block;
use chiton_core::devices::console::Console as ConsoleDevice;
use chiton_core::devices::entropy::Entropy;
use chiton_core::devices::{P9, Transport, preset_all};
use chiton_shared::boot::DeviceEntry;
use chiton_shared::map;

use crate::Error;
use crate::host::console::{Console, HostPort};
use crate::host::disk::Disk;
use crate::host::folder::Folder;
use crate::host::random::KernelRandom;
use crate::hub::SlotFiles;

/// Console, entropy, then the disks and the folders in order; each has the register block of its place.
pub(crate) struct Devices {
    transports: Vec<Transport>,
    files: Vec<SlotFiles>,
}

impl Devices {
    pub(crate) fn new(console: Console, disks: Vec<Disk>, folders: Vec<Folder>) -> Result<Self, Error> {
        let count = 2 + disks.len() + folders.len();
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
            devices.add(Transport::new(Box::new(Block::new(disk))), SlotFiles::default());
        }
        for (i, folder) in folders.iter().enumerate() {
            if folders[..i].iter().any(|other| other.name() == folder.name()) {
                return Err(Error::FolderTwice(folder.name().to_owned()));
            }
        }
        for folder in folders {
            let name = folder.name().to_owned();
            devices.add(
                Transport::new(Box::new(P9::new(folder, name.as_bytes()))),
                SlotFiles::default(),
            );
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
