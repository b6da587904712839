//! The driver side of a packed virtqueue.

use super::position::Position;
use super::{event, layout};
use crate::descriptor::Descriptor;
use crate::driver::{Lent, Options};
use crate::layout::{DESCRIPTOR, F_INDIRECT, F_NEXT, F_WRITE};
use crate::memory::Window;
use crate::{Areas, Buffer, DriverError};

/// What the driver remembers of a packed queue.
///
/// A buffer ID is a number below the queue's size that no chain in flight has. In order it is the
/// slot of the chain's first descriptor, so that the oldest chain is the one at `next_used`.
#[derive(Debug)]
pub(crate) struct Driver<const N: usize> {
    options: Options,
    /// Chains the free IDs.
    next: [u16; N],
    /// The chains in flight, by their IDs.
    lent: [Lent; N],
    first_free: u16,
    free: u16,
    next_avail: Position,
    next_used: Position,
    /// How many descriptors were made available since the device was last considered for a kick,
    /// or as many as can be told.
    untold: u16,
    /// In order: ID of the last chain of a batch that the device used by a single descriptor, and
    /// how much it wrote there (section 2.8.8).
    batch: Option<(u16, u32)>,
}

impl<const N: usize> Driver<N> {
    pub(crate) fn new(size: u16, options: Options) -> Self {
        let mut next = [0; N];
        for (i, n) in next.iter_mut().enumerate() {
            *n = i as u16 + 1;
        }
        Self {
            options,
            next,
            lent: [Lent::default(); N],
            first_free: 0,
            free: size,
            next_avail: Position::START,
            next_used: Position::START,
            untold: 0,
            batch: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn start_at(&mut self, index: u16, size: u16) {
        self.next_avail = Position::from_start(index, size);
        self.next_used = self.next_avail;
    }

    pub(crate) const fn free(&self) -> u16 {
        self.free
    }

    pub(crate) const fn options(&self) -> Options {
        self.options
    }

    pub(crate) const fn next_available(&self) -> u16 {
        self.next_avail.bits()
    }

    /// The chains in flight, by their heads, among those that are not.
    pub(crate) const fn lent_mut(&mut self) -> &mut [Lent; N] {
        &mut self.lent
    }

    /// Adds buffers that are checked, for which there are descriptors.
    pub(crate) fn add(&mut self, size: u16, areas: &Areas<'_>, buffers: &[Buffer], room: u32) -> u16 {
        let id = self.lend(buffers.len() as u16, room);
        let ring = &areas.descriptors;
        let first = self.next_avail;
        let mut first_flags = 0;
        let mut at = first;
        for (i, buffer) in buffers.iter().enumerate() {
            let more = i + 1 < buffers.len();
            let flags = at.available() | if more { F_NEXT } else { 0 } | if buffer.write { F_WRITE } else { 0 };
            fill(ring, at.slot, buffer.address, buffer.len, id);
            if i == 0 {
                first_flags = flags;
            } else {
                ring.store_u16(layout::flags(at.slot), flags);
            }
            at = at.after(1, size);
        }
        self.make_available(areas, first_flags, at, buffers.len() as u16);
        id
    }

    /// Adds buffers that are checked by a table that has room for them.
    pub(crate) fn add_indirect(
        &mut self,
        size: u16,
        areas: &Areas<'_>,
        table: &Window<'_>,
        address: u64,
        buffers: &[Buffer],
        room: u32,
    ) -> u16 {
        let id = self.lend(1, room);
        for (i, buffer) in buffers.iter().enumerate() {
            let descriptor = Descriptor {
                address: buffer.address,
                len: buffer.len,
                third: 0,
                fourth: if buffer.write { F_WRITE } else { 0 },
            };
            descriptor.write(table, i);
        }
        let at = self.next_avail;
        let len = (buffers.len() * DESCRIPTOR) as u32;
        fill(&areas.descriptors, at.slot, address, len, id);
        self.make_available(areas, at.available() | F_INDIRECT, at.after(1, size), 1);
        id
    }

    /// Finds an ID for a chain.
    fn lend(&mut self, descriptors: u16, room: u32) -> u16 {
        let id = if self.options.in_order {
            self.next_avail.slot
        } else {
            let id = self.first_free;
            self.first_free = self.next[usize::from(id)];
            id
        };
        self.lent[usize::from(id)] = Lent { descriptors, room };
        id
    }

    /// Hands the first descriptor over, and with it the rest.
    fn make_available(&mut self, areas: &Areas<'_>, flags: u16, next: Position, descriptors: u16) {
        areas.descriptors.store_u16(layout::flags(self.next_avail.slot), flags);
        self.next_avail = next;
        self.free -= descriptors;
        self.untold = self.untold.saturating_add(descriptors);
    }

    pub(crate) fn wants_kick(&mut self, size: u16, areas: &Areas<'_>) -> bool {
        let moved = core::mem::take(&mut self.untold);
        event::is_wanted(&areas.device, self.options.event_idx, self.next_avail, moved, size)
    }

    pub(crate) fn take(&mut self, size: u16, areas: &Areas<'_>) -> Result<Option<(u16, u32)>, DriverError> {
        let (end, written) = match self.batch {
            Some(batch) => batch,
            None => match self.read_used(size, areas)? {
                Some(used) => used,
                None => return Ok(None),
            },
        };
        if !self.options.in_order {
            self.next[usize::from(end)] = self.first_free;
            self.first_free = end;
            return Ok(Some(self.give_up(size, end, written)));
        }
        let oldest = self.next_used.slot;
        if oldest == end {
            self.batch = None;
            return Ok(Some(self.give_up(size, oldest, written)));
        }
        self.batch = Some((end, written));
        // What has no descriptor of its own was used completely (section 2.8.8).
        let room = self.lent[usize::from(oldest)].room;
        Ok(Some(self.give_up(size, oldest, room)))
    }

    /// Reads the next used descriptor, if there is one, and checks it: a chain in flight, and not
    /// more written than there is room for.
    fn read_used(&self, size: u16, areas: &Areas<'_>) -> Result<Option<(u16, u32)>, DriverError> {
        let slot = self.next_used.slot;
        let flags = areas.descriptors.load_u16(layout::flags(slot));
        if !self.next_used.is_used(flags) {
            return Ok(None);
        }
        let id = areas.descriptors.read_u16(layout::id(slot));
        // Without WRITE the length means nothing (section 2.8.4).
        let written = if flags & F_WRITE == 0 {
            0
        } else {
            areas.descriptors.read_u32(layout::len(slot))
        };
        let lent = if id < size {
            self.lent[usize::from(id)]
        } else {
            Lent::default()
        };
        if lent.descriptors == 0 || written > lent.room {
            return Err(DriverError::Device { id: id.into() });
        }
        Ok(Some((id, written)))
    }

    fn give_up(&mut self, size: u16, id: u16, written: u32) -> (u16, u32) {
        let descriptors = core::mem::take(&mut self.lent[usize::from(id)].descriptors);
        self.free += descriptors;
        self.next_used = self.next_used.after(descriptors, size);
        (id, written)
    }

    pub(crate) fn arm(&self, areas: &Areas<'_>) -> bool {
        event::enable(&areas.driver, self.options.event_idx, self.next_used);
        let flags = areas.descriptors.load_u16(layout::flags(self.next_used.slot));
        self.batch.is_some() || self.next_used.is_used(flags)
    }

    pub(crate) fn disarm(&self, areas: &Areas<'_>) {
        event::disable(&areas.driver);
    }
}

/// Writes all of a descriptor but its flags.
fn fill(ring: &Window<'_>, slot: u16, address: u64, len: u32, id: u16) {
    ring.write_u64(layout::address(slot), address);
    ring.write_u32(layout::len(slot), len);
    ring.write_u16(layout::id(slot), id);
}
