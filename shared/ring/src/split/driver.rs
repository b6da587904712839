//! The driver side of a split virtqueue.

use core::sync::atomic::Ordering;

use super::layout::{AVAIL_NO_INTERRUPT, USED_NO_NOTIFY, avail, used};
use super::{passes, step};
use crate::descriptor::Descriptor;
use crate::driver::{Lent, Options};
use crate::layout::{DESCRIPTOR, F_INDIRECT, F_NEXT, F_WRITE};
use crate::memory::{Window, fence};
use crate::{Areas, Buffer, DriverError};

/// What the driver remembers of a split queue.
#[derive(Debug)]
pub(crate) struct Driver<const N: usize> {
    options: Options,
    /// Chains the free descriptors, and those of each chain in flight. In order they are a circle
    /// that never changes (section 2.7.5).
    next: [u16; N],
    /// The chains in flight, by their heads.
    lent: [Lent; N],
    first_free: u16,
    free: u16,
    next_avail: u16,
    next_used: u16,
    /// Value of `next_avail` when the device was last considered for a kick.
    told_avail: u16,
    /// In order: head of the oldest chain in flight.
    oldest: u16,
    /// In order: head of the last chain of a batch that the device used by a single entry, and how
    /// much it wrote there (section 2.7.9).
    batch: Option<(u16, u32)>,
}

