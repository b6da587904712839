//! The socket driver (virtio 1.3 section 5.10).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use chiton_shared::virtio::ring::{Buffer, MAX_SIZE};
use chiton_shared::virtio::vsock::{Config, HOST_CID, Header, TYPE_STREAM, op, shutdown};

use super::VsockError;
use super::connection::{Connection, Ports, ROOM, State};
use crate::host::Host;
use crate::queue::{Exits, Queue, QueueError};

/// How many buffers there are for packets that come, and their size in bytes.
const BUFFERS: usize = 8;
const BUFFER: usize = 8 << 10;

/// How many bytes one packet carries at most.
const PACKET: usize = 16 << 10;

/// How many bytes may be on their way at a time.
const IN_FLIGHT: usize = 64 << 10;

/// How many connections may wait to be accepted, for each listener.
const BACKLOG: usize = 128;

/// The first port of those that the guest's own connections get.
const FIRST_PORT: u32 = 1 << 30;

/// A driver for the socket device.
///
/// Nothing is kicked but by [`flush`](Self::flush): see the [module](super).
#[derive(Debug)]
pub struct Driver<'m, H: Host> {
    receive: Queue<'m, H>,
    transmit: Queue<'m, H>,
    cid: u64,
    /// The memory of the packets that come, by the head of their chain.
    incoming: Vec<Option<Vec<u8>>>,
    /// The packets on their way, by the head of their chain.
    outgoing: Vec<Option<Vec<u8>>>,
    in_flight: usize,
    connections: BTreeMap<Ports, Connection>,
    /// By port, who waits to be accepted.
    listeners: BTreeMap<u32, VecDeque<Ports>>,
    /// Packets without bytes that are to be sent.
    replies: VecDeque<Header>,
    next_port: u32,
}

impl<'m, H: Host> Driver<'m, H> {
    /// A driver for the device with these queues and this configuration.
    ///
    /// # Errors
    ///
    /// [`VsockError::Configuration`]; [`VsockError::Device`] if the queues cannot be used.
    pub fn new(receive: Queue<'m, H>, transmit: Queue<'m, H>, config: &[u8]) -> Result<Self, VsockError> {
        let config = Config::from_bytes(config).ok_or(VsockError::Configuration)?;
        let mut driver = Self {
            receive,
            transmit,
            cid: config.guest_cid,
            incoming: (0..MAX_SIZE).map(|_| None).collect(),
            outgoing: (0..MAX_SIZE).map(|_| None).collect(),
            in_flight: 0,
            connections: BTreeMap::new(),
            listeners: BTreeMap::new(),
            replies: VecDeque::new(),
            next_port: FIRST_PORT,
        };
        for _ in 0..BUFFERS.min(usize::from(driver.receive.size())) {
            driver.give_room(alloc::vec![0; BUFFER])?;
        }
        Ok(driver)
    }

    /// The guest's context ID.
    #[must_use]
    pub const fn cid(&self) -> u64 {
        self.cid
    }

    /// How often the driver rang so far.
    #[must_use]
    pub const fn exits(&self) -> Exits {
        let (r, t) = (self.receive.exits(), self.transmit.exits());
        Exits {
            kicks: r.kicks + t.kicks,
            waits: r.waits + t.waits,
        }
    }

    /// Listens at a port.
    ///
    /// # Errors
    ///
    /// [`VsockError::PortTaken`].
    pub fn listen(&mut self, port: u32) -> Result<(), VsockError> {
        if self.listeners.contains_key(&port) {
            return Err(VsockError::PortTaken(port));
        }
        self.listeners.insert(port, VecDeque::new());
        Ok(())
    }

    /// Listens no more; who waits to be accepted is refused.
    pub fn unlisten(&mut self, port: u32) {
        for ports in self.listeners.remove(&port).unwrap_or_default() {
            self.connections.remove(&ports);
            self.reply(self.header(ports, op::RST));
        }
    }

