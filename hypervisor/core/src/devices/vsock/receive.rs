//! Packets to the guest.

use chiton_shared::virtio::vsock::{Header, op, shutdown};

use super::connection::{Due, ROOM};
use super::{BYTES_PER_CALL, MAX_RESETS, QUEUE_SIZE, Sockets, Vsock};
use crate::devices::buffers::{Cursor, Windows};
use crate::devices::console::Input;
use crate::devices::{DeviceError, Progress, Ring};

impl<S: Sockets> Vsock<S> {
    /// Gives the guest what is due, as far as it has given buffers.
    pub(super) fn receive(&mut self, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let more_events = self.hear_host();
        let mut budget = BYTES_PER_CALL;
        let mut sent = 0;
        while sent < QUEUE_SIZE && budget > 0 {
            // Taken even if nothing is due, so that a broken queue is noticed when it breaks.
            self.held = self.held || ring.pop(&mut self.receive)?;
            if !self.held {
                return Ok(self.after_receive(more_events, Progress::Drained));
            }
            if self.resets.is_empty() && self.due.is_empty() {
                return Ok(self.after_receive(more_events, Progress::Waiting));
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
}
