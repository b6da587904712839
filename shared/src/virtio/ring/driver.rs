//! The driver side of a split virtqueue.

use core::sync::atomic::Ordering;

use super::layout::{AVAIL_NO_INTERRUPT, DESCRIPTOR, F_INDIRECT, F_NEXT, F_WRITE, USED_NO_NOTIFY, avail, used};
use super::{Areas, Buffer, MAX_BYTES, MAX_SIZE, passes, step};
use crate::memory::{Window, fence};
use crate::virtio::feature;

/// Why the driver side could not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// There are not enough free descriptors: take used buffers back first.
    #[error("the queue has no room for the buffers")]
    Full,
    /// No buffers, more than the queue can ever hold, or more than the indirect table holds.
    #[error("a request of {0} buffers is not possible")]
    Buffers(usize),
    /// A buffer for the device to read follows one for it to write (section 2.7.4.2).
    #[error("a readable buffer follows a writable one")]
    Order,
    /// The buffers have this many bytes together, more than 2^32 (section 2.7.5.2).
    #[error("the buffers have {0} bytes together; a chain may have 2^32 at the most")]
    Bytes(u64),
    /// The queue's size is not one this side can handle, or its areas are too small or misaligned.
    #[error("a queue of {0} descriptors is not usable")]
    Size(u16),
    /// The device gave back something it never got, or claims to have done more than it could.
    #[error("the device gave back descriptor {id}, which it does not have")]
    Device {
        /// What the device named.
        id: u32,
    },
}

/// A split virtqueue as the driver sees it, of up to `N` descriptors.
///
/// What it must remember it keeps in private memory, so that a device that scribbles over the
/// shared parts cannot mislead it.
#[derive(Debug)]
pub struct DriverQueue<'m, const N: usize> {
    areas: Areas<'m>,
    size: u16,
    indirect: bool,
    event_idx: bool,
    /// Chains the free descriptors, and those of each chain in flight.
    next: [u16; N],
    /// For the head of a chain in flight, how many descriptors it has; else 0.
    in_flight: [u16; N],
    /// For the head of a chain in flight, how many bytes the device may write.
    room: [u32; N],
    first_free: u16,
    free: u16,
    next_avail: u16,
    next_used: u16,
    /// Value of `next_avail` when the device was last considered for a kick.
    told_avail: u16,
}

impl<'m, const N: usize> DriverQueue<'m, N> {
    /// A queue at its start: all its memory must be zero.
    ///
    /// # Errors
    ///
    /// [`DriverError::Size`].
    pub fn new(areas: Areas<'m>, size: u16, features: u64) -> Result<Self, DriverError> {
        let fits = size.is_power_of_two() && size <= MAX_SIZE && usize::from(size) <= N && areas.hold(size);
        if !fits {
            return Err(DriverError::Size(size));
        }
        let mut next = [0; N];
        for (i, n) in next.iter_mut().enumerate() {
            *n = (i as u16).wrapping_add(1);
        }
        Ok(Self {
            areas,
            size,
            indirect: features & feature::INDIRECT_DESC != 0,
            event_idx: features & feature::EVENT_IDX != 0,
            next,
            in_flight: [0; N],
            room: [0; N],
            first_free: 0,
            free: size,
            next_avail: 0,
            next_used: 0,
            told_avail: 0,
        })
    }

    /// The queue as if `index` chains had come and gone.
    #[cfg(test)]
    pub(super) fn start_at(&mut self, index: u16) {
        (self.next_avail, self.next_used, self.told_avail) = (index, index, index);
    }

    /// How many descriptors are free.
    #[must_use]
    pub const fn free(&self) -> u16 {
        self.free
    }

    /// Number of descriptors.
    #[must_use]
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Makes a chain of buffers available and returns its head, by which [`take`](Self::take)
    /// gives it back. Readable buffers come before writable ones.
    ///
    /// The buffers belong to the device until then.
    ///
    /// # Errors
    ///
    /// [`DriverError::Full`], [`DriverError::Buffers`], [`DriverError::Order`],
    /// [`DriverError::Bytes`]. Then nothing has changed.
    pub fn add(&mut self, buffers: &[Buffer]) -> Result<u16, DriverError> {
        if buffers.is_empty() || buffers.len() > usize::from(self.size) {
            return Err(DriverError::Buffers(buffers.len()));
        }
        if buffers.len() > usize::from(self.free) {
            return Err(DriverError::Full);
        }
        let room = check(buffers)?;
        let head = self.first_free;
        let mut index = head;
        for (i, buffer) in buffers.iter().enumerate() {
            let last = i + 1 == buffers.len();
            let flags = if last { 0 } else { F_NEXT } | if buffer.write { F_WRITE } else { 0 };
            let next = self.next[usize::from(index)];
            write_descriptor(
                &self.areas.descriptors,
                index,
                buffer,
                flags,
                if last { 0 } else { next },
            );
            index = next;
        }
        self.first_free = index;
        self.make_available(head, buffers.len() as u16, room);
        Ok(head)
    }

