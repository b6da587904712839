//! Ports of the console beyond the first (virtio 1.3 section 5.3.6), found by their names.
//!
//! Who never asks for one pays nothing: the queues are opened by the first [`port`].

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ptr::NonNull;

use chiton_shared::memory::Window;
use chiton_shared::virtio::console::{CONTROL_RECEIVE, CONTROL_TRANSMIT, Control, F_MULTIPORT, event, port_receive};
use chiton_shared::virtio::id;
use chiton_shared::virtio::ring::Buffer;
use spin::Mutex;

use super::ConsoleError;
use super::receive::Receive;
use super::transmit::Transmit;
use crate::boot;
use crate::host::{Doorbells, Host};
use crate::queue::{Queue, QueueError};
use crate::time;

/// How many control messages can be on their way to the guest.
const MESSAGES: usize = 16;

/// Room for one of them, in bytes: longer ones are cut.
const MESSAGE: usize = 128;

/// How many bytes of a port can wait, in each direction.
const BUFFER: usize = 16 << 10;

/// What the host has told of a port.
#[derive(Clone, Debug, Default)]
struct Port {
    name: Option<String>,
    size: (u16, u16),
    /// Somebody is at the other end.
    open: bool,
    /// How often somebody has left it.
    closings: u32,
    /// The guest has it.
    taken: bool,
}

/// The control queues, and what came through them.
pub(super) struct Ports<'m, H> {
    receive: Queue<'m, H>,
    transmit: Queue<'m, H>,
    room: Vec<UnsafeCell<[u8; MESSAGE]>>,
    /// Which of `room` the chain with this head is.
    owner: [u8; chiton_shared::virtio::ring::MAX_SIZE as usize],
    ports: Vec<Port>,
}

static PORTS: Mutex<Option<Ports<'static, Doorbells>>> = Mutex::new(None);

impl<'m, H: Host> Ports<'m, H> {
    /// The ports of a device that has `count` of them, the first included.
    pub(super) fn new(receive: Queue<'m, H>, transmit: Queue<'m, H>, count: usize) -> Result<Self, QueueError> {
        let mut ports = Self {
            receive,
            transmit,
            room: (0..MESSAGES).map(|_| UnsafeCell::new([0; MESSAGE])).collect(),
            owner: [0; _],
            ports: vec![Port::default(); count],
        };
        for block in 0..MESSAGES {
            ports.give(block)?;
        }
        ports.send(0, event::DEVICE_READY, 1)?;
        Ok(ports)
    }

    /// Gives the device room for a message.
    fn give(&mut self, block: usize) -> Result<(), QueueError> {
        if self.receive.free() == 0 {
            return Ok(());
        }
        let room = self.room[block].get();
        let buffer = Buffer::writable(room.expose_provenance() as u64, MESSAGE as u32);
        // SAFETY: the room lives as long as the queue, and is read only after its chain came back.
        let head = unsafe { self.receive.add(&[buffer]) }?;
        self.owner[usize::from(head)] = block as u8;
        Ok(())
    }

    /// Tells the device something, and sleeps until it has heard it.
    fn send(&mut self, port: u32, event: u16, value: u16) -> Result<(), QueueError> {
        let message = Control { port, event, value }.to_bytes();
        let buffer = Buffer::readable(message.as_ptr().expose_provenance() as u64, message.len() as u32);
        // SAFETY: the message lives until the chain has come back, or the queue is given up.
        unsafe { self.transmit.add(&[buffer]) }?;
        self.transmit.wait()?;
        Ok(())
    }

