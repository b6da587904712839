//! The device loop: one thread that sleeps until a queue is kicked, input arrives, output can go
//! on, a signal comes or time is up.
//!
//! ```text
//!  vCPU thread                                  device loop
//!  ───────────                                  ───────────
//!  out KICK, the first ones: an exit, processes the device's queues itself
//!  out KICK, later ─▶ kernel ─▶ ioeventfd ────▶ epoll ──▶ process the device's queues
//!  out WAIT ──▶ processes queues itself,                     │
//!               then sleeps on News  ◀───────────────────────┘ when the guest wants to know
//! ```
//!
//! Either thread may work on a device; a lock for each device decides. [`lead`] has how a processor
//! that waits serves the network without the device loop.
//!
//! With an I/O thread, disks and folders are its alone: it has a loop of the same kind, and the vCPU
//! thread only tells it. So a file system that is slow holds up neither the other devices nor the
//! guest. [`io`] has how it looks for more before it sleeps.

mod control;
mod held;
mod io;
mod lead;
mod snapshot;

pub(crate) use io::Looks;

use std::io::Error as IoError;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use chiton_core::devices::{Interest, Outcome, Transport};
use chiton_core::exits::ExitCounter;
use chiton_shared::map;
use chiton_shared::virtio::id::{BLOCK, CONSOLE, P9};
use rustix::event::{PollFd, PollFlags, epoll, poll};
use vmm_sys_util::eventfd::EventFd;

use crate::Error;
use crate::board::Mainboard;
use crate::clock;
use crate::control::gate::Gate;
use crate::control::server::Server as ControlServer;
use crate::emulated::EmulatedSlot;
use crate::host::complaint::Complaint;
use crate::host::console::{Failures, SizeHandle};
use crate::host::pages::BalloonHandle;
use crate::host::ports::take_events;
use crate::interrupts::QueueInterrupts;
use crate::log::Log;
use crate::news::News;
use crate::ram::Ram;
use crate::signal::{EndSignals, Kick};
use crate::snapshot::format::Id;
use crate::snapshot::take::Facts;

/// How long who drains the devices does not look whether somebody wants the guest to end.
const SHORT: Duration = Duration::from_millis(20);

/// No time at all.
const NEVER: u64 = u64::MAX;

/// Why the host ends a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// This signal came.
    Signal(i32),
    /// The guest ran out of time.
    Timeout(Duration),
    /// Nobody reads the guest's output any more.
    OutputClosed,
    /// It was asked to end, and did not within this time.
    NotStopped(Duration),
    /// Another processor came to the end of the guest.
    Processor,
    /// It goes on from a snapshot, not here.
    Snapshot,
    /// The host could not go on doing this, for the reason of this error number.
    HostFailed { doing: &'static str, errno: i32 },
}

/// A device with what the host needs to drive it.
pub(crate) struct Slot {
    id: u32,
    server: Server,
    state: Mutex<SlotState>,
    /// Written by the kernel when the guest kicks.
    pub(crate) kick: EventFd,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    events: Option<OwnedFd>,
    ring: Arc<OnceLock<OwnedFd>>,
    /// Tells that the backend may have changed by itself; watched always.
    _changes: Option<OwnedFd>,
    failures: Arc<Failures>,
    complaint: Complaint,
    handle: Handle,
    /// When the device loop has to come to it at the latest, by [`clock::now`]; [`NEVER`] else.
    again: AtomicU64,
    kicks: AtomicU64,
    /// The device waits for input.
    readable: AtomicBool,
}

struct SlotState {
    transport: Transport,
    /// What epoll has been told.
    watched: Interest,
    /// Input is left to a processor: the device loop does not watch it.
    left: bool,
    reported: bool,
    /// What the guest is still to be told, as more of it is on the way.
    owed: Option<io::Owed>,
}

/// What a device needs besides its transport.
#[derive(Default)]
pub(crate) struct SlotFiles {
    pub(crate) input: Option<OwnedFd>,
    pub(crate) output: Option<OwnedFd>,
    /// Always watched: readable when something has happened to one of several descriptors.
    pub(crate) events: Option<OwnedFd>,
    /// What to watch as input, if that is known only later.
    pub(crate) ring: Arc<OnceLock<OwnedFd>>,
    /// Tells that the backend may have changed by itself.
    pub(crate) changes: Option<OwnedFd>,
    pub(crate) failures: Arc<Failures>,
    /// What the backend has to say.
    pub(crate) complaint: Complaint,
    /// What can be changed of the backend while the guest runs.
    pub(crate) handle: Handle,
}

