//! Socket device (virtio 1.3 section 5.10): streams between guest and host.
//!
//! - [`sockets`]: the host's side, a trait;
//! - `connection`: one connection and what is due to the guest about it;
//! - `credit`: who may send how much;
//! - `receive`: packets to the guest;
//! - `transmit`: packets from the guest;
//! - here: the device, and its table of connections.
//!
//! Bytes for the guest stay in the host's socket until the guest has given both a buffer and
//! credit. Bytes for the host wait here while its socket is full, `ROOM` for each connection at
//! the most: a guest that sends more than it was told there is room for loses the connection.
//! Connections are counted too, and so are answers to packets that belong to none: when
//! `MAX_RESETS` of them wait for a buffer, no packet is taken from the guest before it gives
//! some (section 5.10.6.1.2).

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

mod connection;
mod credit;
mod receive;
pub mod sockets;
mod transmit;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};

use chiton_shared::virtio::id;
use chiton_shared::virtio::ring::Chain;
use chiton_shared::virtio::vsock::{
    Config, EVENT, F_STREAM, HOST_CID, Header, RECEIVE, TRANSMIT, TYPE_STREAM, op, shutdown,
};

use super::console::Output;
use super::{Device, DeviceError, Interest, Progress, Ring};
use connection::{Connection, Ports, ROOM, State};
pub use sockets::{Event, Refused, Socket, Sockets};

/// Size of the queues of packets.
const QUEUE_SIZE: u16 = 128;
/// Size of the queue of events, of which there are none.
const EVENT_QUEUE_SIZE: u16 = 8;

/// How many connections there can be.
pub const MAX_CONNECTIONS: usize = 256;

/// How many answers without a connection may wait for a buffer before the guest's packets do.
const MAX_RESETS: usize = 64;

/// How many bytes one call moves at most in each direction, so that a flood leaves others their
/// turn.
const BYTES_PER_CALL: usize = 1 << 20;

/// How many events of the host one call takes.
const EVENTS_PER_CALL: usize = 128;

/// The first of the host's ports that are given to connections the host asks for.
const FIRST_PORT: u32 = 1 << 30;
/// How many of them there are.
const PORTS: u32 = 1 << 30;

/// The socket device.
pub struct Vsock<S> {
    cid: u64,
    host: S,
    connections: BTreeMap<Ports, Connection>,
    by_socket: BTreeMap<Socket, Ports>,
    /// Connections that have something due to the guest, each once.
    due: VecDeque<Ports>,
    /// Answers to packets that belong to no connection.
    resets: VecDeque<Header>,
    /// Since transmission last began, something has become due.
    new_due: bool,
    /// Transmission waits until there are fewer answers.
    stalled: bool,
    next_port: u32,
    /// A chain taken from the receive queue and not used yet.
    receive: Box<Chain>,
    held: bool,
    /// A chain was taken from the queue of events, for an event that never comes.
    event_held: bool,
    transmit: Box<Chain>,
    failures: u64,
}

impl<S: Sockets> Vsock<S> {
    /// A device for the guest with this context ID, connected to these sockets of the host.
    #[must_use]
    pub fn new(cid: u64, host: S) -> Self {
        Self {
            cid,
            host,
            connections: BTreeMap::new(),
            by_socket: BTreeMap::new(),
            due: VecDeque::new(),
            resets: VecDeque::new(),
            new_due: false,
            stalled: false,
            next_port: 0,
            receive: Box::default(),
            held: false,
            event_held: false,
            transmit: Box::default(),
            failures: 0,
        }
    }

    /// Hears what happened on the host; whether there may be more.
    fn hear_host(&mut self) -> bool {
        for _ in 0..EVENTS_PER_CALL {
            match self.host.next_event() {
                None => return false,
                Some(Event::Asked { socket, port }) => self.asked(socket, port),
                Some(Event::Ready(socket)) => {
                    if let Some(ports) = self.by_socket.get(&socket).copied() {
                        if let Some(connection) = self.connections.get_mut(&ports) {
                            connection.readable = true;
                        }
                        self.flush(ports);
                    }
                }
                Some(Event::Lost(socket)) => {
                    if let Some(ports) = self.by_socket.get(&socket).copied() {
                        self.kill(ports);
                    }
                }
            }
        }
        true
    }

