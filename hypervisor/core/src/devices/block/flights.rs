//! Requests that the disk has begun and not finished.
//!
//! What is kept of a request is what its answer needs, checked when the request was taken: the
//! guest cannot change it any more.

use alloc::vec::Vec;

use chiton_shared::virtio::ring::Buffer;

/// How many requests of a disk are in flight at most, of all queues together.
pub const IN_FLIGHT: u16 = 128;

/// A request that the disk works on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    /// The queue it came from.
    pub(super) queue: usize,
    /// The chain to give back.
    pub(super) head: u16,
    /// The byte for the status, which a device may write.
    pub(super) status: Buffer,
    /// How many bytes of the chain the device may write.
    pub(super) room: u64,
    /// How many of them it had written when the flight began.
    pub(super) filled: u32,
    /// How many the flight adds if it ends well.
    pub(super) fills: u32,
}

/// Those in flight, by tag.
#[derive(Debug, Default)]
pub(super) struct Flights {
    /// Grows as far as requests are in flight at once.
    list: Vec<Option<Flight>>,
    free: Vec<u16>,
    /// How many the disk has not finished.
    under_way: u16,
}

impl Flights {
    /// The tag that the next flight gets, if there is room for one.
    pub(super) fn next(&self) -> Option<u16> {
        let fresh = self.list.len() as u16;
        self.free.last().copied().or((fresh < IN_FLIGHT).then_some(fresh))
    }

    /// Keeps a flight under the [`next`](Self::next) tag.
    pub(super) fn add(&mut self, flight: Flight) {
        match self.free.pop() {
            Some(tag) => self.list[usize::from(tag)] = Some(flight),
            None => self.list.push(Some(flight)),
        }
        self.under_way += 1;
    }

    /// How many the disk has not finished.
    pub(super) const fn under_way(&self) -> u16 {
        self.under_way
    }

    /// The disk has finished this one: tells which queue it is of.
    pub(super) fn land(&mut self, tag: u16) -> Option<usize> {
        let flight = self.list.get(usize::from(tag))?.as_ref()?;
        self.under_way -= 1;
        Some(flight.queue)
    }

    /// Forgets one that has [landed](Self::land), whose tag is free then.
    pub(super) fn remove(&mut self, tag: u16) -> Option<Flight> {
        let flight = self.list.get_mut(usize::from(tag))?.take()?;
        self.free.push(tag);
        Some(flight)
    }
}