/// What can be changed of a device's backend, besides its limits.
#[derive(Default)]
pub(crate) enum Handle {
    /// Nothing.
    #[default]
    None,
    /// How much the balloon should hold.
    Balloon(Arc<BalloonHandle>),
    /// How large the console is.
    Console(Arc<SizeHandle>),
}

/// When a guest has run out of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// So long from now; `None` if the clock does not reach so far.
    pub(crate) fn after(limit: Duration) -> Option<Self> {
        Instant::now().checked_add(limit).map(|at| Self { at, limit })
    }
}

/// What a thread that serves devices sleeps on.
struct Loop {
    epoll: OwnedFd,
    wake: EventFd,
}

/// Which devices a thread serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The device loop: all, or all but those of the I/O thread.
    Devices,
    /// The I/O thread: disks and folders.
    Io,
}

/// Everything the vCPU threads, the device loop and the I/O thread share.
pub(crate) struct Hub {
    slots: Vec<Slot>,
    /// The devices that are not virtio, whose numbers follow those of `slots`.
    emulated: Vec<EmulatedSlot>,
    interrupts: Option<QueueInterrupts>,
    news: News,
    lead: Option<lead::Lead>,
    devices: Loop,
    io: Option<Loop>,
    signals: Option<EndSignals>,
    over: AtomicBool,
    stopping: AtomicBool,
    stop: Mutex<Option<StopReason>>,
    vcpus: Mutex<Vec<Processor>>,
    log: Log,
    start: Instant,
    gate: Gate,
    desk: held::Desk,
    /// What a snapshot needs to know of the guest.
    facts: Option<Facts>,
    /// The board of all processors, once there is one.
    pub(crate) board: OnceLock<Weak<Mainboard>>,
    /// The snapshot since which it is noted what changes.
    last_snapshot: Mutex<Option<Id>>,
    control: Option<Mutex<ControlServer>>,
    /// The guest has been asked to end.
    asked: AtomicBool,
    /// When and why it is ended if it does not do as asked.
    last_chance: Mutex<Option<(Instant, StopReason)>>,
    /// How long it has after a signal; without, a signal ends it at once.
    stop_timeout: Option<Duration>,
    /// The last field, so that it is dropped after the devices, which may have the kernel work on it.
    pub(crate) ram: Arc<Ram>,
}

/// A processor that runs, or may run again.
struct Processor {
    kick: Kick,
    number: u32,
    exits: Arc<ExitCounter>,
}

/// What an epoll event is about: a device and which of its descriptors, or one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Kick(usize),
    Input(usize),
    Output(usize),
    Events(usize),
    Change(usize),
    Wake,
    Signal,
    Control,
}

impl Token {
    fn encode(self) -> epoll::EventData {
        epoll::EventData::new_u64(match self {
            Self::Wake => 0,
            Self::Signal => 1,
            Self::Control => 2,
            Self::Kick(slot) => 8 + 8 * slot as u64,
            Self::Input(slot) => 9 + 8 * slot as u64,
            Self::Output(slot) => 10 + 8 * slot as u64,
            Self::Events(slot) => 11 + 8 * slot as u64,
            Self::Change(slot) => 12 + 8 * slot as u64,
        })
    }

    fn decode(data: epoll::EventData) -> Option<Self> {
        let value = data.u64();
        let slot = (value / 8).checked_sub(1).and_then(|s| usize::try_from(s).ok());
        match (value % 8, slot) {
            (0, None) => Some(Self::Wake),
            (1, None) => Some(Self::Signal),
            (2, None) => Some(Self::Control),
            (0, Some(slot)) => Some(Self::Kick(slot)),
            (1, Some(slot)) => Some(Self::Input(slot)),
            (2, Some(slot)) => Some(Self::Output(slot)),
            (3, Some(slot)) => Some(Self::Events(slot)),
            (4, Some(slot)) => Some(Self::Change(slot)),
            _ => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    /// The descriptor that is readable when there is input, or a part of the work is done.
    fn input(&self) -> Option<&OwnedFd> {
        self.input.as_ref().or_else(|| self.ring.get())
    }

    /// Makes the device loop come back to this device after the others, as if the guest had
    /// kicked; the count of kicks leaves it out.
    fn come_back(&self) {
        self.kicks.fetch_sub(1, Ordering::Relaxed);
        let _ = self.kick.write(1);
    }
}

impl Loop {
    fn new() -> Result<Self, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Error::system("epoll_create"))?;
        let wake = event()?;
        add(&epoll, wake.as_raw_fd(), Token::Wake, epoll::EventFlags::IN)?;
        Ok(Self { epoll, wake })
    }