    /// The next connection to a port, if there is one.
    ///
    /// # Errors
    ///
    /// [`VsockError::Device`].
    pub fn try_accept(&mut self, port: u32) -> Result<Option<Ports>, VsockError> {
        self.pump()?;
        Ok(self.listeners.get_mut(&port).and_then(VecDeque::pop_front))
    }

    /// Asks for a connection to a port of the host.
    ///
    /// # Errors
    ///
    /// [`VsockError::Device`].
    pub fn connect(&mut self, port: u32) -> Result<Ports, VsockError> {
        let ports = loop {
            let guest = self.next_port;
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
            let ports = Ports { guest, host: port };
            if !self.connections.contains_key(&ports) && !self.listeners.contains_key(&guest) {
                break ports;
            }
        };
        self.connections.insert(ports, Connection::new(State::Asked));
        self.reply(self.header(ports, op::REQUEST));
        self.pump()?;
        Ok(ports)
    }

    /// Whether the host has answered.
    ///
    /// # Errors
    ///
    /// [`VsockError::Refused`], and the connection is gone; [`VsockError::Device`].
    pub fn is_connected(&mut self, ports: Ports) -> Result<bool, VsockError> {
        self.pump()?;
        match self.connections.get(&ports).map(|c| c.state) {
            Some(State::Asked) => Ok(false),
            Some(State::Open | State::Reset) => Ok(true),
            Some(State::Refused) | None => {
                self.connections.remove(&ports);
                Err(VsockError::Refused(ports.host))
            }
        }
    }

    /// Copies bytes that are there: how many, 0 if no more will come, or `None` if there are none
    /// now.
    ///
    /// # Errors
    ///
    /// [`VsockError::Device`].
    pub fn try_read(&mut self, ports: Ports, to: &mut [u8]) -> Result<Option<usize>, VsockError> {
        self.pump()?;
        let Some(connection) = self.connections.get_mut(&ports) else {
            return Err(VsockError::Reset);
        };
        let taken = connection.take(to);
        if connection.owes_update() && connection.state == State::Open {
            let header = self.header(ports, op::CREDIT_UPDATE);
            self.reply(header);
            self.pump()?;
        }
        Ok(taken)
    }

    /// Hands bytes to the device, without a kick: how many, or `None` if the host has no room for
    /// any, or too many are on their way.
    ///
    /// # Errors
    ///
    /// [`VsockError::Reset`], [`VsockError::Closed`], [`VsockError::Device`].
    pub fn try_write(&mut self, ports: Ports, from: &[u8]) -> Result<Option<usize>, VsockError> {
        self.pump()?;
        let free = IN_FLIGHT.saturating_sub(self.in_flight);
        // What was due before goes first.
        let free = if self.replies.is_empty() && self.transmit.free() > 0 {
            free
        } else {
            0
        };
        let connection = self.connections.get(&ports).ok_or(VsockError::Reset)?;
        if connection.state == State::Reset {
            return Err(VsockError::Reset);
        }
        if !connection.can_send() {
            return Err(VsockError::Closed);
        }
        if from.is_empty() {
            return Ok(Some(0));
        }
        let len = from.len().min(connection.credit()).min(PACKET).min(free);
        if len == 0 {
            return Ok(None);
        }
        let header = Header {
            len: len as u32,
            ..self.header(ports, op::RW)
        };
        self.send(header, &from[..len])?;
        if let Some(connection) = self.connections.get_mut(&ports) {
            connection.sent(len as u32);
        }
        Ok(Some(len))
    }

    /// Says that this side will not receive, or not send, any more ([`shutdown`]).
    ///
    /// # Errors
    ///
    /// [`VsockError::Device`].
    pub fn shut(&mut self, ports: Ports, flags: u32) -> Result<(), VsockError> {
        if let Some(connection) = self.connections.get_mut(&ports)
            && connection.shut | flags != connection.shut
            && connection.state == State::Open
        {
            connection.shut |= flags;
            let flags = connection.shut;
            self.reply(Header {
                flags,
                ..self.header(ports, op::SHUTDOWN)
            });
            self.pump()?;
        }
        Ok(())
    }

