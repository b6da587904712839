//! The device side of a packed virtqueue.

use super::position::Position;
use super::{event, layout};
use crate::descriptor::{Descriptor, append};
use crate::device::Mark;
use crate::layout::{DESCRIPTOR, F_INDIRECT, F_NEXT, F_WRITE};
use crate::memory::GuestMemory;
use crate::{Areas, Chain, MAX_BYTES, MAX_SIZE, QueueError};

/// What the device remembers of a packed queue.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    indirect: bool,
    event_idx: bool,
    next_avail: Position,
    next_used: Position,
    /// How many descriptors were used since the driver was last considered for a notification, or
    /// as many as can be told.
    untold: u16,
    /// How many descriptors the chains have that the device has not given back.
    in_flight: u16,
    /// First of the entries of `chains` that are not in use.
    first_free: u16,
    chains: [Entry; MAX_SIZE as usize],
}

/// A chain that the device has, known outside by its index. The driver's buffer ID would not do:
/// nothing keeps a hostile driver from using one twice.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Its buffer ID; or, of an entry not in use, the index of the next such entry.
    id: u16,
    /// How many descriptors it has; 0 if the entry is not in use.
    descriptors: u16,
}

impl Device {
    pub(crate) const fn new(indirect: bool, event_idx: bool) -> Self {
        let mut chains = [Entry { id: 0, descriptors: 0 }; MAX_SIZE as usize];
        let mut i = 0;
        while i < chains.len() {
            chains[i].id = i as u16 + 1;
            i += 1;
        }
        Self {
            indirect,
            event_idx,
            next_avail: Position::START,
            next_used: Position::START,
            untold: 0,
            in_flight: 0,
            first_free: 0,
            chains,
        }
    }

    pub(crate) const fn mark(&self) -> Mark {
        Mark {
            used: self.next_used.bits(),
            untold: self.untold,
        }
    }

    /// Of a device that is at its start; false if the queue of this size has no such place.
    pub(crate) const fn resume(&mut self, mark: Mark, size: u16) -> bool {
        self.next_used = Position::of_bits(mark.used);
        self.next_avail = self.next_used;
        self.untold = mark.untold;
        self.next_used.slot < size
    }

    #[cfg(test)]
    pub(crate) fn start_at(&mut self, index: u16, size: u16) {
        self.next_avail = Position::from_start(index, size);
        self.next_used = self.next_avail;
    }

    #[inline]
    pub(crate) fn pop<M: GuestMemory + ?Sized>(
        &mut self,
        size: u16,
        areas: &Areas<'_>,
        memory: &M,
        chain: &mut Chain,
    ) -> Result<bool, QueueError> {
        let slot = self.next_avail.slot;
        let flags = areas.descriptors.load_u16(layout::flags(slot));
        if !self.next_avail.is_available(flags) {
            return Ok(false);
        }
        if self.in_flight >= size {
            return Err(QueueError::NotUsed(slot));
        }
        // Fewer chains than descriptors are in flight, so an entry is free.
        let token = self.first_free;
        chain.start(token);
        let (descriptors, id) = self.read_chain(size, areas, memory, flags, chain)?;
        if chain.bytes() > MAX_BYTES {
            return Err(QueueError::TooManyBytes);
        }
        let entry = &mut self.chains[usize::from(token)];
        self.first_free = entry.id;
        *entry = Entry { id, descriptors };
        self.in_flight += descriptors;
        self.next_avail = self.next_avail.after(descriptors, size);
        Ok(true)
    }

    /// Reads the next chain, whose first descriptor has these flags; returns how many descriptors
    /// it has in the ring, and its buffer ID.
    #[inline]
    fn read_chain<M: GuestMemory + ?Sized>(
        &self,
        size: u16,
        areas: &Areas<'_>,
        memory: &M,
        first: u16,
        chain: &mut Chain,
    ) -> Result<(u16, u16), QueueError> {
        let ring = &areas.descriptors;
        let (mut at, mut flags) = (self.next_avail, first);
        // The descriptors beyond are in flight, and not the driver's to make available.
        for count in 1..=size - self.in_flight {
            let address = ring.read_u64(layout::address(at.slot));
            let len = ring.read_u32(layout::len(at.slot));
            if flags & F_INDIRECT != 0 {
                // F_WRITE is to be ignored here (section 2.8.7).
                if !self.indirect || flags & F_NEXT != 0 || count > 1 {
                    return Err(QueueError::Indirect);
                }
                read_table(size, memory, address, len, chain)?;
            } else {
                append(chain, size, address, len, flags)?;
            }
            if flags & F_NEXT == 0 {
                // The last descriptor has the ID (section 2.8.6).
                return Ok((count, ring.read_u16(layout::id(at.slot))));
            }
            at = at.after(1, size);
            flags = ring.load_u16(layout::flags(at.slot));
        }
        Err(QueueError::ChainLength)
    }

