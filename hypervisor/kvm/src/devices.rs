//! The devices of a machine, with what each needs from the host.

use std::sync::Arc;

use chiton_core::devices::balloon::Balloon;
use chiton_core::devices::block::Block;
use chiton_core::devices::console::{Console as ConsoleDevice, MAX_PORTS, NamedPort};
use chiton_core::devices::emulated;
use chiton_core::devices::entropy::Entropy;
use chiton_core::devices::net::Net as NetDevice;
use chiton_core::devices::vsock::Vsock as VsockDevice;
use chiton_core::devices::{Limits, P9, Preset, Transport, preset_all_in};
use chiton_core::state::{Reader, StateError};
use chiton_shared::map;
use chiton_shared::virtio::ring::Format;

use crate::Error;
use crate::clock;
use crate::emulated::EmulatedSlot;
use crate::host::console::{Console, HostPort};
use crate::host::disk::Disk;
use crate::host::folder::Folder;
use crate::host::pages::{BalloonHandle, KernelPages};
use crate::host::ports::{ConsolePort, OpenPorts};
use crate::host::random::KernelRandom;
use crate::host::socket_file::SocketFile;
use crate::host::tap::{Net, TapLink};
use crate::host::vsock::Vsock;
use crate::hub::{Handle, SlotFiles};
use crate::snapshot::SnapshotError;

/// How many bytes of a disk a thread of its own moves before the guest hears of it: the next are moved while the guest
/// looks at these.
const APART_BYTES: usize = 1 << 20;

/// Console, entropy, the disks and the network interfaces in order, then the socket device, the
/// balloon, the folders and the emulated devices; each has the register block of its place.
pub(crate) struct Devices {
    transports: Vec<Transport>,
    files: Vec<SlotFiles>,
    emulated: Vec<EmulatedSlot>,
    socket_files: Vec<SocketFile>,
}

/// What each device is made on.
pub(crate) struct Backends {
    pub(crate) console: Console,
    pub(crate) ports: Vec<ConsolePort>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) nets: Vec<Net>,
    pub(crate) vsock: Option<Vsock>,
    /// How much memory the host would like to have, in bytes.
    pub(crate) balloon: Option<u64>,
    pub(crate) folders: Vec<Folder>,
    /// Disks are served by a thread of their own, and the guest looks for what they have done.
    pub(crate) apart: bool,
    pub(crate) emulated: EmulatedBackends,
    /// Guest memory is that of a snapshot's file.
    pub(crate) of_file: bool,
}

/// The backends of the emulated devices.
#[derive(Default)]
pub(crate) struct EmulatedBackends {
    pub(crate) disk: Option<Disk>,
    pub(crate) net: Option<Net>,
}

impl Devices {
    pub(crate) fn new(backends: Backends) -> Result<Self, Error> {
        let Backends {
            console,
            ports,
            disks,
            nets,
            vsock,
            balloon,
            folders,
            apart,
            emulated,
            of_file,
        } = backends;
        let count = 2
            + folders.len()
            + disks.len()
            + nets.len()
            + usize::from(vsock.is_some())
            + usize::from(balloon.is_some())
            + usize::from(emulated.disk.is_some())
            + usize::from(emulated.net.is_some());
        if count > map::DEVICE_MAX {
            return Err(Error::TooManyDevices(count));
        }
        let mut devices = Self {
            transports: Vec::with_capacity(count),
            files: Vec::with_capacity(count),
            emulated: Vec::new(),
            socket_files: Vec::new(),
        };
        let files = SlotFiles::default();
        let port = HostPort::new(console, Arc::clone(&files.failures));
        let (input, output) = port.watched()?;
        let handle = Handle::Console(port.size_handle());
        let mut files = SlotFiles {
            input,
            output,
            handle,
            ..files
        };
        let mut console = ConsoleDevice::new(port);
        if !ports.is_empty() {
            console = console.with_ports(devices.open(ports, &mut files)?);
        }
        devices.add(Transport::new(Box::new(console)), files);
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
            let block = if apart { block.moving(APART_BYTES) } else { block };
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
            let cid = vsock.cid();
            let (sockets, file) = vsock.open()?;
            devices.socket_files.extend(file);
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
            let handle = Arc::new(BalloonHandle::new(bytes));
            let pages = KernelPages {
                complaint,
                handle: Arc::clone(&handle),
                of_file,
            };
            let handle = Handle::Balloon(handle);
            devices.add(
                Transport::new(Box::new(Balloon::new(pages))),
                SlotFiles { handle, ..files },
            );
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
        devices.add_emulated(emulated)?;
        Ok(devices)
    }

