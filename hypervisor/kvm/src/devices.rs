//! The devices of a machine, with what each needs from the host.

use std::sync::Arc;

use chiton_core::devices::balloon::Balloon;
use chiton_core::devices::block::Block;
use chiton_core::devices::console::Console as ConsoleDevice;
use chiton_core::devices::entropy::Entropy;
use chiton_core::devices::net::Net as NetDevice;
use chiton_core::devices::vsock::Vsock as VsockDevice;
use chiton_core::devices::{P9, Preset, Transport, preset_all};
use chiton_shared::map;

use crate::Error;
use crate::clock;
use crate::host::console::{Console, HostPort};
use crate::host::disk::Disk;
use crate::host::folder::Folder;
use crate::host::pages::KernelPages;
use crate::host::random::KernelRandom;
use crate::host::tap::{Net, TapLink};
use crate::host::vsock::{SocketFile, Vsock};
use crate::hub::SlotFiles;

/// Console, entropy, the disks and the network interfaces in order, then the socket device, the
/// balloon and the folders; each has the register block of its place.
pub(crate) struct Devices {
    transports: Vec<Transport>,
    files: Vec<SlotFiles>,
    socket_file: Option<SocketFile>,
}

impl Devices {
    pub(crate) fn new(
        console: Console,
        disks: Vec<Disk>,
        nets: Vec<Net>,
        vsock: Option<Vsock>,
        balloon: Option<u64>,
        folders: Vec<Folder>,
    ) -> Result<Self, Error> {
        let count = 2
            + folders.len()
            + disks.len()
            + nets.len()
            + usize::from(vsock.is_some())
            + usize::from(balloon.is_some());
        if count > map::DEVICE_MAX {
            return Err(Error::TooManyDevices(count));
        }
        let mut devices = Self {
            transports: Vec::with_capacity(count),
            files: Vec::with_capacity(count),
            socket_file: None,
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
        for mut disk in disks {
            let files = SlotFiles {
                complaint: disk.complaint.clone(),
                ring: Arc::clone(&disk.ring),
                ..SlotFiles::default()
            };
            // SAFETY: the hub, which gets all devices, keeps the guest's memory until they are
            // dropped, and gives them windows of that alone.
            unsafe { disk.work_asynchronously() };
            let (limits, queues) = (disk.limits, disk.queues);
            let block = Block::new(disk).queues(queues).limited(limits, clock::now);
            devices.add(Transport::new(Box::new(block)), files);
        }
        for net in nets {
            let files = SlotFiles::default();
            let limits = net.limits;
            let link = TapLink::new(net, Arc::clone(&files.failures)).map_err(Error::system("epoll_create"))?;
            let input = Some(link.watched().map_err(Error::system("dup"))?);
            let changes = Some(link.changes().map_err(Error::system("dup"))?);
            let device = NetDevice::new(link).limited(limits, clock::now);
            devices.add(
                Transport::new(Box::new(device)),
                SlotFiles {
                    input,
                    changes,
                    ..files
                },
            );
        }
        if let Some(vsock) = vsock {
            let cid = vsock.cid;
            let (sockets, file) = vsock.open()?;
            devices.socket_file = Some(file);
            let input = Some(sockets.watched()?);
            devices.add(
                Transport::new(Box::new(VsockDevice::new(cid, sockets))),
                SlotFiles {
                    input,
                    ..SlotFiles::default()
                },
            );
        }
        if let Some(bytes) = balloon {
            let files = SlotFiles::default();
            let complaint = files.complaint.clone();
            let target = u32::try_from(bytes / map::PAGE).unwrap_or(u32::MAX);
            let balloon = Balloon::new(KernelPages { complaint }, target);
            devices.add(Transport::new(Box::new(balloon)), files);
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
    pub(crate) fn preset(&mut self) -> Result<Preset, Error> {
        Ok(preset_all(&mut self.transports)?)
    }

    /// The file of the socket device, if there is one, to be removed when the guest has ended.
    pub(crate) const fn take_socket_file(&mut self) -> Option<SocketFile> {
        self.socket_file.take()
    }

    pub(crate) fn into_slots(self) -> Vec<(Transport, SlotFiles)> {
        self.transports.into_iter().zip(self.files).collect()
    }
}