    /// Ends its sleep, or the next one.
    fn wake(&self) {
        let _ = self.wake.write(1);
    }
}

fn event() -> Result<EventFd, Error> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(Error::system("eventfd"))
}

impl Hub {
    /// `io_thread` is whether a thread will [serve](Self::serve_io) disks and folders.
    pub(crate) fn new(
        ram: Arc<Ram>,
        devices: Vec<(Transport, SlotFiles)>,
        emulated: Vec<EmulatedSlot>,
        io_thread: bool,
        interrupts: Option<QueueInterrupts>,
        signals: Option<EndSignals>,
        log: Box<dyn Fn(&str) -> bool + Send + Sync>,
    ) -> Result<Self, Error> {
        let main = Loop::new()?;
        let io = io_thread.then(Loop::new).transpose()?;
        if let Some(signals) = &signals {
            add(
                &main.epoll,
                signals.as_fd().as_raw_fd(),
                Token::Signal,
                epoll::EventFlags::IN,
            )?;
        }
        let mut slots = Vec::with_capacity(devices.len());
        for (index, (transport, files)) in devices.into_iter().enumerate() {
            let kick = event()?;
            let id = transport.id();
            let (server, its) = match &io {
                Some(io) if matches!(id, BLOCK | P9) => (Server::Io, io),
                _ => (Server::Devices, &main),
            };
            add(&its.epoll, kick.as_raw_fd(), Token::Kick(index), epoll::EventFlags::IN)?;
            if let Some(events) = &files.events {
                add(
                    &its.epoll,
                    events.as_raw_fd(),
                    Token::Events(index),
                    epoll::EventFlags::IN,
                )?;
            }
            if let Some(changes) = &files.changes {
                add(
                    &its.epoll,
                    changes.as_raw_fd(),
                    Token::Change(index),
                    epoll::EventFlags::IN,
                )?;
            }
            slots.push(Slot {
                id,
                server,
                state: Mutex::new(SlotState {
                    transport,
                    watched: Interest::default(),
                    left: false,
                    reported: false,
                    owed: None,
                }),
                kick,
                input: files.input,
                output: files.output,
                events: files.events,
                ring: files.ring,
                _changes: files.changes,
                failures: files.failures,
                complaint: files.complaint,
                handle: files.handle,
                again: AtomicU64::new(NEVER),
                kicks: AtomicU64::new(0),
                readable: AtomicBool::new(false),
            });
        }
        Ok(Self {
            ram,
            slots,
            emulated,
            interrupts,
            news: News::default(),
            lead: None,
            devices: main,
            io,
            signals,
            over: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stop: Mutex::new(None),
            vcpus: Mutex::new(Vec::new()),
            log: Log::new(log),
            start: Instant::now(),
            gate: Gate::default(),
            desk: held::Desk::default(),
            facts: None,
            board: OnceLock::new(),
            last_snapshot: Mutex::new(None),
            control: None,
            asked: AtomicBool::new(false),
            last_chance: Mutex::new(None),
            stop_timeout: None,
        })
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn emulated(&self) -> &[EmulatedSlot] {
        &self.emulated
    }

    /// There is news for everyone who waits.
    pub(crate) fn post_news(&self) {
        self.news.post();
    }

    pub(crate) fn log(&self, line: &str) {
        self.log.line(line);
    }

    /// How many kicks came through ioeventfds, for all devices.
    pub(crate) fn kicks(&self) -> u64 {
        let of = |slot: &Slot| {
            slot.kicks
                .load(Ordering::Relaxed)
                .wrapping_add(slot.kick.read().unwrap_or(0))
        };
        self.slots.iter().map(of).fold(0, u64::wrapping_add)
    }

    fn loop_of(&self, server: Server) -> &Loop {
        match (server, &self.io) {
            (Server::Io, Some(io)) => io,
            _ => &self.devices,
        }
    }

    /// Whether a thread has to [`serve_io`](Self::serve_io).
    pub(crate) const fn has_io_thread(&self) -> bool {
        self.io.is_some()
    }

    /// Runs the device loop until [`finish`](Self::finish).
    pub(crate) fn serve(&self, deadline: Option<Deadline>) {
        let mut deadline = deadline;
        let mut events = Vec::with_capacity(3 + 5 * (self.slots.len() + self.emulated.len()));
        while !self.over.load(Ordering::Acquire) {
            let ends = deadline.map(|d| d.at).into_iter().chain(self.last_chance()).min();
            let timeout = ends.map(|at| at.saturating_duration_since(Instant::now()));
            if !self.turn(Server::Devices, timeout, &mut events) {
                return;
            }
            if let Some(Deadline { at, limit }) = deadline
                && Instant::now() >= at
            {
                deadline = None;
                self.stop(StopReason::Timeout(limit));
            }
            self.use_last_chance();
        }
    }

    fn for_each_of(&self, server: Server, mut what: impl FnMut(usize, &Slot)) {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.server == server)
            .for_each(|(index, slot)| what(index, slot));
    }