    /// Nobody here wants the connection any more. What was written still reaches the host.
    pub fn close(&mut self, ports: Ports) {
        let Some(connection) = self.connections.remove(&ports) else {
            return;
        };
        match connection.state {
            State::Open => {
                // The device answers by RST, which nobody waits for.
                let header = Self::header_of(self.cid, ports, op::SHUTDOWN, &connection);
                self.reply(Header {
                    flags: shutdown::BOTH,
                    ..header
                });
            }
            State::Asked => self.reply(self.header(ports, op::RST)),
            State::Refused | State::Reset => {}
        }
        // Whoever uses a socket next hears of an error.
        let _ = self.pump();
    }

    /// Has the host take what was written.
    ///
    /// # Errors
    ///
    /// [`VsockError::Device`].
    pub fn flush(&mut self) -> Result<(), VsockError> {
        self.pump()?;
        self.transmit.kick();
        self.receive.kick();
        Ok(())
    }

    /// Has the device tell of packets that come, and of room for others, and tells whether there
    /// is something already.
    ///
    /// # Errors
    ///
    /// [`VsockError::Device`].
    pub fn arm(&mut self) -> Result<bool, VsockError> {
        self.pump()?;
        let mut news = self.receive.arm();
        if self.in_flight >= IN_FLIGHT || !self.replies.is_empty() || self.transmit.free() == 0 {
            news |= self.transmit.arm();
        }
        Ok(news)
    }

    /// Sleeps until there is news, or for `ns` nanoseconds ([`u64::MAX`]: for ever). It may return
    /// early.
    ///
    /// # Errors
    ///
    /// [`VsockError::Device`].
    pub fn sleep(&mut self, ns: u64) -> Result<(), VsockError> {
        if ns == 0 || self.arm()? {
            return self.pump().map(|_| ());
        }
        self.receive.sleep(ns);
        if !self.pump()? {
            // Something else had news, or this device has stopped.
            self.receive.ask()?;
        }
        Ok(())
    }

    /// Takes what has come, and sends what is due; whether anything happened.
    fn pump(&mut self) -> Result<bool, VsockError> {
        let mut happened = false;
        while let Some((head, _)) = self.transmit.take()? {
            let packet = self.outgoing.get_mut(usize::from(head)).and_then(Option::take);
            self.in_flight -= packet.map_or(0, |packet| packet.len());
            happened = true;
        }
        self.send_replies()?;
        // Each packet has at most one reply: as many can wait as there are packets.
        while self.replies.len() < usize::from(self.transmit.size()) {
            let Some((head, len)) = self.receive.take()? else { break };
            happened = true;
            let Some(memory) = self.incoming.get_mut(usize::from(head)).and_then(Option::take) else {
                continue;
            };
            let packet = &memory[..(len as usize).min(memory.len())];
            if let Some((bytes, body)) = packet.split_first_chunk() {
                self.arrived(&Header::from_bytes(bytes), body);
            }
            self.give_room(memory)?;
        }
        self.send_replies()?;
        Ok(happened)
    }

    fn send_replies(&mut self) -> Result<(), VsockError> {
        while self.transmit.free() > 0
            && let Some(header) = self.replies.pop_front()
        {
            self.send(header, &[])?;
        }
        Ok(())
    }

    fn give_room(&mut self, mut memory: Vec<u8>) -> Result<(), QueueError> {
        let buffer = Buffer::writable(memory.as_mut_ptr().expose_provenance() as u64, memory.len() as u32);
        // SAFETY: the memory stands in `incoming`, untouched, until its chain comes back.
        let head = unsafe { self.receive.add(&[buffer]) }?;
        self.incoming[usize::from(head)] = Some(memory);
        Ok(())
    }