    /// They come last, so that their numbers follow those of the others.
    fn add_emulated(&mut self, backends: EmulatedBackends) -> Result<(), Error> {
        if let Some(disk) = backends.disk {
            if disk.limits != Limits::default() {
                return Err(Error::EmulatedLimits);
            }
            let complaint = disk.complaint.clone();
            let slot = EmulatedSlot::new(Box::new(emulated::Disk::new(disk)), None);
            self.emulated.push(slot.reporting(Arc::default(), complaint));
        }
        if let Some(net) = backends.net {
            if net.environment(0).next().is_some() {
                return Err(Error::EmulatedAddress);
            }
            if net.limits != Limits::default() {
                return Err(Error::EmulatedLimits);
            }
            let failures = Arc::default();
            let link = TapLink::new(net, Arc::clone(&failures)).map_err(Error::system("epoll_create"))?;
            let input = link.watched().map_err(Error::system("dup"))?;
            let slot = EmulatedSlot::new(Box::new(emulated::Nic::new(link)), Some(input));
            self.emulated.push(slot.reporting(failures, Default::default()));
        }
        Ok(())
    }

    /// Opens console ports.
    fn open(&mut self, ports: Vec<ConsolePort>, files: &mut SlotFiles) -> Result<Vec<NamedPort>, Error> {
        if ports.len() > MAX_PORTS {
            return Err(Error::TooManyPorts(ports.len()));
        }
        for (i, port) in ports.iter().enumerate() {
            if ports[..i].iter().any(|other| other.name() == port.name()) {
                return Err(Error::PortTwice(port.name().to_owned()));
            }
        }
        let open = OpenPorts::new(ports)?;
        files.events = Some(open.events);
        self.socket_files.extend(open.files);
        Ok(open.ports)
    }

    fn add(&mut self, transport: Transport, files: SlotFiles) {
        self.transports.push(transport);
        self.files.push(files);
    }

    /// Makes every device ready for use, with queues of this format; returns what the boot page says of
    /// them.
    pub(crate) fn preset(&mut self, format: Format) -> Result<Preset, Error> {
        let mut preset = preset_all_in(format, &mut self.transports)?;
        let behind = preset.devices.len()..;
        let entries = self.emulated.iter().zip(behind).map(|(slot, index)| slot.entry(index));
        preset.devices.extend(entries);
        Ok(preset)
    }

    /// Has every device go on from what was written down.
    pub(crate) fn load(&mut self, states: &[Vec<u8>]) -> Result<(), SnapshotError> {
        if states.len() != self.transports.len() {
            return Err(StateError::value("how many devices there are", states.len() as u64).into());
        }
        for (transport, state) in self.transports.iter_mut().zip(states) {
            let mut state = Reader::new(state);
            transport.load(&mut state)?;
            state.end()?;
        }
        Ok(())
    }

    /// The files of sockets, to be removed when the guest has ended.
    pub(crate) fn take_socket_files(&mut self) -> Vec<SocketFile> {
        std::mem::take(&mut self.socket_files)
    }

    pub(crate) fn into_slots(self) -> (Vec<(Transport, SlotFiles)>, Vec<EmulatedSlot>) {
        (self.transports.into_iter().zip(self.files).collect(), self.emulated)
    }
}
