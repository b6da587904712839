//! What a guest's processors are plugged into here: core's devices, without a host behind them.
//!
//! The devices are behind one lock, since any processor may ring for any device. Nobody holds it while
//! it waits. What one processor tells another is atomic.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use chiton_bare::command::{self, Command, LinePort};
use chiton_bare::folder::{FolderError, MemoryFolder, Room, Writing};
use chiton_bare::line::{Line, LineError, LineLink, LineSockets};
use chiton_bare::ramdisk::{Ramdisk, RamdiskError};
use chiton_core::apic::Bus;
use chiton_core::devices::balloon::Balloon;
use chiton_core::devices::p9::P9;
use chiton_core::devices::{
    Block, Console, Effect, Emulated, Entropy, Net, Outcome, Preset, PresetError, Transport, Vsock, emulated,
    preset_all,
};
use chiton_core::machine::Board;
use chiton_core::physical::GuestRam;
use chiton_core::space::GivenBack;
use chiton_shared::boot::DeviceEntry;
use chiton_shared::doorbell::LogLevel;
use chiton_shared::interrupts::{IPI, queue_vector};
use chiton_shared::map;
use chiton_shared::memory::GuestMemory;
use spin::Mutex;

use super::balloon::{MemoryBalloon, Seen};
use super::console::SerialPort;
use super::debug::say;
use super::disk::MemoryDisk;
use super::line::SerialLine;
use super::processors::Processors;
use super::random::Random;
use super::sleep;
use super::smp::pause;
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
    /// A folder that is no file of the ramdisk.
    #[error("the ramdisk has no file {0:?} for a folder")]
    NoFolder(String),
    /// A folder that cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Two folders have the same name.
    #[error("two folders are called {0}, and the guest could not tell them apart: rename one")]
    FolderTwice(String),
    /// A balloon that is larger than what it is in.
    #[error("the balloon cannot hold {asked} bytes: the guest has {memory}")]
    Balloon {
        /// What was asked for.
        asked: u64,
        /// What the guest has.
        memory: u64,
    },
    /// A line that is no serial port.
    #[error("this machine has no serial port {0} for the line: see line=")]
    NoPort(&'static str),
    /// An emulated network interface without a network.
    #[error("an emulated network interface needs a network that a line leads to: --emulated-net tap=NAME")]
    NoLink,
    /// A line that is of no use.
    #[error(transparent)]
    Line(#[from] LineError),
    /// There are too many.
    #[error(transparent)]
    Preset(#[from] PresetError),
}

/// What the processors of a guest share.
pub(super) struct Mainboard {
    pub(super) memory: GuestRam,
    devices: Mutex<Devices>,
    name: String,
    log: LogLevel,
    /// When the guest's time is up, in ticks of the time-stamp counter.
    deadline: Option<u64>,
    /// The guest has come to its end, on one of its processors.
    over: AtomicBool,
    /// For each processor: something has happened since its last wait.
    news: Vec<AtomicBool>,
    /// For each processor: it sleeps, or is about to.
    asleep: Vec<AtomicBool>,
    /// Interrupts one of them.
    interrupt: Interrupt,
    /// What connects the local APICs, if the guest has interrupts.
    pub(super) bus: Option<Arc<Bus>>,
    /// How many bytes of its console have been sent.
    sent: Arc<AtomicU64>,
    /// Its disks and folders, and whether anything was written to each.
    written: Vec<(String, Arc<AtomicBool>)>,
    /// Its balloon, if it has one.
    balloon: Option<Held>,
    /// What the other end of the line has for the guest's environment.
    environment: Vec<String>,
}

/// A balloon, as others look at it.
struct Held {
    given_back: Arc<GivenBack>,
    seen: Arc<Mutex<Seen>>,
}

/// Interrupts a processor of the guest, unless it is the one that calls this.
pub(super) type Interrupt = Box<dyn Fn(u32) + Send + Sync>;

struct Devices {
    transports: Vec<Transport>,
    /// Those behind registers of their own, whose numbers follow.
    emulated: Vec<Box<dyn Emulated>>,
    /// The network, whose state changes by itself.
    network: Option<usize>,
    /// Which of them was said to be broken.
    reported: Vec<bool>,
    /// The number of each one's first queue, in the boot page's table.
    first_queues: Vec<usize>,
}

impl Mainboard {
    /// Console, entropy, the disks, network, sockets, the balloon, the folders, then the emulated disk and network, as under
    /// KVM. The guest's time begins now.
    ///
    /// # Errors
    ///
    /// [`DeviceError`].
    pub(super) fn new(
        memory: GuestRam,
        command: &Command,
        ramdisk: &Ramdisk<'static>,
        room: &Arc<Room>,
        bus: Option<Arc<Bus>>,
        interrupt: Interrupt,
    ) -> Result<(Self, Preset), DeviceError> {
        let port = SerialPort::new(command.input, command.beside.then_some(command.on));
        let sent = port.sent();
        let mut transports = Vec::from([
            Transport::new(Box::new(Console::new(port))),
            Transport::new(Box::new(Entropy::new(Random::of_processor()))),
        ]);
        let mut written = Vec::new();
        for disk in &command.disks {
            let memory = memory_disk(disk, ramdisk)?;
            written.push((disk.file.clone(), memory.written()));
            transports.push(Transport::new(Box::new(Block::new(memory))));
        }
        let outside = command
            .line
            .map(|port| Outside::at(port, command.emulated_net, &mut transports))
            .transpose()?;
        let Outside {
            network,
            nic,
            environment,
        } = outside.unwrap_or_default();
        let mut balloon = None;
        if let Some(asked) = command.balloon {
            if asked > command.memory {
                let memory = command.memory;
                return Err(DeviceError::Balloon { asked, memory });
            }
            let given_back = Arc::new(GivenBack::new(command.cpus));
            let pages = MemoryBalloon::new(memory, Arc::clone(&given_back), asked);
            let seen = pages.seen();
            balloon = Some(Held { given_back, seen });
            transports.push(Transport::new(Box::new(Balloon::new(pages))));
        }
        let mut names: Vec<String> = Vec::new();
        for folder in &command.folders {
            let file = &folder.file;
            let archive = ramdisk.file(file)?.ok_or_else(|| DeviceError::NoFolder(file.clone()))?;
            let writing = folder.writable.then(|| Writing {
                room: Arc::clone(room),
                now: time::date,
            });
            let folder = MemoryFolder::open(file, archive, writing)?;
            let name = String::from(folder.name());
            if names.contains(&name) {
                return Err(DeviceError::FolderTwice(name));
            }
            written.push((file.clone(), folder.written()));
            transports.push(Transport::new(Box::new(P9::new(folder, name.as_bytes()))));
            names.push(name);
        }
        let mut emulated: Vec<Box<dyn Emulated>> = Vec::new();
        if let Some(disk) = &command.emulated_disk {
            let memory = memory_disk(disk, ramdisk)?;
            written.push((disk.file.clone(), memory.written()));
            emulated.push(Box::new(emulated::Disk::new(memory)));
        }
        if command.emulated_net {
            emulated.push(Box::new(nic.ok_or(DeviceError::NoLink)?));
        }
        if bus.is_some() {
            transports
                .iter_mut()
                .for_each(|transport| transport.interrupts(command.cpus));
        }
        let mut preset = preset_all(&mut transports)?;
        let first_queues = preset.devices.iter().scan(0, |next, device| {
            let first = *next;
            *next += usize::from(device.queue_count);
            Some(first)
        });
        let devices = Devices {
            reported: transports.iter().map(|_| false).collect(),
            network,
            first_queues: first_queues.collect(),
            transports,
            emulated,
        };
        for (number, device) in (devices.transports.len()..).zip(&devices.emulated) {
            if number >= map::DEVICE_MAX {
                return Err(PresetError::TooManyDevices(number).into());
            }
            preset.devices.push(DeviceEntry {
                id: device.id(),
                registers: map::device_registers(number),
                ..DeviceEntry::default()
            });
        }
        let after = |time| time::ticks().saturating_add(time::in_ticks(time));
        let board = Self {
            memory,
            devices: Mutex::new(devices),
            name: command.guest.clone(),
            log: command.log,
            deadline: command.timeout.map(after),
            over: AtomicBool::new(false),
            news: (0..command.cpus).map(|_| AtomicBool::new(false)).collect(),
            asleep: (0..command.cpus).map(|_| AtomicBool::new(false)).collect(),
            interrupt,
            bus,
            sent,
            written,
            balloon,
            environment,
        };
        Ok((board, preset))
    }

    /// The guest has come to its end: every processor's turn ends soon.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether it has.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Whether a processor's turn is to end.
    fn stopped(&self) -> bool {
        self.is_over() || self.deadline.is_some_and(|deadline| time::ticks() >= deadline)
    }

    /// How many bytes the guest's console has sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The disks and folders that the guest has written to: files of the ramdisk, which do not change.
    pub(super) fn written(&self) -> impl Iterator<Item = &str> {
        let written = self
            .written
            .iter()
            .filter(|(_, written)| written.load(Ordering::Relaxed));
        written.map(|(file, _)| file.as_str())
    }

    /// What the guest gives back, for the tables of one of its processors.
    pub(super) fn given_back(&self, processor: u32) -> Option<(Arc<GivenBack>, u32)> {
        let held = self.balloon.as_ref()?;
        Some((Arc::clone(&held.given_back), processor))
    }

    /// What was seen of the balloon, if there is one.
    pub(super) fn balloon(&self) -> Option<Seen> {
        self.balloon.as_ref().map(|held| *held.seen.lock())
    }

    /// What the guest's environment has that comes by the line.
    pub(super) fn environment(&self) -> &[String] {
        &self.environment
    }

    /// Whether there is a network.
    pub(super) fn has_network(&self) -> bool {
        self.devices.lock().network.is_some()
    }

    /// How many requests the devices answered with a failure.
    pub(super) fn failures(&self) -> u64 {
        let devices = self.devices.lock();
        let of_transports = devices.transports.iter().map(Transport::failures);
        of_transports
            .chain(devices.emulated.iter().map(|device| device.failures()))
            .sum()
    }

    /// Works on the queues of one device; whether there may be more to do.
    fn process(&self, index: usize) -> bool {
        let mut devices = self.devices.lock();
        let is_network = devices.network == Some(index);
        let Some(transport) = devices.transports.get_mut(index) else {
            return false;
        };
        let changed = is_network.then(|| transport.look_at_backend());
        let outcome = transport.process(&self.memory);
        if let Some(changed) = changed {
            self.after(&mut devices, index, changed);
        }
        self.after(&mut devices, index, outcome)
    }

    /// What has to follow any work of a device.
    fn after(&self, devices: &mut Devices, index: usize, outcome: Outcome) -> bool {
        let broken = devices.transports[index].broken();
        let is_new = broken.is_some() && !devices.reported[index];
        if let (Some(broken), true) = (broken, is_new) {
            say!("{}: device {index} needs a reset: {broken}", self.name);
        }
        devices.reported[index] = broken.is_some();
        if outcome.notify || is_new {
            // Of those that wait by the doorbell for any queue, the interrupt of this one goes to one at most.
            self.tell_all();
            if let Some(bus) = &self.bus {
                // What is about the configuration has the interrupt of its first queue.
                let (queues, transport) = (outcome.queues.max(1), &devices.transports[index]);
                let first = devices.first_queues[index];
                let numbers = (0..u64::BITS as usize).filter(|number| queues >> number & 1 != 0);
                numbers.for_each(|number| bus.send(transport.processor_of(number), queue_vector(first + number)));
            }
        }
        outcome.more
    }

    /// There is news for every processor.
    fn tell_all(&self) {
        self.news.iter().for_each(|news| news.store(true, Ordering::SeqCst));
        (0..self.news.len() as u32).for_each(|processor| self.rouse(processor));
    }

    /// Lets the emulated devices take in what has come.
    fn process_emulated(&self) {
        let mut devices = self.devices.lock();
        for device in &mut devices.emulated {
            device.work(&self.memory);
            if device.interrupt() {
                self.tell_all();
            }
        }
    }

    /// Wakes a processor that sleeps, after it was left news.
    fn rouse(&self, processor: u32) {
        let asleep = self.asleep.get(processor as usize);
        if asleep.is_some_and(|asleep| asleep.load(Ordering::SeqCst)) {
            (self.interrupt)(processor);
        }
    }

    /// Works on the queues of all devices once; whether there may be more to do.
    fn process_all(&self) -> bool {
        self.process_emulated();
        let count = self.devices.lock().transports.len();
        (0..count).fold(false, |more, index| self.process(index) | more)
    }
}

/// What the line brought.
#[derive(Default)]
struct Outside {
    /// Which device is the network.
    network: Option<usize>,
    /// The network behind registers.
    nic: Option<emulated::Nic<LineLink<SerialLine>>>,
    environment: Vec<String>,
}

impl Outside {
    /// Asks at this port what there is, and makes the devices for it.
    fn at(port: LinePort, is_emulated: bool, transports: &mut Vec<Transport>) -> Result<Self, DeviceError> {
        let wire = SerialLine::open(port).ok_or(DeviceError::NoPort(port.name()))?;
        let (line, told) = Line::open(wire, port.name())?;
        let mut outside = Self::default();
        // That is about a network interface that has an IP address.
        if !is_emulated {
            outside.environment = told.environment;
        }
        if let Some((mac, mtu)) = told.link {
            let link = LineLink::new(Arc::clone(&line), mac, mtu);
            if is_emulated {
                outside.nic = Some(emulated::Nic::new(link));
            } else {
                outside.network = Some(transports.len());
                transports.push(Transport::new(Box::new(Net::new(link))));
            }
        }
        if let Some(cid) = told.sockets {
            transports.push(Transport::new(Box::new(Vsock::new(cid, LineSockets::new(line)))));
        }
        Ok(outside)
    }
}

/// A disk in memory, of a file of the ramdisk.
fn memory_disk(disk: &command::Disk, ramdisk: &Ramdisk<'static>) -> Result<MemoryDisk, DeviceError> {
    let file = || disk.file.clone();
    let content = ramdisk.file(&disk.file)?.ok_or_else(|| DeviceError::NoDisk(file()))?;
    if !content.len().is_multiple_of(512) {
        let bytes = content.len();
        return Err(DeviceError::Length { file: file(), bytes });
    }
    MemoryDisk::new(content, disk.read_only).ok_or_else(|| DeviceError::NoMemory(file()))
}

/// The board of one processor.
pub(super) struct BareBoard {
    main: Arc<Mainboard>,
    processors: Arc<Processors>,
    /// Which it is, of the guest.
    number: u32,
    mailbox: u64,
}

/// How long a processor that waits sleeps at most, before it looks at the devices again: a serial line keeps what comes
/// in for a millisecond or so.
const LOOK: Duration = Duration::from_micros(500);

impl BareBoard {
    /// That of processor `number`, whose mailbox is there.
    pub(super) const fn new(main: Arc<Mainboard>, processors: Arc<Processors>, number: u32, mailbox: u64) -> Self {
        Self {
            main,
            processors,
            number,
            mailbox,
        }
    }

    /// Which processor of the guest this is the board of.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// Works on the devices until something is true, or until a time of the time-stamp counter; at most until the
    /// guest is to end.
    fn work_until(&self, time: u64, done: impl Fn() -> bool) {
        let main = &self.main;
        let latest = main.deadline.map_or(time, |deadline| deadline.min(time));
        let done = || done() || time::ticks() >= latest || main.is_over();
        let asleep = &main.asleep[self.number as usize];
        loop {
            let more = main.process_all();
            if done() {
                return;
            }
            if more {
                // Whoever else wants the devices gets them: their lock is not fair.
                pause();
                continue;
            }
            // Whoever leaves news looks whether we sleep after that; so one of the two sees the other.
            asleep.store(true, Ordering::SeqCst);
            let over = done();
            if !over {
                let soon = time::ticks().saturating_add(time::in_ticks(LOOK));
                sleep::doze_until(latest.min(soon));
            }
            asleep.store(false, Ordering::SeqCst);
            if over {
                return;
            }
        }
    }
}

/// A device whose registers are somewhere.
enum At<'d> {
    /// A virtio device, by its number.
    Virtio(usize),
    Emulated(&'d mut dyn Emulated),
}

/// The device whose registers are there, and which of them.
fn device_at(devices: &mut Devices, address: u64) -> Option<(At<'_>, u64)> {
    let offset = address.checked_sub(map::DEVICES)?;
    let index = usize::try_from(offset / map::DEVICE_STRIDE).ok()?;
    let at = match index.checked_sub(devices.transports.len()) {
        None => At::Virtio(index),
        Some(index) => At::Emulated(devices.emulated.get_mut(index)?.as_mut()),
    };
    Some((at, offset % map::DEVICE_STRIDE))
}

impl Board for BareBoard {
    fn memory(&self) -> &dyn GuestMemory {
        &self.main.memory
    }

    fn mailbox(&self) -> u64 {
        self.mailbox
    }

    fn start(&mut self, processor: u32) {
        Processors::start(&self.processors, processor);
    }

    fn wake(&mut self, processor: u32) {
        if let Some(news) = self.main.news.get(processor as usize) {
            news.store(true, Ordering::SeqCst);
            match &self.main.bus {
                Some(bus) => bus.send(processor, IPI),
                None => self.main.rouse(processor),
            }
        }
    }

    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        let mut devices = self.main.devices.lock();
        match device_at(&mut devices, address) {
            Some((At::Virtio(index), offset)) => devices.transports[index].read(offset, data),
            Some((At::Emulated(device), offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        let main = &self.main;
        let mut devices = main.devices.lock();
        let (index, offset) = match device_at(&mut devices, address) {
            Some((At::Virtio(index), offset)) => (index, offset),
            Some((At::Emulated(device), offset)) => {
                device.write(offset, data, &main.memory);
                if device.interrupt() {
                    main.tell_all();
                }
                return;
            }
            None => return,
        };
        let outcome = match devices.transports[index].write(offset, data) {
            Effect::Kick(queue) => {
                if let Some(misled) = devices.transports[index].look_at_kick(queue, &main.memory) {
                    say!("{}: device {index}: {misled}", main.name);
                }
                devices.transports[index].process_queue(queue, &main.memory)
            }
            Effect::Live => devices.transports[index].process(&main.memory),
            Effect::Ignored(why) => {
                say!("{}: device {index}: {why}", main.name);
                return;
            }
            Effect::Reset => devices.transports[index].tell_all(),
            Effect::Aimed | Effect::None => return,
        };
        main.after(&mut devices, index, outcome);
    }

    fn kick(&mut self, device: usize) {
        while self.main.process(device) && !self.main.stopped() {}
    }

    /// Nothing but a device's own doing, another processor, the line and the clock can bring news: it looks at the
    /// devices and sleeps in turn, and the others wake it.
    fn wait(&mut self, timeout: Option<Duration>) {
        let until = timeout.map_or(u64::MAX, |time| time::ticks().saturating_add(time::in_ticks(time)));
        let news = &self.main.news[self.number as usize];
        self.work_until(until, || news.swap(false, Ordering::SeqCst));
    }

    fn halt(&mut self) -> bool {
        let Some(bus) = &self.main.bus else { return false };
        let due = match bus.due(self.number) {
            0 => u64::MAX,
            due => due,
        };
        self.work_until(due, || bus.calls(self.number, time::ticks()));
        true
    }

    /// The guest may have an interrupt for what a device does meanwhile, and not wait for it.
    fn hold(&mut self) {
        if self.main.bus.is_some() {
            self.main.process_all();
        }
    }

    fn log(&mut self, level: LogLevel, text: &str) {
        // The guest is told the level in its boot page, and need not keep to it.
        if level > self.main.log {
            return;
        }
        for line in text.lines() {
            say!("{}: {}: {line}", self.main.name, level.word());
        }
    }

    fn drain(&mut self) {
        while self.main.process_all() && !self.main.stopped() {}
    }

    fn stopped(&self) -> bool {
        self.main.stopped()
    }

    fn now_ns(&self) -> u64 {
        time::now_ns()
    }
}