    /// Like [`add`](Self::add), by one descriptor that points to a table: `table` is the memory
    /// at guest-physical address `address` that this call fills, and that belongs to the device
    /// until the chain comes back.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add); [`DriverError::Buffers`] also if indirect descriptors were not
    /// negotiated.
    pub fn add_indirect(&mut self, table: Window<'_>, address: u64, buffers: &[Buffer]) -> Result<u16, DriverError> {
        let fits = self.indirect
            && !buffers.is_empty()
            && buffers.len() <= usize::from(self.size)
            && buffers.len() <= table.len() / DESCRIPTOR;
        if !fits {
            return Err(DriverError::Buffers(buffers.len()));
        }
        if self.free == 0 {
            return Err(DriverError::Full);
        }
        let room = check(buffers)?;
        for (i, buffer) in buffers.iter().enumerate() {
            let last = i + 1 == buffers.len();
            let flags = if last { 0 } else { F_NEXT } | if buffer.write { F_WRITE } else { 0 };
            write_descriptor(&table, i as u16, buffer, flags, if last { 0 } else { i as u16 + 1 });
        }
        let head = self.first_free;
        let whole = Buffer::readable(address, (buffers.len() * DESCRIPTOR) as u32);
        write_descriptor(&self.areas.descriptors, head, &whole, F_INDIRECT, 0);
        self.first_free = self.next[usize::from(head)];
        self.make_available(head, 1, room);
        Ok(head)
    }

    fn make_available(&mut self, head: u16, descriptors: u16, room: u32) {
        self.free -= descriptors;
        self.in_flight[usize::from(head)] = descriptors;
        self.room[usize::from(head)] = room;
        self.areas
            .driver
            .store_u16(avail::ring(self.next_avail % self.size), head);
        step(&mut self.next_avail, &mut self.told_avail);
        self.areas.driver.store_u16(avail::IDX, self.next_avail);
    }

    /// Whether the device wants a kick for what was added since this was last asked.
    #[must_use]
    pub fn wants_kick(&mut self) -> bool {
        // The available index must be visible before the device's wish is read (section 2.7.13.4.1).
        fence(Ordering::SeqCst);
        let (old, new) = (self.told_avail, self.next_avail);
        self.told_avail = new;
        if self.event_idx {
            passes(self.areas.device.load_u16(used::avail_event(self.size)), old, new)
        } else {
            old != new && self.areas.device.load_u16(used::FLAGS) & USED_NO_NOTIFY == 0
        }
    }

    /// Takes back the next chain the device is done with: its head, and how many bytes the
    /// device wrote.
    ///
    /// # Errors
    ///
    /// [`DriverError::Device`] if the device breaks the rules; the queue must not be used further.
    pub fn take(&mut self) -> Result<Option<(u16, u32)>, DriverError> {
        let done = self.areas.device.load_u16(used::IDX).wrapping_sub(self.next_used);
        if done == 0 {
            return Ok(None);
        }
        let entry = used::ring(self.next_used % self.size);
        let id = self.areas.device.read_u32(entry);
        let written = self.areas.device.read_u32(entry + 4);
        let head = u16::try_from(id)
            .ok()
            .filter(|head| *head < self.size)
            .ok_or(DriverError::Device { id })?;
        let descriptors = self.in_flight[usize::from(head)];
        if descriptors == 0 || done > self.size || written > self.room[usize::from(head)] {
            return Err(DriverError::Device { id });
        }
        self.in_flight[usize::from(head)] = 0;
        let mut last = head;
        for _ in 1..descriptors {
            last = self.next[usize::from(last)];
        }
        self.next[usize::from(last)] = self.first_free;
        self.first_free = head;
        self.free += descriptors;
        self.next_used = self.next_used.wrapping_add(1);
        Ok(Some((head, written)))
    }

    /// Asks for a notification at the next used buffer, and tells whether there is one already:
    /// then none may follow, and the caller takes it.
    #[must_use]
    pub fn arm(&mut self) -> bool {
        if self.event_idx {
            self.areas
                .driver
                .store_u16(avail::used_event(self.size), self.next_used);
        } else {
            self.areas.driver.store_u16(avail::FLAGS, 0);
        }
        // The wish must be visible before the used index is read again.
        fence(Ordering::SeqCst);
        self.areas.device.load_u16(used::IDX) != self.next_used
    }

    /// Asks for no notification.
    pub fn disarm(&mut self) {
        if self.event_idx {
            // Half the index space away: far ahead of what the device will use, far behind what it
            // may not have considered yet. If it is passed after all, that costs one notification.
            self.areas
                .driver
                .store_u16(avail::used_event(self.size), self.next_used.wrapping_add(1 << 15));
        } else {
            self.areas.driver.store_u16(avail::FLAGS, AVAIL_NO_INTERRUPT);
        }
    }
}

/// Checks order and total length of a chain's buffers; returns how many bytes the device may write,
/// or the greatest number it can tell of.
fn check(buffers: &[Buffer]) -> Result<u32, DriverError> {
    if !buffers.is_sorted_by_key(|b| b.write) {
        return Err(DriverError::Order);
    }
    let bytes = buffers.iter().map(|b| u64::from(b.len)).sum();
    if bytes > MAX_BYTES {
        return Err(DriverError::Bytes(bytes));
    }
    Ok(buffers
        .iter()
        .filter(|b| b.write)
        .fold(0, |sum, b| sum.saturating_add(b.len)))
}

fn write_descriptor(table: &Window<'_>, index: u16, buffer: &Buffer, flags: u16, next: u16) {
    let mut bytes = [0; DESCRIPTOR];
    bytes[0..8].copy_from_slice(&buffer.address.to_le_bytes());
    bytes[8..12].copy_from_slice(&buffer.len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..16].copy_from_slice(&next.to_le_bytes());
    table.write(usize::from(index) * DESCRIPTOR, &bytes);
}