    /// Sleeps once, for no longer than `timeout`, and does what there is to do then; false if the
    /// host could not sleep.
    fn turn(&self, server: Server, timeout: Option<Duration>, events: &mut Vec<epoll::Event>) -> bool {
        let again = self.next_again(server).map(clock::until);
        let timeout = timeout.into_iter().chain(again).min().map(timespec);
        events.clear();
        let spare = rustix::buffer::spare_capacity(events);
        if let Err(error) = epoll::wait(&self.loop_of(server).epoll, spare, timeout.as_ref())
            && error != rustix::io::Errno::INTR
        {
            self.stop(StopReason::HostFailed {
                doing: "wait for devices",
                errno: error.raw_os_error(),
            });
            return false;
        }
        for event in events.iter() {
            self.handle(server, Token::decode(event.data));
        }
        if again.is_some() {
            self.process_again(server);
        }
        true
    }

    /// The next time that a device waits for.
    fn next_again(&self, server: Server) -> Option<u64> {
        let mut next = match server {
            Server::Devices => self.next_look(),
            Server::Io => NEVER,
        };
        self.for_each_of(server, |_, slot| next = next.min(slot.again.load(Ordering::Acquire)));
        (next != NEVER).then_some(next)
    }

    /// Works on the devices whose time has come.
    fn process_again(&self, server: Server) {
        if server == Server::Devices {
            self.look_for_lead();
        }
        let now = clock::now();
        self.for_each_of(server, |index, slot| {
            if slot.again.load(Ordering::Acquire) <= now {
                self.process(index);
            }
        });
    }

    fn handle(&self, server: Server, token: Option<Token>) {
        match token {
            Some(Token::Kick(slot)) => {
                if let Some(kicks) = self.slots.get(slot).and_then(|s| Some((s, s.kick.read().ok()?))) {
                    kicks.0.kicks.fetch_add(kicks.1, Ordering::Relaxed);
                }
                self.process(slot);
            }
            Some(Token::Input(slot)) if self.leave(slot) => {}
            Some(Token::Input(slot) | Token::Output(slot)) => self.process(slot),
            Some(Token::Events(slot)) => {
                if let Some(events) = self.slots.get(slot).and_then(|s| s.events.as_ref()) {
                    take_events(events.as_fd());
                }
                self.process(slot);
            }
            Some(Token::Change(slot)) => self.look_at_backend(slot),
            Some(Token::Signal) => match self.signals.as_ref().and_then(EndSignals::take) {
                Some(libc::SIGWINCH) => self.resized(),
                Some(signal) => self.signalled(signal),
                None => {}
            },
            Some(Token::Control) => self.serve_control(),
            Some(Token::Wake) | None => {
                let _ = self.loop_of(server).wake.read();
            }
        }
    }

    /// The backend of a device may have changed by itself.
    fn look_at_backend(&self, index: usize) {
        let Some(slot) = self.slots.get(index) else { return };
        let mut state = lock(&slot.state);
        let outcome = state.transport.look_at_backend();
        self.notify(index, outcome);
        self.after(index, slot, &mut state);
    }

    /// The terminal has another size: tells the consoles' drivers.
    fn resized(&self) {
        for slot in self.slots_of(CONSOLE) {
            self.config_changed(slot);
        }
    }

