//! One connection as the guest sees it.

use alloc::collections::VecDeque;

use chiton_shared::virtio::vsock::{Header, shutdown};

/// How many bytes of a connection wait at most for the guest to read them.
pub(super) const ROOM: u32 = 64 << 10;

/// The two ports that name a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// The guest's.
    pub guest: u32,
    /// The host's.
    pub host: u32,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The guest has asked.
    Asked,
    /// Bytes flow.
    Open,
    /// The host has refused it.
    Refused,
    /// The host has ended it. What came before can be read.
    Reset,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) state: State,
    received: VecDeque<u8>,
    /// How many bytes were read, how many of them the host knows of.
    pub(super) read: u32,
    pub(super) told: u32,
    /// How many bytes were sent, and what the host says of them and of its room.
    sent: u32,
    host_read: u32,
    host_room: u32,
    /// What the host will not do any more, of [`shutdown`].
    pub(super) host_shut: u32,
    /// What this side will not do any more.
    pub(super) shut: u32,
}

impl Connection {
    pub(super) const fn new(state: State) -> Self {
        Self {
            state,
            received: VecDeque::new(),
            read: 0,
            told: 0,
            sent: 0,
            host_read: 0,
            host_room: 0,
            host_shut: 0,
            shut: 0,
        }
    }

    /// Takes down what a packet says of the host's room.
    pub(super) const fn hear(&mut self, header: &Header) {
        (self.host_room, self.host_read) = (header.buf_alloc, header.fwd_cnt);
    }

    /// How many bytes may be sent now.
    pub(super) const fn credit(&self) -> usize {
        self.host_room.saturating_sub(self.sent.wrapping_sub(self.host_read)) as usize
    }

    pub(super) const fn sent(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// How many bytes may still come.
    pub(super) fn room(&self) -> usize {
        (ROOM as usize).saturating_sub(self.received.len())
    }

    /// Bytes have come; after [`shutdown::RECEIVE`] nobody wants them.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        if self.shut & shutdown::RECEIVE == 0 {
            self.received.extend(bytes);
        } else {
            self.read = self.read.wrapping_add(bytes.len() as u32);
        }
    }

    /// Copies bytes that have come: how many, 0 if no more will come, `None` if there are none now.
    pub(super) fn take(&mut self, to: &mut [u8]) -> Option<usize> {
        let len = to.len().min(self.received.len());
        if len == 0 {
            let ended = self.state == State::Reset
                || self.host_shut & shutdown::SEND != 0
                || self.shut & shutdown::RECEIVE != 0
                || to.is_empty();
            return ended.then_some(0);
        }
        for (to, from) in to.iter_mut().zip(self.received.drain(..len)) {
            *to = from;
        }
        self.read = self.read.wrapping_add(len as u32);
        Some(len)
    }

    /// Whether the host should be told that there is room again.
    pub(super) const fn owes_update(&self) -> bool {
        self.read.wrapping_sub(self.told) >= ROOM / 2
    }

    /// Whether this side can send at all.
    pub(super) fn can_send(&self) -> bool {
        self.state == State::Open && self.shut & shutdown::SEND == 0 && self.host_shut & shutdown::RECEIVE == 0
    }
}
