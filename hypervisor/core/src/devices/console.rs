//! Console device (virtio 1.3 section 5.3): ports, bytes in and bytes out.
//!
//! Flow control is the guest's own buffers. Output that the host cannot take stays in the
//! guest's chain until the host can; input stays in the host until the guest gives room. So
//! nothing is queued here, and nothing grows.
//!
//! End of input is one used receive buffer of length zero, after which no more are used until somebody
//! else is at the other end. (The specification has no word for it without ports, and with them none for
//! who has nothing more to say and still listens; a length of zero can mean nothing else.)

mod ports;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use chiton_shared::memory::Window;
use chiton_shared::virtio::console::{Config, F_EMERG_WRITE, F_MULTIPORT, F_SIZE, QUEUES, RECEIVE, TRANSMIT};
use chiton_shared::virtio::id;
use chiton_shared::virtio::ring::Chain;

use super::buffers::{Cursor, Windows};
use super::{Device, DeviceError, Interest, NotSaved, Progress, Ring};
use crate::state::{Reader, StateError, Writer};
use ports::Ports;
pub use ports::{MAX_NAME, MAX_PORTS};

/// Size of either queue. A guest batches into long chains, so more would only take memory.
const QUEUE_SIZE: u16 = 64;

/// How many bytes one call moves at most, so that a flood leaves others their turn.
const BYTES_PER_CALL: usize = 1 << 20;

/// Offset of `emerg_wr` in the configuration.
const EMERGENCY: usize = core::mem::offset_of!(Config, emerg_wr);

