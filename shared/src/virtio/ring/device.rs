//! The device side of a split virtqueue.

use core::sync::atomic::Ordering;

use super::layout::{AVAIL_NO_INTERRUPT, DESCRIPTOR, F_INDIRECT, F_NEXT, F_WRITE, USED_NO_NOTIFY, avail, used};
use super::{Areas, Buffer, Chain, MAX_BYTES, QueueConfig, passes, step};
use crate::memory::{GuestMemory, Window, fence};
use crate::virtio::feature;

/// What the driver did that no driver may. The device then needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Size or alignment is wrong, or a part of the queue is not in memory.
    #[error("the queue lies outside memory, is misaligned, or has a bad size")]
    Placement,
    /// The available index ran ahead by more than the queue can hold beside the chains the device
    /// has not given back yet.
    #[error("the available index is {0} entries ahead, more than the queue holds")]
    AvailableIndex(u16),
    /// A descriptor index is not below the queue size, or not within its table.
    #[error("descriptor {0} does not exist")]
    DescriptorIndex(u16),
    /// The chain is longer than the queue, which it is if it loops.
    #[error("the descriptor chain loops or is longer than the queue")]
    ChainLength,
    /// A buffer for the device to read follows one for it to write.
    #[error("a readable descriptor follows a writable one")]
    Order,
    /// The buffers of a chain have more than 2^32 bytes in total (section 2.7.5.2).
    #[error("the buffers of a chain have more than 2^32 bytes in total")]
    TooManyBytes,
    /// An indirect descriptor where none may be: not negotiated, within a table, or with a
    /// successor.
    #[error("an indirect descriptor stands where none may be")]
    Indirect,
    /// An indirect table outside memory, empty, or not a whole number of descriptors.
    #[error("an indirect table of {len} bytes at {address:#x} is not usable")]
    IndirectTable {
        /// Guest-physical address of the table.
        address: u64,
        /// Its length in bytes.
        len: u32,
    },
}

/// A split virtqueue as the device sees it: its place, and the state only the device may change.
#[derive(Clone, Debug, Default)]
pub struct DeviceQueue {
    config: QueueConfig,
    indirect: bool,
    event_idx: bool,
    next_avail: u16,
    next_used: u16,
    /// Value of `next_used` when the driver was last considered for a notification.
    told_used: u16,
}

impl DeviceQueue {
    /// A queue at its start, with the features that were negotiated.
    #[must_use]
    pub const fn new(config: QueueConfig, features: u64) -> Self {
        Self {
            config,
            indirect: features & feature::INDIRECT_DESC != 0,
            event_idx: features & feature::EVENT_IDX != 0,
            next_avail: 0,
            next_used: 0,
            told_used: 0,
        }
    }

    /// The queue as if `index` chains had come and gone.
    #[cfg(test)]
    pub(super) fn start_at(&mut self, index: u16) {
        (self.next_avail, self.next_used, self.told_used) = (index, index, index);
    }

    /// Where the queue is.
    #[must_use]
    pub const fn config(&self) -> &QueueConfig {
        &self.config
    }

    /// Finds the queue in memory, to work on it.
    ///
    /// # Errors
    ///
    /// [`QueueError::Placement`].
    pub fn attach<'q, 'm, M: GuestMemory + ?Sized>(
        &'q mut self,
        memory: &'m M,
    ) -> Result<Attached<'q, 'm, M>, QueueError> {
        let areas = Areas::find(memory, &self.config).ok_or(QueueError::Placement)?;
        Ok(Attached {
            queue: self,
            areas,
            memory,
        })
    }
}

/// A queue together with the memory it lies in.
pub struct Attached<'q, 'm, M: ?Sized> {
    queue: &'q mut DeviceQueue,
    areas: Areas<'m>,
    memory: &'m M,
}