    /// Takes note of what the device has to say. Never sleeps, but to answer.
    fn hear(&mut self) -> Result<(), QueueError> {
        while let Some((head, len)) = self.receive.take()? {
            let block = usize::from(self.owner[usize::from(head)]);
            let mut message = [0; MESSAGE];
            // SAFETY: the room lives as long as the queue, and the driver's side makes no reference into it.
            let room = unsafe { Window::new(NonNull::from(&self.room[block]).cast(), MESSAGE) };
            // By the volatile accesses of a window: the device has given the room back, which it may not keep to.
            room.read(0, &mut message);
            let len = (len as usize).min(MESSAGE);
            self.give(block)?;
            let Some((control, more)) = message[..len].split_first_chunk() else {
                continue;
            };
            let control = Control::from_bytes(control);
            let Some(port) = self.ports.get_mut(control.port as usize) else {
                continue;
            };
            match control.event {
                event::PORT_ADD => self.send(control.port, event::PORT_READY, 1)?,
                event::CONSOLE_PORT => self.send(control.port, event::PORT_OPEN, 1)?,
                event::PORT_NAME => {
                    // Some devices end it with a NUL.
                    let name = more.split(|byte| *byte == 0).next().unwrap_or_default();
                    port.name = Some(String::from_utf8_lossy(name).into_owned());
                }
                event::RESIZE => {
                    if let &[a, b, c, d, ..] = more {
                        port.size = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
                    }
                }
                event::PORT_OPEN => {
                    let open = control.value != 0;
                    port.closings += u32::from(port.open && !open);
                    port.open = open;
                }
                _ => {}
            }
        }
        self.receive.kick();
        Ok(())
    }

    /// The port of this name, once the device has named all.
    pub(super) fn find(&mut self, name: &str) -> Result<Option<usize>, QueueError> {
        loop {
            self.hear()?;
            let named = |port: &Port| port.name.as_deref() == Some(name);
            if let Some(found) = self.ports.iter().position(named) {
                return Ok(Some(found));
            }
            // The first is the console, and has none.
            if self.ports.iter().skip(1).all(|port| port.name.is_some()) {
                return Ok(None);
            }
            if !self.receive.arm() {
                self.receive.sleep(u64::MAX);
                self.receive.ask()?;
            }
        }
    }
}

fn with<R>(action: impl FnOnce(&mut Ports<'static, Doorbells>) -> Result<R, QueueError>) -> Result<R, ConsoleError> {
    match PORTS.lock().as_mut() {
        Some(ports) => Ok(action(ports)?),
        None => Err(ConsoleError::NoPort),
    }
}

/// The port of this name, which is the guest's until it is dropped. Each can be had once.
///
/// # Errors
///
/// [`ConsoleError::NoPort`], [`ConsoleError::PortTaken`], [`ConsoleError::Device`].
///
/// # Example
///
/// ```no_run
/// use chiton_guest::console::{self, ConsoleError};
///
/// # fn main() -> Result<(), ConsoleError> {
/// let mut log = console::port("log")?;
/// log.write(b"started\n")?;
/// # Ok(())
/// # }
/// ```
pub fn port(name: &str) -> Result<ConsolePort, ConsoleError> {
    let entry = boot::devices(id::CONSOLE).next().ok_or(ConsoleError::NoPort)?;
    if entry.features & F_MULTIPORT == 0 {
        return Err(ConsoleError::NoPort);
    }
    // SAFETY: the boot page describes queues as the contract has it, and each is opened once: those of
    // control under the lock, those of a port by who has taken it.
    let queue = |index| unsafe { Queue::open(entry, index, Doorbells) };
    let mut ports = PORTS.lock();
    if ports.is_none() {
        let count = usize::from(entry.queue_count) / 2 - 1;
        *ports = Some(Ports::new(queue(CONTROL_RECEIVE)?, queue(CONTROL_TRANSMIT)?, count)?);
    }
    let ports = ports.as_mut().ok_or(ConsoleError::NoPort)?;
    let index = ports.find(name)?.ok_or(ConsoleError::NoPort)?;
    if core::mem::replace(&mut ports.ports[index].taken, true) {
        return Err(ConsoleError::PortTaken);
    }
    let receive = port_receive(index);
    let port = ConsolePort {
        index,
        receive: Box::new(Receive::new(queue(receive)?, memory())),
        transmit: Box::new(Transmit::new(queue(receive + 1)?, memory())),
        closings: ports.ports[index].closings,
        end_told: false,
    };
    ports.send(index as u32, event::PORT_OPEN, 1)?;
    Ok(port)
}

/// Memory for ever.
fn memory() -> Window<'static> {
    let memory = vec![0_u8; BUFFER].leak();
    // SAFETY: memory that nobody else has, for ever.
    unsafe { Window::new(NonNull::from(memory).cast(), BUFFER) }
}

