//! Packets from the guest.

use chiton_shared::virtio::vsock::{HOST_CID, Header, TYPE_STREAM, op, shutdown};

use super::connection::{Connection, Ports, State};
use super::sockets::{Refused, Socket};
use super::{BYTES_PER_CALL, MAX_CONNECTIONS, MAX_RESETS, QUEUE_SIZE, Sockets, Vsock};
use crate::devices::buffers::{Cursor, Windows};
use crate::devices::{DeviceError, Progress, Ring};

impl<S: Sockets> Vsock<S> {
    /// Does what the guest's packets ask for.
    pub(super) fn transmit(&mut self, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
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

    /// Takes a chain for an event, and keeps it: nothing happens that would be one.
    pub(super) fn event(&mut self, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        self.event_held = self.event_held || ring.pop(&mut self.transmit)?;
        Ok(if self.event_held {
            Progress::Waiting
        } else {
            Progress::Drained
        })
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