impl<'m, M: GuestMemory + ?Sized> Attached<'_, 'm, M> {
    /// The memory that the buffers of the chains are in.
    #[must_use]
    pub const fn memory(&self) -> &'m M {
        self.memory
    }

    /// Takes the next chain into `chain`; false if there is none.
    ///
    /// # Errors
    ///
    /// Any [`QueueError`]; the queue must not be used further then. The addresses of the buffers
    /// are not checked: finding their [`Window`]s does that.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let size = self.queue.config.size;
        let available = self
            .areas
            .driver
            .load_u16(avail::IDX)
            .wrapping_sub(self.queue.next_avail);
        if available == 0 {
            return Ok(false);
        }
        // Every chain holds at least one descriptor until it is pushed.
        let in_flight = self.queue.next_avail.wrapping_sub(self.queue.next_used);
        if available > size.saturating_sub(in_flight) {
            return Err(QueueError::AvailableIndex(available));
        }
        let slot = self.queue.next_avail % size;
        let head = self.areas.driver.load_u16(avail::ring(slot));
        self.read_chain(head, chain)?;
        if chain.readable_bytes() + chain.writable_bytes() > MAX_BYTES {
            return Err(QueueError::TooManyBytes);
        }
        self.queue.next_avail = self.queue.next_avail.wrapping_add(1);
        Ok(true)
    }

    fn read_chain(&self, head: u16, chain: &mut Chain) -> Result<(), QueueError> {
        let size = self.queue.config.size;
        chain.start(head);
        let mut index = head;
        for _ in 0..size {
            let descriptor = Descriptor::read(&self.areas.descriptors, index, usize::from(size))?;
            if descriptor.flags & F_INDIRECT != 0 {
                // F_WRITE is to be ignored here (section 2.7.5.3.2).
                if !self.queue.indirect || descriptor.flags & F_NEXT != 0 {
                    return Err(QueueError::Indirect);
                }
                return self.read_table(&descriptor, chain);
            }
            descriptor.append_to(chain, size)?;
            if descriptor.flags & F_NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next;
        }
        Err(QueueError::ChainLength)
    }

    fn read_table(&self, table: &Descriptor, chain: &mut Chain) -> Result<(), QueueError> {
        let size = self.queue.config.size;
        let unusable = QueueError::IndirectTable {
            address: table.address,
            len: table.len,
        };
        let len = table.len as usize;
        let entries = len / DESCRIPTOR;
        if !len.is_multiple_of(DESCRIPTOR) || entries == 0 {
            return Err(unusable);
        }
        // A table may be longer than its chain, and than the queue. It needs no alignment, as it
        // is read as bytes.
        let window = self.memory.window(table.address, len).ok_or(unusable)?;
        let mut index = 0;
        for _ in 0..size {
            let descriptor = Descriptor::read(&window, index, entries)?;
            if descriptor.flags & F_INDIRECT != 0 {
                return Err(QueueError::Indirect);
            }
            descriptor.append_to(chain, size)?;
            if descriptor.flags & F_NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next;
        }
        Err(QueueError::ChainLength)
    }

    /// Gives a chain back: the device wrote `written` bytes into its writable buffers.
    pub fn push(&mut self, head: u16, written: u32) {
        self.push_all([(head, written)]);
    }

    /// Gives several chains back at once, as [`push`](Self::push) does one: the driver sees all of
    /// them or none.
    pub fn push_all(&mut self, chains: impl IntoIterator<Item = (u16, u32)>) {
        let size = self.queue.config.size;
        for (head, written) in chains {
            let entry = used::ring(self.queue.next_used % size);
            self.areas.device.write_u32(entry, u32::from(head));
            self.areas.device.write_u32(entry + 4, written);
            step(&mut self.queue.next_used, &mut self.queue.told_used);
        }
        self.areas.device.store_u16(used::IDX, self.queue.next_used);
    }

    /// Whether the driver wants to be told of what was pushed since this was last asked.
    #[must_use]
    pub fn wants_notification(&mut self) -> bool {
        // The used index must be visible before the driver's wish is read (section 2.7.7.2).
        fence(Ordering::SeqCst);
        let (old, new) = (self.queue.told_used, self.queue.next_used);
        self.queue.told_used = new;
        if self.queue.event_idx {
            let event = self.areas.driver.load_u16(avail::used_event(self.queue.config.size));
            passes(event, old, new)
        } else {
            old != new && self.areas.driver.load_u16(avail::FLAGS) & AVAIL_NO_INTERRUPT == 0
        }
    }

    /// Asks the driver not to kick for now (section 2.7.10).
    pub fn disable_kicks(&mut self) {
        if !self.queue.event_idx {
            self.areas.device.store_u16(used::FLAGS, USED_NO_NOTIFY);
        }
        // With event index it suffices not to move `avail_event`.
    }

    /// Asks the driver to kick at the next buffer, and tells whether one came in before it knew:
    /// then no kick follows, and the caller goes on popping.
    #[must_use]
    pub fn enable_kicks(&mut self) -> bool {
        if self.queue.event_idx {
            self.areas
                .device
                .store_u16(used::avail_event(self.queue.config.size), self.queue.next_avail);
        } else {
            self.areas.device.store_u16(used::FLAGS, 0);
        }
        // The wish must be visible before the available index is read again.
        fence(Ordering::SeqCst);
        self.areas.driver.load_u16(avail::IDX) != self.queue.next_avail
    }
}

/// A descriptor, copied (section 2.7.5).
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn read(table: &Window<'_>, index: u16, entries: usize) -> Result<Self, QueueError> {
        if usize::from(index) >= entries {
            return Err(QueueError::DescriptorIndex(index));
        }
        let mut bytes = [0; DESCRIPTOR];
        table.read(usize::from(index) * DESCRIPTOR, &mut bytes);
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
        Ok(Self {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        })
    }

    fn append_to(&self, chain: &mut Chain, limit: u16) -> Result<(), QueueError> {
        if chain.len() >= limit {
            return Err(QueueError::ChainLength);
        }
        let buffer = Buffer {
            address: self.address,
            len: self.len,
            write: self.flags & F_WRITE != 0,
        };
        if chain.append(buffer) {
            Ok(())
        } else {
            Err(QueueError::Order)
        }
    }
}