    fn reply(&mut self, header: Header) {
        self.replies.push_back(header);
    }

    /// Puts a packet on its way; the queue has room.
    fn send(&mut self, header: Header, body: &[u8]) -> Result<(), QueueError> {
        let ports = Ports {
            guest: header.src_port,
            host: header.dst_port,
        };
        let mut header = header;
        if let Some(connection) = self.connections.get_mut(&ports) {
            connection.told = connection.read;
            header.fwd_cnt = connection.read;
        }
        let mut packet = Vec::with_capacity(Header::SIZE + body.len());
        packet.extend_from_slice(&header.to_bytes());
        packet.extend_from_slice(body);
        let buffer = Buffer::readable(packet.as_ptr().expose_provenance() as u64, packet.len() as u32);
        // SAFETY: the packet stands in `outgoing`, untouched, until its chain comes back.
        let head = unsafe { self.transmit.add(&[buffer]) }?;
        self.in_flight += packet.len();
        self.outgoing[usize::from(head)] = Some(packet);
        Ok(())
    }

    fn header(&self, ports: Ports, op: u16) -> Header {
        let none = Connection::new(State::Asked);
        Self::header_of(self.cid, ports, op, self.connections.get(&ports).unwrap_or(&none))
    }

    const fn header_of(cid: u64, ports: Ports, op: u16, connection: &Connection) -> Header {
        Header {
            src_cid: cid,
            dst_cid: HOST_CID,
            src_port: ports.guest,
            dst_port: ports.host,
            len: 0,
            kind: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc: ROOM,
            fwd_cnt: connection.read,
        }
    }

    /// A packet has come.
    fn arrived(&mut self, header: &Header, body: &[u8]) {
        let ports = Ports {
            guest: header.dst_port,
            host: header.src_port,
        };
        let known = header.src_cid == HOST_CID && header.dst_cid == self.cid && header.kind == TYPE_STREAM;
        if !known {
            return;
        }
        if header.op == op::REQUEST {
            return self.requested(ports, header);
        }
        let Some(connection) = self.connections.get_mut(&ports) else {
            if header.op != op::RST {
                self.reply(self.header(ports, op::RST));
            }
            return;
        };
        connection.hear(header);
        match (header.op, connection.state) {
            (op::RESPONSE, State::Asked) => connection.state = State::Open,
            (op::RST, State::Asked) => connection.state = State::Refused,
            (op::RST, _) => connection.state = State::Reset,
            (op::SHUTDOWN, State::Open) => connection.host_shut |= header.flags,
            (op::CREDIT_UPDATE, _) => {}
            (op::CREDIT_REQUEST, _) => self.reply(self.header(ports, op::CREDIT_UPDATE)),
            (op::RW, State::Open) if header.len as usize <= body.len() && header.len as usize <= connection.room() => {
                connection.receive(&body[..header.len as usize]);
            }
            _ => {
                connection.state = State::Reset;
                self.reply(self.header(ports, op::RST));
            }
        }
    }

    /// The host asks for a connection.
    fn requested(&mut self, ports: Ports, header: &Header) {
        let known = self.connections.contains_key(&ports);
        let backlog = self.listeners.get_mut(&ports.guest);
        match backlog.filter(|backlog| !known && backlog.len() < BACKLOG) {
            Some(backlog) => {
                let mut connection = Connection::new(State::Open);
                connection.hear(header);
                backlog.push_back(ports);
                self.connections.insert(ports, connection);
                self.reply(self.header(ports, op::RESPONSE));
            }
            None => self.reply(self.header(ports, op::RST)),
        }
    }
}

impl<H: Host> Drop for Driver<'_, H> {
    /// The packets on their way are about to be freed: the device must not touch them any more.
    fn drop(&mut self) {
        self.receive.give_up();
        self.transmit.give_up();
    }
}