    /// Somebody on the host wants a connection.
    fn asked(&mut self, socket: Socket, guest: u32) {
        if self.connections.len() >= MAX_CONNECTIONS {
            self.host.close(socket);
            return;
        }
        let ports = loop {
            let host = FIRST_PORT + self.next_port;
            self.next_port = (self.next_port + 1) % PORTS;
            let ports = Ports { guest, host };
            if !self.connections.contains_key(&ports) {
                break ports;
            }
        };
        self.insert(ports, Connection::new(socket, State::Asked));
    }

    fn insert(&mut self, ports: Ports, connection: Connection) {
        self.by_socket.insert(connection.socket, ports);
        self.connections.insert(ports, connection);
        self.list(ports);
    }

    /// Puts a connection on the list if something is due to the guest.
    fn list(&mut self, ports: Ports) {
        let connection = self.connections.get_mut(&ports);
        if let Some(connection) = connection.filter(|c| !c.listed && c.is_due()) {
            connection.listed = true;
            self.due.push_back(ports);
            self.new_due = true;
        }
    }

    /// Forgets a connection.
    fn remove(&mut self, ports: Ports) {
        if let Some(connection) = self.connections.remove(&ports) {
            self.by_socket.remove(&connection.socket);
            if connection.listed {
                self.due.retain(|listed| *listed != ports);
            }
            self.host.close(connection.socket);
        }
    }

    /// Ends a connection, and tells the guest.
    fn kill(&mut self, ports: Ports) {
        self.remove(ports);
        let header = self.header(ports, op::RST);
        self.answer(header);
    }

    fn answer(&mut self, header: Header) {
        self.resets.push_back(header);
        self.new_due = true;
    }

    /// A packet to the guest, without what belongs to a connection.
    const fn header(&self, ports: Ports, op: u16) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.cid,
            src_port: ports.host,
            dst_port: ports.guest,
            len: 0,
            kind: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }

    /// Gives the host what waits for it, as far as it takes it, and does what then is to be done.
    fn flush(&mut self, ports: Ports) {
        let Some(connection) = self.connections.get_mut(&ports) else {
            return;
        };
        if connection.state == State::Open {
            while !connection.waiting().is_empty() {
                let output = if connection.host_is_deaf() {
                    Output::Closed
                } else {
                    self.host.write(connection.socket, connection.waiting())
                };
                match output {
                    Output::Bytes(0) | Output::Full => break,
                    Output::Bytes(bytes) => connection.took(bytes),
                    Output::Closed => {
                        connection.host_will_not(shutdown::RECEIVE);
                        connection.took(ROOM as usize);
                    }
                }
            }
            let at_end = connection.guest_shut & shutdown::SEND != 0 && connection.waiting().is_empty();
            if at_end && !connection.finished {
                connection.finished = true;
                self.host.finish(connection.socket);
            }
            if connection.is_over() {
                return self.kill(ports);
            }
        }
        self.list(ports);
    }
}

impl<S: Sockets> Device for Vsock<S> {
    fn id(&self) -> u32 {
        id::VSOCK
    }

    fn features(&self) -> u64 {
        F_STREAM
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE, EVENT_QUEUE_SIZE]
    }

    fn in_order(&self) -> bool {
        true
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        super::read_bytes(&Config { guest_cid: self.cid }.to_bytes(), offset, data);
    }

    fn process(&mut self, queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        match queue {
            RECEIVE => self.receive(ring),
            TRANSMIT => self.transmit(ring),
            EVENT => self.event(ring),
            _ => Ok(Progress::Drained),
        }
    }

    fn interest(&self) -> Interest {
        Interest {
            readable: true,
            writable: self.connections.values().any(|c| !c.waiting().is_empty()),
            ..Interest::default()
        }
    }

    fn stop(&mut self, queue: usize) {
        match queue {
            RECEIVE => self.held = false,
            EVENT => self.event_held = false,
            _ => {}
        }
    }

    fn reset(&mut self) {
        while let Some(ports) = self.connections.keys().next().copied() {
            self.remove(ports);
        }
        self.resets.clear();
        (self.held, self.event_held) = (false, false);
        (self.stalled, self.new_due) = (false, false);
    }

    fn failures(&self) -> u64 {
        self.failures
    }
}