    /// The guest has something for a device: works on it, or tells the thread that does.
    pub(crate) fn kicked(&self, index: usize) {
        match self.slots.get(index) {
            Some(slot) if slot.server == Server::Io => slot.come_back(),
            _ => self.process(index),
        }
    }

    /// Tells the guest, if there is something to tell: whoever waits, and by an interrupt. What is
    /// about no queue has that of the first.
    fn notify(&self, index: usize, outcome: Outcome) {
        if !outcome.notify {
            return;
        }
        self.news.post();
        if let Some(interrupts) = &self.interrupts {
            interrupts.raise(index, outcome.queues.max(1));
        }
    }

    /// Has everyone who sleeps look again, though no device has anything to say. A processor may halt for one
    /// queue alone, so all have their interrupts.
    fn rouse(&self) {
        self.news.post();
        if let Some(interrupts) = &self.interrupts {
            (0..self.slots.len()).for_each(|index| interrupts.raise(index, u64::MAX));
        }
    }

    /// Sends the interrupts of a device's queues where they are to go.
    fn aim(&self, index: usize, transport: &Transport) {
        let main = self.board.get().and_then(Weak::upgrade);
        let (Some(interrupts), Some(main)) = (&self.interrupts, main) else {
            return;
        };
        if let Err(error) = interrupts.aim(&main.vm, index, transport) {
            self.log(&format!("the interrupts of device {index} go where they went: {error}"));
        }
    }

    /// Works on the queues of one device; the loop comes back to it if there is more to do.
    fn process(&self, index: usize) {
        let Some(slot) = self.slots.get(index) else {
            self.process_emulated(index);
            return;
        };
        let more = self.process_locked(index, slot, &mut lock(&slot.state));
        if more {
            slot.come_back();
        }
    }

    fn process_locked(&self, index: usize, slot: &Slot, state: &mut SlotState) -> bool {
        let outcome = state.transport.process(self.ram.as_ref());
        self.after(index, slot, state);
        match slot.server {
            Server::Devices => self.notify(index, outcome),
            Server::Io => self.tell_of(index, state, outcome),
        }
        outcome.more
    }

    /// What has to follow any call into a transport: watch what it waits for, tell what broke.
    fn after(&self, index: usize, slot: &Slot, state: &mut SlotState) {
        match slot.failures.output.load(Ordering::Relaxed) {
            0 => {}
            libc::EPIPE => self.stop(StopReason::OutputClosed),
            errno => self.stop(StopReason::HostFailed {
                doing: "write the guest's output",
                errno,
            }),
        }
        match slot.failures.input.load(Ordering::Relaxed) {
            0 => {}
            errno => self.stop(StopReason::HostFailed {
                doing: "read the guest's input",
                errno,
            }),
        }
        self.report(index, &slot.failures, &slot.complaint);
        match (state.transport.broken(), state.reported) {
            (Some(broken), false) => {
                self.log(&format!("device {index} needs a reset: {broken}"));
                state.reported = true;
                self.news.post();
            }
            (None, true) => state.reported = false,
            _ => {}
        }
        let Interest {
            readable,
            writable,
            under_way,
            at,
        } = state.transport.interest();
        let at = at.unwrap_or(NEVER);
        // The device loop may sleep for longer than that.
        if slot.again.swap(at, Ordering::AcqRel) > at {
            self.loop_of(slot.server).wake();
        }
        slot.readable.store(readable, Ordering::Relaxed);
        self.watch_input(index, slot, state, readable || under_way);
        self.watch(
            slot,
            slot.output.as_ref(),
            Token::Output(index),
            &mut state.watched.writable,
            writable,
        );
    }

    /// Watches the input of a device, or not. What is left to a processor the device loop does not
    /// watch.
    fn watch_input(&self, index: usize, slot: &Slot, state: &mut SlotState, wanted: bool) {
        let wanted = wanted && !state.left;
        let watched = &mut state.watched.readable;
        self.watch(slot, slot.input(), Token::Input(index), watched, wanted);
    }

    /// Tells the user what a device's backend has met.
    pub(crate) fn report(&self, index: usize, failures: &Failures, complaint: &Complaint) {
        match failures.link.swap(0, Ordering::Relaxed) {
            0 => {}
            errno => self.log(&format!(
                "device {index}: the network interface is gone, and the guest's link is down: {}",
                IoError::from_raw_os_error(errno)
            )),
        }
        if let Some(complaint) = complaint.take() {
            self.log(&format!("device {index}: {complaint}"));
        }
    }

