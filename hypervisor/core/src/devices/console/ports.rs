//! Ports beyond the first, and the control messages by which both sides tell of them (virtio 1.3
//! section 5.3.6).
//!
//! ```text
//!  driver                                device
//!  DEVICE_READY ───────────────────────▶
//!                ◀─────────────────────── PORT_ADD, for each port
//!  PORT_READY, for each ───────────────▶
//!                ◀─────────────────────── CONSOLE_PORT or PORT_NAME, RESIZE, PORT_OPEN
//!  PORT_OPEN when somebody uses it ────▶
//! ```
//!
//! Nothing is queued: what the device has to say follows from what it has said and how things are, so
//! a driver that never listens, or asks again and again, costs no memory.

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use chiton_shared::virtio::console::{CONTROL_RECEIVE, CONTROL_TRANSMIT, Control, event, port_receive};
use chiton_shared::virtio::ring::Chain;

use super::super::buffers::{Cursor, Windows};
use super::super::{DeviceError, Progress, Ring};
use super::{Lane, NamedPort, Port, QUEUE_SIZE};

/// How many ports there can be besides the first.
pub const MAX_PORTS: usize = 8;

/// The longest name of a port, in bytes.
pub const MAX_NAME: usize = 64;

/// The longest control message, in bytes.
const MAX_MESSAGE: usize = Control::SIZE + MAX_NAME;

/// The ports beyond the first, and what the driver knows of all.
pub(super) struct Ports {
    ports: Vec<Extra>,
    sizes: Vec<u16>,
    /// What the driver knows of each port, the first included.
    known: Vec<Known>,
    /// The feature is negotiated.
    negotiated: bool,
}

struct Extra {
    name: String,
    lane: Lane<Box<dyn Port>>,
    /// The guest uses it.
    open: bool,
}

/// What the driver knows of a port.
#[derive(Clone, Copy, Default)]
struct Known {
    /// That it shall be told of the port, and has not been yet.
    to_add: bool,
    /// The driver is ready for messages about it.
    ready: bool,
    /// Its name, or that it is a console.
    named: bool,
    size: (u16, u16),
    open: bool,
}

/// How a port is.
struct Now {
    size: (u16, u16),
    open: bool,
}

impl Ports {
    pub(super) fn new(ports: Vec<NamedPort>) -> Self {
        let ports: Vec<_> = ports
            .into_iter()
            .map(|(mut name, port)| {
                while name.len() > MAX_NAME {
                    name.pop();
                }
                Extra {
                    name,
                    lane: Lane::new(port),
                    open: false,
                }
            })
            .collect();
        Self {
            sizes: vec![QUEUE_SIZE; port_receive(ports.len() + 1)],
            known: vec![Known::default(); 1 + ports.len()],
            ports,
            negotiated: false,
        }
    }

    /// How many there are.
    pub(super) const fn count(&self) -> usize {
        self.ports.len()
    }

    pub(super) fn queue_sizes(&self) -> &[u16] {
        &self.sizes
    }

    pub(super) const fn negotiated(&mut self, multiport: bool) {
        self.negotiated = multiport;
    }

    /// Whether output waits for somebody to take it.
    pub(super) fn have_output(&self) -> bool {
        self.ports.iter().any(|port| port.lane.transmit.taken)
    }

    /// Works on a queue beyond those of the first port, whose console has this size.
    pub(super) fn process(
        &mut self,
        queue: usize,
        ring: &mut Ring<'_, '_>,
        size: (u16, u16),
    ) -> Result<Progress, DeviceError> {
        if !self.negotiated {
            return Ok(Progress::Waiting);
        }
        match queue {
            CONTROL_RECEIVE => self.tell(ring, size),
            CONTROL_TRANSMIT => self.hear(ring),
            queue => {
                let Some(port) = self.of_queue(queue) else {
                    return Ok(Progress::Drained);
                };
                if !queue.is_multiple_of(2) {
                    return port.lane.transmit(ring);
                }
                // Input waits where it is until the guest wants it. It may also bring the end of the
                // connection, which the driver is told when its turn comes again.
                if !port.open || !port.lane.port.is_open() {
                    return Ok(Progress::Waiting);
                }
                let progress = port.lane.receive(ring)?;
                Ok(if port.lane.port.is_open() {
                    progress
                } else {
                    Progress::More
                })
            }
        }
    }

    fn of_queue(&mut self, queue: usize) -> Option<&mut Extra> {
        self.ports.get_mut((queue / 2).checked_sub(2)?)
    }