    #[inline]
    pub(crate) fn push_all(&mut self, size: u16, areas: &Areas<'_>, chains: impl IntoIterator<Item = (u16, u32)>) {
        let publish = |(slot, flags)| areas.descriptors.store_u16(layout::flags(slot), flags);
        let mut used = chains
            .into_iter()
            .filter_map(|(token, written)| self.write_used(size, areas, token, written));
        // The driver reads them in order, so it sees none before the first.
        if let Some(first) = used.next() {
            used.for_each(publish);
            publish(first);
        }
    }

    /// Writes all of a used descriptor but its flags, and returns where they belong.
    #[inline]
    fn write_used(&mut self, size: u16, areas: &Areas<'_>, token: u16, written: u32) -> Option<(u16, u16)> {
        // A number that is no chain's has nothing to give back.
        let entry = self.chains.get_mut(usize::from(token)).filter(|e| e.descriptors != 0)?;
        let Entry { id, descriptors } = *entry;
        *entry = Entry {
            id: self.first_free,
            descriptors: 0,
        };
        self.first_free = token;
        let slot = self.next_used.slot;
        areas.descriptors.write_u32(layout::len(slot), written);
        areas.descriptors.write_u16(layout::id(slot), id);
        let flags = self.next_used.used() | if written == 0 { 0 } else { F_WRITE };
        self.next_used = self.next_used.after(descriptors, size);
        self.in_flight -= descriptors;
        self.untold = self.untold.saturating_add(descriptors);
        Some((slot, flags))
    }

    pub(crate) fn wants_notification(&mut self, size: u16, areas: &Areas<'_>) -> bool {
        let moved = core::mem::take(&mut self.untold);
        event::is_wanted(&areas.driver, self.event_idx, self.next_used, moved, size)
    }

    pub(crate) fn disable_kicks(&self, areas: &Areas<'_>) {
        event::disable(&areas.device);
    }

    pub(crate) fn enable_kicks(&self, areas: &Areas<'_>) -> bool {
        event::enable(&areas.device, self.event_idx, self.next_avail);
        self.has_available(areas)
    }

    /// Looks at the ring between here and there; what is behind is no more than a round away.
    pub(crate) fn has_come_to(&self, size: u16, areas: &Areas<'_>, next: u16) -> bool {
        let next = Position::of_bits(next);
        if next.slot >= size {
            return false;
        }
        let mut at = self.next_avail;
        let Some(ahead) = (0..=size).find(|_| {
            let there = at == next;
            at = at.after(1, size);
            there
        }) else {
            return true;
        };
        (0..ahead).all(|i| {
            let at = self.next_avail.after(i, size);
            at.is_available(areas.descriptors.load_u16(layout::flags(at.slot)))
        })
    }

    pub(crate) fn has_available(&self, areas: &Areas<'_>) -> bool {
        let flags = areas.descriptors.load_u16(layout::flags(self.next_avail.slot));
        self.next_avail.is_available(flags)
    }
}

/// Reads a table, in which descriptors follow one another, and no flag but WRITE and no ID mean
/// anything (section 2.8.7).
fn read_table<M: GuestMemory + ?Sized>(
    size: u16,
    memory: &M,
    address: u64,
    len: u32,
    chain: &mut Chain,
) -> Result<(), QueueError> {
    let unusable = QueueError::IndirectTable { address, len };
    let bytes = len as usize;
    let entries = bytes / DESCRIPTOR;
    if !bytes.is_multiple_of(DESCRIPTOR) || entries == 0 {
        return Err(unusable);
    }
    if entries > usize::from(size) {
        return Err(QueueError::ChainLength);
    }
    let window = memory.window(address, bytes).ok_or(unusable)?;
    for index in 0..entries {
        let descriptor = Descriptor::read(&window, index);
        append(chain, size, descriptor.address, descriptor.len, descriptor.fourth)?;
    }
    Ok(())
}