    /// Makes epoll watch a descriptor, or not; `watched` is whether it does.
    fn watch(&self, slot: &Slot, fd: Option<&OwnedFd>, token: Token, watched: &mut bool, wanted: bool) {
        let Some(fd) = fd.filter(|_| *watched != wanted) else {
            return;
        };
        let flags = if matches!(token, Token::Output(_)) {
            epoll::EventFlags::OUT
        } else {
            epoll::EventFlags::IN
        };
        match self.watch_descriptor(slot.server, fd, token, flags, wanted) {
            Ok(()) => *watched = wanted,
            // A regular file cannot be watched: it is always ready.
            Err(rustix::io::Errno::PERM) if wanted => slot.come_back(),
            Err(error) => self.log(&format!("cannot watch a descriptor: {error}")),
        }
    }

    /// Has epoll watch a descriptor, or no longer.
    pub(crate) fn watch_descriptor(
        &self,
        server: Server,
        fd: &OwnedFd,
        token: Token,
        flags: epoll::EventFlags,
        wanted: bool,
    ) -> rustix::io::Result<()> {
        let epoll = &self.loop_of(server).epoll;
        if wanted {
            epoll::add(epoll, fd, token.encode(), flags)
        } else {
            epoll::delete(epoll, fd)
        }
    }

    /// The guest reads a device register.
    pub(crate) fn mmio_read(&self, address: u64, data: &mut [u8]) {
        match self.device_at(address) {
            Some((slot, offset)) => lock(&slot.1.state).transport.read(offset, data),
            None => self.emulated_read(address, data),
        }
    }

    /// The guest writes a device register.
    pub(crate) fn mmio_write(&self, address: u64, data: &[u8]) {
        use chiton_core::devices::Effect;
        let Some(((index, slot), offset)) = self.device_at(address) else {
            self.emulated_write(address, data);
            return;
        };
        let mut state = lock(&slot.state);
        let effect = state.transport.write(offset, data);
        if let Effect::Kick(queue) = effect
            && let Some(misled) = state.transport.look_at_kick(queue, self.ram.as_ref())
        {
            self.log(&format!("device {index}: {misled}"));
        }
        match effect {
            Effect::Kick(_) | Effect::Live if slot.server == Server::Io => slot.come_back(),
            Effect::Kick(queue) => {
                let outcome = state.transport.process_queue(queue, self.ram.as_ref());
                self.notify(index, outcome);
                if outcome.more {
                    slot.come_back();
                }
            }
            Effect::Live => {
                if self.process_locked(index, slot, &mut state) {
                    slot.come_back();
                }
            }
            Effect::Ignored(why) => self.log(&format!("device {index}: {why}")),
            // Who sleeps for another queue of the device looks what has become of it.
            Effect::Reset => self.notify(index, state.transport.tell_all()),
            Effect::Aimed => self.aim(index, &state.transport),
            Effect::None => {}
        }
        self.after(index, slot, &mut state);
    }

    fn device_at(&self, address: u64) -> Option<((usize, &Slot), u64)> {
        let offset = address.checked_sub(map::DEVICES)?;
        let index = usize::try_from(offset / map::DEVICE_STRIDE).ok()?;
        Some(((index, self.slots.get(index)?), offset % map::DEVICE_STRIDE))
    }

    /// A processor has nothing to do: works on the queues, then sleeps until there is news for it.
    pub(crate) fn wait(&self, processor: u32, timeout: Option<Duration>) {
        // The last first: somebody may wait for what a socket or an interface sends, and is not to wait for
        // a look at the console, too.
        for (index, slot) in self.slots.iter().enumerate().rev() {
            match slot.server {
                Server::Devices => self.process(index),
                Server::Io => {
                    // Who does not get the lock cannot know what the I/O thread has seen.
                    let work = slot.state.try_lock();
                    if work.map_or(true, |mut state| state.transport.has_work(self.ram.as_ref())) {
                        slot.come_back();
                    }
                }
            }
        }
        for index in self.slots.len()..self.slots.len() + self.emulated.len() {
            self.process_emulated(index);
        }
        self.sleep(processor, timeout);
    }

