//! Socket device (virtio 1.3 section 5.10): streams between guest and host.
//!
//! - [`sockets`]: the host's side, a trait;
//! - `connection`: one connection and what is due to the guest about it;
//! - `credit`: who may send how much;
//! - here: packets in and out of the queues.
//!
//! Bytes for the guest stay in the host's socket until the guest has given both a buffer and
//! credit. Bytes for the host wait here while its socket is full, [`ROOM`] for each connection at
//! the most: a guest that sends more than it was told there is room for loses the connection.
//! Connections are counted too, and so are answers to packets that belong to none: when
//! [`MAX_RESETS`] of them wait for a buffer, no packet is taken from the guest before it gives
//! some (section 5.10.6.1.2).

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

mod connection;
mod credit;
pub mod sockets;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};

use chiton_shared::virtio::id;
use chiton_shared::virtio::ring::Chain;
use chiton_shared::virtio::vsock::{Config, F_STREAM, HOST_CID, Header, RECEIVE, TRANSMIT, TYPE_STREAM, op, shutdown};

use super::buffers::{Cursor, Windows};
use super::console::{Input, Output};
use super::{Device, DeviceError, Interest, Progress, Ring};
use connection::{Connection, Due, Ports, ROOM, State};
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

    fn receive(&mut self, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let more_events = self.hear_host();
        let mut budget = BYTES_PER_CALL;
        let mut sent = 0;
        while sent < QUEUE_SIZE && budget > 0 {
            if self.resets.is_empty() && self.due.is_empty() {
                return Ok(self.after_receive(more_events, Progress::Waiting));
            }
            if !self.held {
                self.held = ring.pop(&mut self.receive)?;
                if !self.held {
                    return Ok(self.after_receive(more_events, Progress::Drained));
                }
            }
            if let Some(written) = self.send(ring, budget)? {
                self.held = false;
                ring.push(self.receive.head(), written);
                budget = budget.saturating_sub(written as usize);
                sent += 1;
            }
        }
        Ok(Progress::More)
    }

    fn after_receive(&mut self, more_events: bool, progress: Progress) -> Progress {
        let resumes = self.stalled && self.resets.len() < MAX_RESETS;
        self.stalled &= !resumes;
        if more_events || resumes {
            Progress::More
        } else {
            progress
        }
    }

    /// Writes the next packet that is due into the chain held; its size, or `None` if what seemed
    /// to be due is not.
    fn send(&mut self, ring: &Ring<'_, '_>, budget: usize) -> Result<Option<u32>, DeviceError> {
        let memory = ring.memory();
        let buffers = self.receive.writable();
        let mut head = Windows::new();
        let mut cursor = Cursor::default();
        cursor.gather(buffers, memory, Header::SIZE, &mut head)?;
        let no_room = DeviceError::NoRoom {
            head: self.receive.head(),
        };
        if head.bytes() < Header::SIZE {
            return Err(no_room);
        }
        if let Some(header) = self.resets.pop_front() {
            head.write(&header.to_bytes());
            return Ok(Some(Header::SIZE as u32));
        }
        let Some(ports) = self.due.pop_front() else {
            return Ok(None);
        };
        let mut header = self.header(ports, op::RW);
        let Some(connection) = self.connections.get_mut(&ports) else {
            return Ok(None);
        };
        connection.listed = false;
        let sent = match connection.next_due() {
            None => false,
            Some(Due::Control { op, flags }) => {
                (header.op, header.flags) = (op, flags);
                true
            }
            Some(Due::Bytes) => {
                let mut body = Windows::new();
                cursor.advance(buffers, Header::SIZE);
                let limit = connection.to_guest.available().min(budget);
                cursor.gather(buffers, memory, limit, &mut body)?;
                if body.bytes() == 0 {
                    return Err(no_room);
                }
                match self.host.read(connection.socket, body.as_slice()) {
                    Input::Bytes(bytes @ 1..) => {
                        header.len = bytes.min(body.bytes()) as u32;
                        connection.to_guest.sent(header.len);
                        true
                    }
                    Input::Bytes(0) | Input::Empty => {
                        connection.readable = false;
                        false
                    }
                    Input::End => {
                        connection.host_will_not(shutdown::SEND);
                        false
                    }
                }
            }
        };
        if sent {
            header.buf_alloc = ROOM;
            header.fwd_cnt = connection.from_guest.tell();
            head.write(&header.to_bytes());
        }
        self.list(ports);
        Ok(sent.then_some(Header::SIZE as u32 + header.len))
    }

    fn transmit(&mut self, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        self.new_due = false;
        let mut budget = BYTES_PER_CALL;
        let mut taken = 0;
        while taken < QUEUE_SIZE && budget > 0 {
            if self.resets.len() >= MAX_RESETS {
                self.stalled = true;
                return Ok(if self.new_due {
                    Progress::More
                } else {
                    Progress::Waiting
                });
            }
            if !ring.pop(&mut self.transmit)? {
                return Ok(if self.new_due {
                    Progress::More
                } else {
                    Progress::Drained
                });
            }
            let bytes = self.take_packet(ring)?;
            ring.push(self.transmit.head(), 0);
            budget = budget.saturating_sub(bytes);
            taken += 1;
        }
        Ok(Progress::More)
    }

    /// Does what the packet in the transmit chain asks for; how many bytes that moved.
    fn take_packet(&mut self, ring: &Ring<'_, '_>) -> Result<usize, DeviceError> {
        let mut windows = Windows::new();
        let mut cursor = Cursor::default();
        cursor.gather(self.transmit.readable(), ring.memory(), Header::SIZE, &mut windows)?;
        let mut bytes = [0; Header::SIZE];
        if windows.read(&mut bytes) < Header::SIZE {
            self.failures += 1;
            return Ok(0);
        }
        cursor.advance(self.transmit.readable(), Header::SIZE);
        let header = Header::from_bytes(&bytes);
        let Some(ports) = self.accept_header(&header) else {
            return Ok(Header::SIZE);
        };
        match header.op {
            op::REQUEST => self.request(ports, &header),
            op::RST => self.remove(ports),
            op::RW => self.bytes(ports, &header, cursor, ring)?,
            _ => self.control(ports, &header),
        }
        Ok(Header::SIZE + header.len as usize)
    }

    /// Checks what holds for every packet; the ports if it is to be worked on.
    fn accept_header(&mut self, header: &Header) -> Option<Ports> {
        let ports = Ports {
            guest: header.src_port,
            host: header.dst_port,
        };
        if header.src_cid != self.cid {
            // Whom should an answer go to?
            self.failures += 1;
            return None;
        }
        if header.dst_cid != HOST_CID || header.kind != TYPE_STREAM {
            self.failures += 1;
            if header.op != op::RST {
                self.answer(Header {
                    src_cid: header.dst_cid,
                    kind: header.kind,
                    ..self.header(ports, op::RST)
                });
            }
            return None;
        }
        Some(ports)
    }

    /// The guest wants a connection.
    fn request(&mut self, ports: Ports, header: &Header) {
        if self.connections.contains_key(&ports) {
            self.failures += 1;
            return self.kill(ports);
        }
        let mut connection = Connection::new(Socket(0), State::Open);
        if self.connections.len() >= MAX_CONNECTIONS || connection.to_guest.hear(header).is_err() {
            return self.kill(ports);
        }
        match self.host.connect(ports.host) {
            Ok(socket) => {
                connection.socket = socket;
                self.insert(ports, connection);
            }
            Err(Refused) => self.kill(ports),
        }
    }

    /// Has the connection a packet belongs to hear of the guest's credit. If there is none, or it is
    /// lost by that, the guest is told.
    fn hear_guest(&mut self, ports: Ports, header: &Header) -> Option<&mut Connection> {
        let heard = self.connections.get_mut(&ports).map(|connection| {
            connection.heard();
            connection.to_guest.hear(header)
        });
        if heard == Some(Ok(())) {
            return self.connections.get_mut(&ports);
        }
        self.failures += u64::from(heard.is_some());
        self.kill(ports);
        None
    }

    /// A packet of an existing connection, without bytes.
    fn control(&mut self, ports: Ports, header: &Header) {
        let Some(connection) = self.hear_guest(ports, header) else {
            return;
        };
        let socket = connection.socket;
        match (header.op, connection.state) {
            (op::RESPONSE, State::Asked) => {
                connection.state = State::Open;
                self.host.accepted(socket, ports.host);
            }
            (op::SHUTDOWN, State::Open) => connection.guest_shut |= header.flags & shutdown::BOTH,
            (op::CREDIT_UPDATE, _) => {}
            (op::CREDIT_REQUEST, _) => connection.want_update(),
            _ => {
                self.failures += 1;
                return self.kill(ports);
            }
        }
        self.flush(ports);
    }

    /// Bytes for the host.
    fn bytes(
        &mut self,
        ports: Ports,
        header: &Header,
        mut cursor: Cursor,
        ring: &Ring<'_, '_>,
    ) -> Result<(), DeviceError> {
        let len = header.len as usize;
        let there = self.transmit.readable_bytes() - Header::SIZE as u64;
        let Some(connection) = self.hear_guest(ports, header) else {
            return Ok(());
        };
        let open = connection.state == State::Open && connection.guest_shut & shutdown::SEND == 0;
        if !open || len > connection.room() || len as u64 > there {
            self.failures += 1;
            self.kill(ports);
            return Ok(());
        }
        if let Some(connection) = self.connections.get_mut(&ports) {
            let mut to = connection.append(len);
            let buffers = self.transmit.readable();
            let mut windows = Windows::new();
            while !to.is_empty() {
                cursor.gather(buffers, ring.memory(), to.len(), &mut windows)?;
                let copied = windows.read(to);
                cursor.advance(buffers, copied);
                to = &mut to[copied..];
            }
        }
        self.flush(ports);
        Ok(())
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

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        super::read_bytes(&Config { guest_cid: self.cid }.to_bytes(), offset, data);
    }

    fn process(&mut self, queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        match queue {
            RECEIVE => self.receive(ring),
            TRANSMIT => self.transmit(ring),
            // Nothing happens that would be an event.
            _ => Ok(Progress::Waiting),
        }
    }

    fn interest(&self) -> Interest {
        Interest {
            readable: true,
            writable: self.connections.values().any(|c| !c.waiting().is_empty()),
        }
    }

    fn stop(&mut self, queue: usize) {
        if queue == RECEIVE {
            self.held = false;
        }
    }

    fn reset(&mut self) {
        while let Some(ports) = self.connections.keys().next().copied() {
            self.remove(ports);
        }
        self.resets.clear();
        (self.held, self.stalled, self.new_due) = (false, false, false);
    }

    fn failures(&self) -> u64 {
        self.failures
    }
}