/// A port of the console.
#[derive(Debug)]
pub struct ConsolePort {
    index: usize,
    receive: Box<Receive<'static, Doorbells>>,
    transmit: Box<Transmit<'static, Doorbells>>,
    /// How many closings have been told of.
    closings: u32,
    /// The end of what the one at the other end has to say has been told of.
    end_told: bool,
}

impl ConsolePort {
    /// Whether somebody is at the other end. Without somebody, what is written is lost.
    ///
    /// # Errors
    ///
    /// [`ConsoleError::Device`].
    pub fn is_connected(&self) -> Result<bool, ConsoleError> {
        self.look(|port| port.open)
    }

    /// Columns and rows of the terminal at the other end, or zeros.
    ///
    /// # Errors
    ///
    /// [`ConsoleError::Device`].
    pub fn size(&self) -> Result<(u16, u16), ConsoleError> {
        self.look(|port| port.size)
    }

    fn look<R>(&self, look: impl FnOnce(&Port) -> R) -> Result<R, ConsoleError> {
        with(|ports| {
            ports.hear()?;
            Ok(look(&ports.ports[self.index]))
        })
    }

    /// Writes bytes and has the host take them; sleeps while there is no room.
    ///
    /// # Errors
    ///
    /// [`ConsoleError::Device`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ConsoleError> {
        self.transmit.write(bytes)?;
        Ok(self.transmit.flush()?)
    }

    /// Reads what is there, without sleeping: how many bytes, 0 once for each who has nothing more to
    /// say at the other end, or has left it (or if `to` is empty), or `None` if there is nothing now.
    /// Who has nothing more to say may still listen: [`is_connected`](Self::is_connected).
    ///
    /// # Errors
    ///
    /// [`ConsoleError::Device`].
    pub fn try_read(&mut self, to: &mut [u8]) -> Result<Option<usize>, ConsoleError> {
        // What came before the end is read first.
        let closings = self.look(|port| port.closings)?;
        if let Some(len) = self.receive.try_read(to)? {
            self.end_told |= self.receive.go_on_after_the_end();
            return Ok(Some(len));
        }
        while self.closings != closings {
            self.closings += 1;
            if !core::mem::take(&mut self.end_told) {
                return Ok(Some(0));
            }
        }
        Ok(None)
    }

    /// Reads what is there, after sleeping until there is something: as [`try_read`](Self::try_read).
    ///
    /// # Errors
    ///
    /// [`ConsoleError::Device`].
    pub fn read(&mut self, to: &mut [u8]) -> Result<usize, ConsoleError> {
        loop {
            if let Some(len) = self.try_read(to)? {
                return Ok(len);
            }
            if !self.receive.arm()? && !self.arm()? {
                time::wait(None);
            }
        }
    }

    /// Has [`wait`](crate::time::wait) return when the other end has opened, closed, or another size,
    /// and tells whether one of them has happened already.
    ///
    /// # Errors
    ///
    /// [`ConsoleError::Device`].
    pub fn arm(&self) -> Result<bool, ConsoleError> {
        with(|ports| Ok(ports.receive.arm()))
    }
}

impl Drop for ConsolePort {
    fn drop(&mut self) {
        // With the device its ports are gone.
        let _ = with(|ports| ports.send(self.index as u32, event::PORT_OPEN, 0));
    }
}
