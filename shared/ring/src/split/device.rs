//! The device side of a split virtqueue.

use core::sync::atomic::Ordering;

use super::layout::{AVAIL_NO_INTERRUPT, USED_NO_NOTIFY, avail, used};
use super::{passes, step};
use crate::descriptor::{Descriptor, append};
use crate::device::Mark;
use crate::layout::{DESCRIPTOR, F_INDIRECT, F_NEXT};
use crate::memory::{GuestMemory, fence};
use crate::{Areas, Chain, MAX_BYTES, QueueError};

/// What the device remembers of a split queue.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    indirect: bool,
    event_idx: bool,
    next_avail: u16,
    next_used: u16,
    /// Value of `next_used` when the driver was last considered for a notification.
    told_used: u16,
}

impl Device {
    pub(crate) const fn new(indirect: bool, event_idx: bool) -> Self {
        Self {
            indirect,
            event_idx,
            next_avail: 0,
            next_used: 0,
            told_used: 0,
        }
    }

    pub(crate) const fn mark(&self) -> Mark {
        Mark {
            used: self.next_used,
            untold: self.next_used.wrapping_sub(self.told_used),
        }
    }

    pub(crate) const fn resume(&mut self, mark: Mark) -> bool {
        (self.next_avail, self.next_used) = (mark.used, mark.used);
        self.told_used = mark.used.wrapping_sub(mark.untold);
        true
    }

    #[cfg(test)]
    pub(crate) fn start_at(&mut self, index: u16) {
        (self.next_avail, self.next_used, self.told_used) = (index, index, index);
    }

    #[inline]
    pub(crate) fn pop<M: GuestMemory + ?Sized>(
        &mut self,
        size: u16,
        areas: &Areas<'_>,
        memory: &M,
        chain: &mut Chain,
    ) -> Result<bool, QueueError> {
        let available = areas.driver.load_u16(avail::IDX).wrapping_sub(self.next_avail);
        if available == 0 {
            return Ok(false);
        }
        // Every chain holds at least one descriptor until it is pushed.
        let in_flight = self.next_avail.wrapping_sub(self.next_used);
        if available > size.saturating_sub(in_flight) {
            return Err(QueueError::AvailableIndex(available));
        }
        // The size is a power of two.
        let slot = self.next_avail & (size - 1);
        let head = areas.driver.load_u16(avail::ring(slot));
        self.read_chain(size, areas, memory, head, chain)?;
        if chain.bytes() > MAX_BYTES {
            return Err(QueueError::TooManyBytes);
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(true)
    }

    #[inline]
    fn read_chain<M: GuestMemory + ?Sized>(
        &self,
        size: u16,
        areas: &Areas<'_>,
        memory: &M,
        head: u16,
        chain: &mut Chain,
    ) -> Result<(), QueueError> {
        chain.start(head);
        let mut index = head;
        for _ in 0..size {
            if index >= size {
                return Err(QueueError::DescriptorIndex(index));
            }
            let descriptor = Descriptor::read(&areas.descriptors, usize::from(index));
            let (flags, next) = (descriptor.third, descriptor.fourth);
            if flags & F_INDIRECT != 0 {
                // F_WRITE is to be ignored here (section 2.7.5.3.2).
                if !self.indirect || flags & F_NEXT != 0 {
                    return Err(QueueError::Indirect);
                }
                return read_table(size, memory, &descriptor, chain);
            }
            append(chain, size, descriptor.address, descriptor.len, flags)?;
            if flags & F_NEXT == 0 {
                return Ok(());
            }
            index = next;
        }
        Err(QueueError::ChainLength)
    }

    #[inline]
    pub(crate) fn push_all(&mut self, size: u16, areas: &Areas<'_>, chains: impl IntoIterator<Item = (u16, u32)>) {
        for (head, written) in chains {
            let entry = used::ring(self.next_used & (size - 1));
            areas.device.write_u32(entry, u32::from(head));
            areas.device.write_u32(entry + 4, written);
            step(&mut self.next_used, &mut self.told_used);
        }
        areas.device.store_u16(used::IDX, self.next_used);
    }

    pub(crate) fn wants_notification(&mut self, size: u16, areas: &Areas<'_>) -> bool {
        // The used index must be visible before the driver's wish is read (section 2.7.7.2).
        fence(Ordering::SeqCst);
        let (old, new) = (self.told_used, self.next_used);
        self.told_used = new;
        if self.event_idx {
            passes(areas.driver.load_u16(avail::used_event(size)), old, new)
        } else {
            old != new && areas.driver.load_u16(avail::FLAGS) & AVAIL_NO_INTERRUPT == 0
        }
    }

    pub(crate) fn disable_kicks(&self, areas: &Areas<'_>) {
        if !self.event_idx {
            areas.device.store_u16(used::FLAGS, USED_NO_NOTIFY);
        }
        // With event index it suffices not to move `avail_event`.
    }

    pub(crate) fn enable_kicks(&self, size: u16, areas: &Areas<'_>) -> bool {
        if self.event_idx {
            areas.device.store_u16(used::avail_event(size), self.next_avail);
        } else {
            areas.device.store_u16(used::FLAGS, 0);
        }
        // The wish must be visible before the available index is read again.
        fence(Ordering::SeqCst);
        self.has_available(areas)
    }

    pub(crate) fn has_come_to(&self, size: u16, areas: &Areas<'_>, next: u16) -> bool {
        let available = areas.driver.load_u16(avail::IDX).wrapping_sub(self.next_avail);
        // What is behind is no more than a round away.
        next.wrapping_sub(self.next_avail).wrapping_add(size) <= available.saturating_add(size)
    }

    pub(crate) fn has_available(&self, areas: &Areas<'_>) -> bool {
        areas.driver.load_u16(avail::IDX) != self.next_avail
    }
}

fn read_table<M: GuestMemory + ?Sized>(
    size: u16,
    memory: &M,
    table: &Descriptor,
    chain: &mut Chain,
) -> Result<(), QueueError> {
    let unusable = QueueError::IndirectTable {
        address: table.address,
        len: table.len,
    };
    let len = table.len as usize;
    let entries = len / DESCRIPTOR;
    if !len.is_multiple_of(DESCRIPTOR) || entries == 0 {
        return Err(unusable);
    }
    // A table may be longer than its chain, and than the queue.
    let window = memory.window(table.address, len).ok_or(unusable)?;
    let mut index = 0;
    for _ in 0..size {
        if usize::from(index) >= entries {
            return Err(QueueError::DescriptorIndex(index));
        }
        let descriptor = Descriptor::read(&window, usize::from(index));
        let (flags, next) = (descriptor.third, descriptor.fourth);
        if flags & F_INDIRECT != 0 {
            return Err(QueueError::Indirect);
        }
        append(chain, size, descriptor.address, descriptor.len, flags)?;
        if flags & F_NEXT == 0 {
            return Ok(());
        }
        index = next;
    }
    Err(QueueError::ChainLength)
}
