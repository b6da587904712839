//! One connection, and what is due to be told to the guest about it.
//!
//! ```text
//!   the host asks:   Asked ──RESPONSE──▶ Open
//!   the guest asks:                      Open     (the host has accepted by then)
//!
//!   Open ──RST from either side, or SHUTDOWN of both directions and all bytes out──▶ gone
//! ```

use alloc::vec::Vec;

use chiton_shared::virtio::vsock::{op, shutdown};

use super::credit::{FromGuest, ToGuest};
use super::sockets::Socket;

/// How many bytes of a connection wait at most for the host to take them.
pub(super) const ROOM: u32 = 64 << 10;

/// The two ports that name a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports {
    pub(super) guest: u32,
    pub(super) host: u32,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Somebody on the host wants it; the guest has not answered.
    Asked,
    /// Bytes flow.
    Open,
}

/// A packet that is due to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing but these.
    Control { op: u16, flags: u32 },
    /// Bytes of the host, if there are any.
    Bytes,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) state: State,
    pub(super) to_guest: ToGuest,
    pub(super) from_guest: FromGuest,
    /// Bytes that the host has not taken yet, from `taken` on.
    waiting: Vec<u8>,
    taken: usize,
    /// REQUEST or RESPONSE, if it is due.
    opening: Option<u16>,
    update_due: bool,
    /// The guest was asked for credit, and has not said anything since.
    asked_for_credit: bool,
    /// What the guest will not do any more, of [`shutdown`].
    pub(super) guest_shut: u32,
    /// What the host will not do any more, and what of that the guest knows.
    host_shut: u32,
    host_told: u32,
    /// The host was told that no more bytes follow.
    pub(super) finished: bool,
    /// The host may have bytes.
    pub(super) readable: bool,
    /// It stands in the list of connections with something due.
    pub(super) listed: bool,
}

impl Connection {
    pub(super) const fn new(socket: Socket, state: State) -> Self {
        Self {
            socket,
            state,
            to_guest: ToGuest::new(),
            from_guest: FromGuest::new(),
            waiting: Vec::new(),
            taken: 0,
            opening: Some(match state {
                State::Asked => op::REQUEST,
                State::Open => op::RESPONSE,
            }),
            update_due: false,
            asked_for_credit: false,
            guest_shut: 0,
            host_shut: 0,
            host_told: 0,
            finished: false,
            readable: true,
            listed: false,
        }
    }

    /// The next packet that is due to the guest, which is taken for sent; bytes are due until
    /// `readable` is false.
    pub(super) fn next_due(&mut self) -> Option<Due> {
        let control = |op| Some(Due::Control { op, flags: 0 });
        if let Some(op) = self.opening.take() {
            return control(op);
        }
        if self.state == State::Asked {
            return None;
        }
        if self.wants_bytes() {
            if self.to_guest.available() > 0 {
                return Some(Due::Bytes);
            }
            if !self.asked_for_credit {
                self.asked_for_credit = true;
                return control(op::CREDIT_REQUEST);
            }
        }
        if self.host_shut != self.host_told {
            self.host_told = self.host_shut;
            return Some(Due::Control {
                op: op::SHUTDOWN,
                flags: self.host_shut,
            });
        }
        if self.update_due || self.from_guest.untold() >= ROOM / 2 {
            self.update_due = false;
            return control(op::CREDIT_UPDATE);
        }
        None
    }

    /// Whether a packet is due; as [`next_due`](Self::next_due) says, but takes nothing.
    pub(super) fn is_due(&self) -> bool {
        self.opening.is_some()
            || self.state == State::Open
                && (self.wants_bytes() && (self.to_guest.available() > 0 || !self.asked_for_credit)
                    || self.host_shut != self.host_told
                    || self.update_due
                    || self.from_guest.untold() >= ROOM / 2)
    }

    const fn wants_bytes(&self) -> bool {
        self.readable && self.host_shut & shutdown::SEND == 0 && self.guest_shut & shutdown::RECEIVE == 0
    }

    /// The guest has sent a packet, with what it says of its credit.
    pub(super) const fn heard(&mut self) {
        self.asked_for_credit = false;
    }

    /// The guest asks for our credit.
    pub(super) const fn want_update(&mut self) {
        self.update_due = true;
    }

    /// The host will not do this any more.
    pub(super) const fn host_will_not(&mut self, flags: u32) {
        self.host_shut |= flags;
    }

    /// Whether the host takes no more bytes.
    pub(super) const fn host_is_deaf(&self) -> bool {
        self.host_shut & shutdown::RECEIVE != 0
    }

    /// Bytes that wait for the host.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.waiting[self.taken..]
    }

    /// How many bytes may still come from the guest.
    pub(super) fn room(&self) -> usize {
        (ROOM as usize).saturating_sub(self.waiting().len())
    }

    /// Room for `len` bytes that come from the guest, which must be no more than
    /// [`room`](Self::room).
    pub(super) fn append(&mut self, len: usize) -> &mut [u8] {
        self.waiting.drain(..self.taken);
        self.taken = 0;
        let start = self.waiting.len();
        self.waiting.resize(start + len, 0);
        &mut self.waiting[start..]
    }

    /// The host has taken so many bytes.
    pub(super) fn took(&mut self, bytes: usize) {
        let bytes = bytes.min(self.waiting().len());
        self.taken += bytes;
        self.from_guest.pass_on(bytes as u32);
        if self.taken == self.waiting.len() {
            self.waiting.clear();
            self.taken = 0;
        }
    }

    /// Whether the guest is done with the connection and the host has everything.
    pub(super) fn is_over(&self) -> bool {
        self.guest_shut == shutdown::BOTH && self.waiting().is_empty()
    }
}