    /// Lets the devices finish what the guest has given them, or until somebody wants it to end.
    pub(crate) fn drain(&self) {
        loop {
            let mut more = false;
            let mut blocked = None;
            let mut again = None;
            for (index, slot) in self.slots.iter().enumerate() {
                let mut state = lock(&slot.state);
                more |= self.process_locked(index, slot, &mut state);
                let interest = state.transport.interest();
                if interest.writable {
                    // A device with many outputs has one descriptor that tells of them all.
                    blocked = slot.output.as_ref().map(|fd| (fd, PollFlags::OUT));
                    blocked = blocked.or(slot.input().map(|fd| (fd, PollFlags::IN)));
                } else if interest.under_way {
                    blocked = slot.input().map(|fd| (fd, PollFlags::IN));
                }
                if state.transport.holds_output() {
                    blocked = slot.events.as_ref().map(|fd| (fd, PollFlags::IN));
                }
                again = again.into_iter().chain(interest.at).min();
            }
            match blocked {
                _ if self.stopped() => return,
                // The device loop watches the descriptor too and works as soon as it is ready.
                Some((fd, flags)) => wait_ready(fd.as_fd(), flags),
                None if more => {}
                None => match again {
                    Some(at) => std::thread::sleep(clock::until(at).min(SHORT)),
                    None => return,
                },
            }
        }
    }

    /// Asks the guest to end. The first reason counts.
    pub(crate) fn stop(&self, reason: StopReason) {
        lock(&self.stop).get_or_insert(reason);
        self.stopping.store(true, Ordering::Release);
        self.news.end();
        self.gate.open();
        self.interrupt();
    }

    /// Gets every processor out of the guest.
    fn interrupt(&self) {
        for processor in &*lock(&self.vcpus) {
            processor.kick.kick();
        }
    }

    /// Whether somebody asked the guest to end.
    pub(crate) fn stopped(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Why, if so.
    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        *lock(&self.stop)
    }

    /// From now on, until [`forget_vcpus`](Self::forget_vcpus), [`stop`](Self::stop),
    /// [`pause`](Self::pause) and who [asks](Self::held) for states interrupt this thread too.
    pub(crate) fn add_vcpu(&self, kick: Kick, number: u32, exits: Arc<ExitCounter>) {
        let mut vcpus = lock(&self.vcpus);
        vcpus.push(Processor { kick, number, exits });
        if self.stopped() || self.is_paused() || self.is_asking() {
            kick.kick();
        }
    }

    /// No thread runs a vCPU any more.
    pub(crate) fn forget_vcpus(&self) {
        lock(&self.vcpus).clear();
    }

    /// Ends another processor's wait.
    pub(crate) fn wake(&self, processor: u32) {
        self.news.wake(processor);
    }

    /// Says how many log lines were left out, if any.
    pub(crate) fn flush_log(&self) {
        self.log.flush();
    }

    /// Ends the device loop.
    pub(crate) fn finish(&self) {
        self.over.store(true, Ordering::Release);
        self.news.end();
        self.devices.wake();
        self.io.iter().for_each(Loop::wake);
    }

    /// How many requests the devices answered with a failure.
    pub(crate) fn failures(&self) -> u64 {
        let of_slots = self.slots.iter().map(|slot| lock(&slot.state).transport.failures());
        of_slots.chain(self.emulated.iter().map(EmulatedSlot::failures)).sum()
    }
}

fn add(epoll: &OwnedFd, fd: i32, token: Token, flags: epoll::EventFlags) -> Result<(), Error> {
    // SAFETY: the descriptor belongs to an object that the hub keeps as long as the epoll.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    epoll::add(epoll, fd, token.encode(), flags).map_err(|errno| Error::System {
        what: "epoll_ctl",
        source: IoError::from(errno),
    })
}

fn timespec(duration: Duration) -> rustix::event::Timespec {
    rustix::event::Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Sleeps until a descriptor is ready, but not long: somebody may want the guest to end.
fn wait_ready(fd: BorrowedFd<'_>, flags: PollFlags) {
    let timeout = timespec(SHORT);
    let _ = poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&timeout));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_epoll() {
        for token in [
            Token::Wake,
            Token::Signal,
            Token::Control,
            Token::Kick(0),
            Token::Input(3),
            Token::Output(15),
            Token::Events(2),
            Token::Change(2),
        ] {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(epoll::EventData::new_u64(3)), None);
    }
}