impl<const N: usize> Driver<N> {
    pub(crate) fn new(size: u16, options: Options) -> Self {
        let mut next = [0; N];
        for (i, n) in next.iter_mut().enumerate() {
            let after = i as u16 + 1;
            *n = if after < size { after } else { 0 };
        }
        Self {
            options,
            next,
            lent: [Lent::default(); N],
            first_free: 0,
            free: size,
            next_avail: 0,
            next_used: 0,
            told_avail: 0,
            oldest: 0,
            batch: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn start_at(&mut self, index: u16) {
        (self.next_avail, self.next_used, self.told_avail) = (index, index, index);
    }

    pub(crate) const fn free(&self) -> u16 {
        self.free
    }

    pub(crate) const fn options(&self) -> Options {
        self.options
    }

    pub(crate) const fn next_available(&self) -> u16 {
        self.next_avail
    }

    /// The chains in flight, by their heads, among those that are not.
    pub(crate) const fn lent_mut(&mut self) -> &mut [Lent; N] {
        &mut self.lent
    }

    /// Adds buffers that are checked, for which there are descriptors.
    pub(crate) fn add(&mut self, size: u16, areas: &Areas<'_>, buffers: &[Buffer], room: u32) -> u16 {
        let head = self.first_free;
        let mut index = head;
        for (i, buffer) in buffers.iter().enumerate() {
            let next = self.next[usize::from(index)];
            let more = (i + 1 < buffers.len()).then_some(next);
            describe(&areas.descriptors, index, buffer, more);
            index = next;
        }
        self.first_free = index;
        self.make_available(size, areas, head, buffers.len() as u16, room);
        head
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
        for (i, buffer) in (0..).zip(buffers) {
            let more = (usize::from(i) + 1 < buffers.len()).then_some(i + 1);
            describe(table, i, buffer, more);
        }
        let head = self.first_free;
        let whole = Descriptor {
            address,
            len: (buffers.len() * DESCRIPTOR) as u32,
            third: F_INDIRECT,
            fourth: 0,
        };
        whole.write(&areas.descriptors, usize::from(head));
        self.first_free = self.next[usize::from(head)];
        self.make_available(size, areas, head, 1, room);
        head
    }

    fn make_available(&mut self, size: u16, areas: &Areas<'_>, head: u16, descriptors: u16, room: u32) {
        self.free -= descriptors;
        self.lent[usize::from(head)] = Lent { descriptors, room };
        areas.driver.store_u16(avail::ring(self.next_avail & (size - 1)), head);
        step(&mut self.next_avail, &mut self.told_avail);
        areas.driver.store_u16(avail::IDX, self.next_avail);
    }

    pub(crate) fn wants_kick(&mut self, size: u16, areas: &Areas<'_>) -> bool {
        // The available index must be visible before the device's wish is read (section 2.7.13.4.1).
        fence(Ordering::SeqCst);
        let (old, new) = (self.told_avail, self.next_avail);
        self.told_avail = new;
        if self.options.event_idx {
            passes(areas.device.load_u16(used::avail_event(size)), old, new)
        } else {
            old != new && areas.device.load_u16(used::FLAGS) & USED_NO_NOTIFY == 0
        }
    }

    pub(crate) fn take(&mut self, size: u16, areas: &Areas<'_>) -> Result<Option<(u16, u32)>, DriverError> {
        let done = areas.device.load_u16(used::IDX).wrapping_sub(self.next_used);
        let (end, written) = match self.batch {
            Some((end, _)) if done == 0 => return Err(DriverError::Device { id: end.into() }),
            Some(batch) => batch,
            None if done == 0 => return Ok(None),
            None => self.read_used(size, areas, done)?,
        };
        if !self.options.in_order {
            let mut last = end;
            for _ in 1..self.lent[usize::from(end)].descriptors {
                last = self.next[usize::from(last)];
            }
            self.next[usize::from(last)] = self.first_free;
            self.first_free = end;
            return Ok(Some(self.give_up(end, written)));
        }
        let head = self.oldest;
        let lent = self.lent[usize::from(head)];
        self.oldest = (head + lent.descriptors) & (size - 1);
        if head == end {
            self.batch = None;
            return Ok(Some(self.give_up(head, written)));
        }
        self.batch = Some((end, written));
        // What has no entry of its own was used completely (section 2.7.9).
        Ok(Some(self.give_up(head, lent.room)))
    }

    /// Reads the next used entry, and checks it: a chain in flight, and not more written than
    /// there is room for.
    fn read_used(&self, size: u16, areas: &Areas<'_>, done: u16) -> Result<(u16, u32), DriverError> {
        let entry = used::ring(self.next_used & (size - 1));
        let id = areas.device.read_u32(entry);
        let written = areas.device.read_u32(entry + 4);
        let refused = DriverError::Device { id };
        let head = u16::try_from(id).ok().filter(|head| *head < size).ok_or(refused)?;
        let lent = self.lent[usize::from(head)];
        if lent.descriptors == 0 || done > size || written > lent.room {
            return Err(refused);
        }
        Ok((head, written))
    }

    fn give_up(&mut self, head: u16, written: u32) -> (u16, u32) {
        self.free += self.lent[usize::from(head)].descriptors;
        self.lent[usize::from(head)].descriptors = 0;
        self.next_used = self.next_used.wrapping_add(1);
        (head, written)
    }

    pub(crate) fn arm(&self, size: u16, areas: &Areas<'_>, count: u16) -> bool {
        if self.options.event_idx {
            let last = self.next_used.wrapping_add(count - 1);
            areas.driver.store_u16(avail::used_event(size), last);
        } else {
            areas.driver.store_u16(avail::FLAGS, 0);
        }
        // The wish must be visible before the used index is read again.
        fence(Ordering::SeqCst);
        areas.device.load_u16(used::IDX).wrapping_sub(self.next_used) >= count
    }

    pub(crate) fn disarm(&self, size: u16, areas: &Areas<'_>) {
        if self.options.event_idx {
            // Half the index space away: far ahead of what the device will use, far behind what it
            // may not have considered yet. If it is passed after all, that costs one notification.
            let far = self.next_used.wrapping_add(1 << 15);
            areas.driver.store_u16(avail::used_event(size), far);
        } else {
            areas.driver.store_u16(avail::FLAGS, AVAIL_NO_INTERRUPT);
        }
    }
}

/// Writes a buffer's descriptor, with `more` after it.
fn describe(table: &Window<'_>, index: u16, buffer: &Buffer, more: Option<u16>) {
    let descriptor = Descriptor {
        address: buffer.address,
        len: buffer.len,
        third: if more.is_some() { F_NEXT } else { 0 } | if buffer.write { F_WRITE } else { 0 },
        fourth: more.unwrap_or(0),
    };
    descriptor.write(table, usize::from(index));
}