/// What the console's bytes go to and come from. No call waits.
pub trait Port: Send {
    /// Fills the windows, in order, with input that is there.
    fn read(&mut self, to: &[Window<'_>]) -> Input;

    /// Takes output from the windows, in order.
    fn write(&mut self, from: &[Window<'_>]) -> Output;

    /// Takes one byte from a guest that has no other way left; it may be lost.
    fn emergency(&mut self, byte: u8);

    /// Columns and rows, or zeros if nobody knows. When it changes, the host calls
    /// [`Transport::config_changed`](super::Transport::config_changed).
    fn size(&self) -> (u16, u16) {
        (0, 0)
    }

    /// Whether somebody is at the other end. Without somebody, there is no input, and output is thrown
    /// away. Asked of ports beyond the first.
    fn is_open(&self) -> bool {
        true
    }

    /// Takes in who has come to the other end, if it was not open: the driver knows that. Called of
    /// ports beyond the first.
    fn let_in(&mut self) {}

    /// The guest has opened the port, or closed it. Told of ports beyond the first.
    fn guest_opened(&mut self, _open: bool) {}
}

/// A port beyond the first, with its name.
pub type NamedPort = (String, Box<dyn Port>);

impl<P: Port + ?Sized> Port for Box<P> {
    fn read(&mut self, to: &[Window<'_>]) -> Input {
        (**self).read(to)
    }

    fn write(&mut self, from: &[Window<'_>]) -> Output {
        (**self).write(from)
    }

    fn emergency(&mut self, byte: u8) {
        (**self).emergency(byte);
    }

    fn size(&self) -> (u16, u16) {
        (**self).size()
    }

    fn is_open(&self) -> bool {
        (**self).is_open()
    }

    fn let_in(&mut self) {
        (**self).let_in();
    }

    fn guest_opened(&mut self, open: bool) {
        (**self).guest_opened(open);
    }
}

/// How [`Port::read`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// So many bytes were read; not zero. Fewer than there was room for means that no more are
    /// there now.
    Bytes(usize),
    /// There is no input now.
    Empty,
    /// There will be no more input, or none from who is at the other end of a port beyond the first.
    End,
}

/// How [`Port::write`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// So many bytes were taken; not zero.
    Bytes(usize),
    /// There is no room now.
    Full,
    /// Nobody takes output any more: it is thrown away from here on.
    Closed,
}

/// The console device.
pub struct Console<P> {
    first: Lane<P>,
    /// The first port's size as the driver sees it, which changes only together with ConfigGeneration.
    size: (u16, u16),
    /// Ports beyond the first; without them, `VIRTIO_CONSOLE_F_MULTIPORT` is not offered.
    ports: Option<Box<Ports>>,
}

/// A port with its two queues.
struct Lane<P> {
    port: P,
    receive: Held,
    transmit: Held,
    input_ended: bool,
    end_told: bool,
    output_closed: bool,
}

/// A chain the device has taken and not given back.
#[derive(Default)]
struct Held {
    chain: Box<Chain>,
    /// Whether there is one.
    taken: bool,
    /// How far it is done.
    cursor: Cursor,
    /// How many bytes of the next one are done already: of one that was taken before a snapshot.
    done: u64,
}

impl Held {
    /// Makes sure there is a chain, from the queue if need be; false if the queue has none.
    fn take(&mut self, ring: &mut Ring<'_, '_>) -> Result<bool, DeviceError> {
        if !self.taken {
            self.taken = ring.pop(&mut self.chain)?;
            self.cursor = Cursor::default();
            if self.taken {
                let done = usize::try_from(core::mem::take(&mut self.done)).unwrap_or(usize::MAX);
                self.cursor.advance(self.chain.readable(), done);
            }
        }
        Ok(self.taken)
    }

    fn give_back(&mut self, ring: &mut Ring<'_, '_>, written: u32) {
        self.taken = false;
        ring.push(self.chain.head(), written);
    }
}

impl<P: Port> Console<P> {
    /// A console on this port.
    #[must_use]
    pub fn new(port: P) -> Self {
        Self {
            size: port.size(),
            first: Lane::new(port),
            ports: None,
        }
    }

    /// With these ports besides, up to [`MAX_PORTS`], each with a name of up to [`MAX_NAME`] bytes;
    /// what is beyond is left out.
    #[must_use]
    pub fn with_ports(mut self, ports: impl IntoIterator<Item = NamedPort>) -> Self {
        let ports: Vec<_> = ports.into_iter().take(MAX_PORTS).collect();
        self.ports = (!ports.is_empty()).then(|| Box::new(Ports::new(ports)));
        self
    }
}

impl<P: Port> Lane<P> {
    fn new(port: P) -> Self {
        Self {
            port,
            receive: Held::default(),
            transmit: Held::default(),
            input_ended: false,
            end_told: false,
            output_closed: false,
        }
    }

    fn receive(&mut self, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let memory = ring.memory();
        let mut windows = Windows::new();
        let mut budget = BYTES_PER_CALL;
        let mut read_dry = false;
        for _ in 0..QUEUE_SIZE {
            if self.end_told {
                return Ok(Progress::Waiting);
            }
            if !self.receive.take(ring)? {
                return Ok(Progress::Drained);
            }
            let room = Cursor::default();
            room.gather(self.receive.chain.writable(), memory, budget, &mut windows)?;
            if windows.bytes() == 0 {
                return Err(DeviceError::NoRoom {
                    head: self.receive.chain.head(),
                });
            }
            if read_dry {
                return Ok(Progress::Waiting);
            }
            let input = if self.input_ended {
                Input::End
            } else {
                self.port.read(windows.as_slice())
            };
            match input {
                Input::Bytes(0) | Input::Empty => return Ok(Progress::Waiting),
                Input::Bytes(bytes) => {
                    let bytes = bytes.min(windows.bytes());
                    read_dry = bytes < windows.bytes();
                    self.receive.give_back(ring, bytes as u32);
                    budget -= bytes;
                    if budget == 0 {
                        break;
                    }
                }
                Input::End => {
                    self.input_ended = true;
                    self.end_told = true;
                    self.receive.give_back(ring, 0);
                }
            }
        }
        Ok(Progress::More)
    }

    fn transmit(&mut self, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let memory = ring.memory();
        let mut windows = Windows::new();
        let mut budget = BYTES_PER_CALL;
        let mut given_back = 0;
        while given_back < QUEUE_SIZE && budget > 0 {
            if !self.transmit.take(ring)? {
                return Ok(Progress::Drained);
            }
            let Held { chain, cursor, .. } = &mut self.transmit;
            cursor.gather(chain.readable(), memory, budget, &mut windows)?;
            if windows.bytes() == 0 || self.output_closed {
                self.transmit.give_back(ring, 0);
                given_back += 1;
                continue;
            }
            match self.port.write(windows.as_slice()) {
                Output::Bytes(0) | Output::Full => return Ok(Progress::Waiting),
                Output::Bytes(bytes) => {
                    let bytes = bytes.min(windows.bytes());
                    cursor.advance(chain.readable(), bytes);
                    budget -= bytes;
                    if cursor.is_at_end(chain.readable()) {
                        self.transmit.give_back(ring, 0);
                        given_back += 1;
                    }
                }
                Output::Closed => self.output_closed = true,
            }
        }
        Ok(Progress::More)
    }
}

impl<P> Lane<P> {
    /// Somebody else has come to the other end, whose input has not ended.
    const fn begin_input(&mut self) {
        (self.input_ended, self.end_told) = (false, false);
    }

    fn reset(&mut self) {
        self.receive.taken = false;
        self.transmit.taken = false;
        self.transmit.done = 0;
        self.end_told = false;
    }
}

impl<P: Port> Device for Console<P> {
    fn id(&self) -> u32 {
        id::CONSOLE
    }

    fn features(&self) -> u64 {
        F_SIZE | F_EMERG_WRITE | if self.ports.is_some() { F_MULTIPORT } else { 0 }
    }

    fn queue_sizes(&self) -> &[u16] {
        match &self.ports {
            None => &[QUEUE_SIZE; QUEUES],
            Some(ports) => ports.queue_sizes(),
        }
    }

    fn negotiated(&mut self, features: u64) {
        if let Some(ports) = &mut self.ports {
            ports.negotiated(features & F_MULTIPORT != 0);
        }
    }

    fn in_order(&self) -> bool {
        true
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let (cols, rows) = self.size;
        super::read_bytes(
            &Config {
                cols,
                rows,
                max_nr_ports: 1 + self.ports.as_ref().map_or(0, |ports| ports.count() as u32),
                emerg_wr: 0,
            }
            .to_bytes(),
            offset,
            data,
        );
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        if let (EMERGENCY, Some(byte)) = (offset, data.first()) {
            self.first.port.emergency(*byte);
        }
    }

    fn look_at_backend(&mut self) {
        self.size = self.first.port.size();
    }

    fn process(&mut self, queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        match queue {
            RECEIVE => self.first.receive(ring),
            TRANSMIT => self.first.transmit(ring),
            queue => match &mut self.ports {
                Some(ports) => ports.process(queue, ring, self.size),
                None => Ok(Progress::Drained),
            },
        }
    }

    fn interest(&self) -> Interest {
        Interest {
            readable: self.first.receive.taken,
            writable: self.first.transmit.taken,
            ..Interest::default()
        }
    }

    /// Who is at the other end is new to a console that goes on: neither has its input ended, nor does it refuse
    /// output.
    fn save(&self, state: &mut Writer) -> Result<(), NotSaved> {
        if self.ports.is_some() {
            return Err(NotSaved::Outside);
        }
        let Held {
            chain,
            taken,
            cursor,
            done,
        } = &self.first.transmit;
        state.u64(if *taken { cursor.done(chain.readable()) } else { *done });
        Ok(())
    }

    fn load(&mut self, state: &mut Reader<'_>) -> Result<(), StateError> {
        if self.ports.is_some() {
            return Err(StateError::value(
                "a console without ports",
                self.queue_sizes().len() as u64,
            ));
        }
        self.first.transmit.done = state.u64()?;
        Ok(())
    }

    fn holds_output(&self) -> bool {
        self.ports.as_ref().is_some_and(|ports| ports.have_output())
    }

    fn stop(&mut self, queue: usize) {
        match queue {
            RECEIVE => self.first.receive.taken = false,
            TRANSMIT => (self.first.transmit.taken, self.first.transmit.done) = (false, 0),
            queue => {
                if let Some(ports) = &mut self.ports {
                    ports.stop(queue);
                }
            }
        }
    }

    fn reset(&mut self) {
        self.first.reset();
        if let Some(ports) = &mut self.ports {
            ports.reset();
        }
    }
}