    /// Tells the driver what it does not know.
    fn tell(&mut self, ring: &mut Ring<'_, '_>, size: (u16, u16)) -> Result<Progress, DeviceError> {
        let mut chain = Box::<Chain>::default();
        let mut windows = Windows::new();
        let mut came = false;
        for port in 0..self.known.len() {
            let mut known = self.known[port];
            let now = match port.checked_sub(1).and_then(|extra| self.ports.get_mut(extra)) {
                Some(extra) => {
                    let port = &mut extra.lane.port;
                    let was_open = port.is_open();
                    if !was_open && !known.open {
                        port.let_in();
                    }
                    let now = Now {
                        size: port.size(),
                        open: port.is_open(),
                    };
                    if now.open && !was_open {
                        came = true;
                        extra.lane.begin_input();
                    }
                    now
                }
                None => Now { size, open: true },
            };
            let mut message = [0; MAX_MESSAGE];
            while let Some(len) = self.next_message(port, &mut known, &now, &mut message) {
                if !ring.pop(&mut chain)? {
                    return Ok(Progress::Drained);
                }
                Cursor::default().gather(chain.writable(), ring.memory(), len, &mut windows)?;
                if windows.bytes() < len {
                    return Err(DeviceError::NoRoom { head: chain.head() });
                }
                windows.write(&message[..len]);
                ring.push(chain.head(), len as u32);
                self.known[port] = known;
                // Who waits may come in now.
                came |= !known.open;
            }
        }
        Ok(if came { Progress::More } else { Progress::Waiting })
    }

    /// The next message about a port, and how long it is; `known` is then what the driver knows.
    fn next_message(&self, port: usize, known: &mut Known, now: &Now, to: &mut [u8; MAX_MESSAGE]) -> Option<usize> {
        let mut size = [0; 4];
        let (event, value, more): (u16, u16, &[u8]) = if known.to_add {
            known.to_add = false;
            (event::PORT_ADD, 1, &[])
        } else if !known.ready {
            return None;
        } else if !known.named {
            known.named = true;
            match port.checked_sub(1).and_then(|extra| self.ports.get(extra)) {
                Some(extra) => (event::PORT_NAME, 1, extra.name.as_bytes()),
                None => (event::CONSOLE_PORT, 1, &[]),
            }
        } else if known.size != now.size {
            known.size = now.size;
            size[..2].copy_from_slice(&now.size.0.to_le_bytes());
            size[2..].copy_from_slice(&now.size.1.to_le_bytes());
            (event::RESIZE, 0, &size)
        } else if known.open != now.open {
            known.open = now.open;
            (event::PORT_OPEN, u16::from(now.open), &[])
        } else {
            return None;
        };
        let control = Control {
            port: port as u32,
            event,
            value,
        };
        to[..Control::SIZE].copy_from_slice(&control.to_bytes());
        let len = Control::SIZE + more.len();
        to[Control::SIZE..len].copy_from_slice(more);
        Some(len)
    }

    /// Hears what the driver has to say.
    fn hear(&mut self, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let mut chain = Box::<Chain>::default();
        let mut heard = false;
        for _ in 0..QUEUE_SIZE {
            if !ring.pop(&mut chain)? {
                // What there is to answer, and input of a port that is open now, is in other queues.
                return Ok(if heard { Progress::More } else { Progress::Drained });
            }
            let mut bytes = [0; Control::SIZE];
            let len = Cursor::default().read(chain.readable(), ring.memory(), &mut bytes)?;
            if len == bytes.len() {
                self.heard(Control::from_bytes(&bytes));
                heard = true;
            }
            ring.push(chain.head(), 0);
        }
        Ok(Progress::More)
    }

    /// A message came; one that makes no sense is passed over.
    fn heard(&mut self, control: Control) {
        let port = usize::try_from(control.port).unwrap_or(usize::MAX);
        let yes = control.value == 1;
        match control.event {
            event::DEVICE_READY => {
                let known = Known {
                    to_add: yes,
                    ..Known::default()
                };
                self.known.fill(known);
            }
            event::PORT_READY => {
                if let Some(known) = self.known.get_mut(port) {
                    let to_add = known.to_add;
                    *known = Known {
                        to_add,
                        ready: yes,
                        ..Known::default()
                    };
                }
            }
            event::PORT_OPEN => {
                let extra = port.checked_sub(1).and_then(|extra| self.ports.get_mut(extra));
                if let Some(extra) = extra
                    && extra.open != yes
                {
                    extra.open = yes;
                    extra.lane.port.guest_opened(yes);
                }
            }
            _ => {}
        }
    }

    pub(super) fn stop(&mut self, queue: usize) {
        if let Some(extra) = self.of_queue(queue) {
            if queue.is_multiple_of(2) {
                extra.lane.receive.taken = false;
            } else {
                extra.lane.transmit.taken = false;
            }
        }
    }

    pub(super) fn reset(&mut self) {
        self.negotiated = false;
        self.known.fill(Known::default());
        for extra in &mut self.ports {
            extra.lane.reset();
            if extra.open {
                extra.open = false;
                extra.lane.port.guest_opened(false);
            }
        }
    }
}
