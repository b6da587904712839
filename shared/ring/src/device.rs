//! The device side of a virtqueue, of either format.

use super::{Areas, Chain, Format, QueueConfig, packed, split};
use crate::feature;
use crate::memory::GuestMemory;

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
    /// A descriptor of a packed queue is available while the device still has all of them.
    #[error("descriptor {0} is available again before it was used")]
    NotUsed(u16),
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
    /// An indirect descriptor where none may be: not negotiated, within a table, with a
    /// successor, or (in a packed queue) in a chain.
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

/// How far a device is in a queue of which it holds no chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The next used index of a split queue; in a packed one the next descriptor, with the wrap counter in bit 15.
    pub used: u16,
    /// How much was used since the driver was last considered for a notification.
    pub untold: u16,
}

/// A virtqueue as the device sees it: its place, and the state only the device may change.
#[derive(Clone, Debug, Default)]
pub struct DeviceQueue {
    config: QueueConfig,
    state: State,
}

/// What the device remembers, by format.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is no heap to put the larger one on")]
enum State {
    Split(split::device::Device),
    Packed(packed::device::Device),
}

impl Default for State {
    fn default() -> Self {
        Self::Split(split::device::Device::new(false, false))
    }
}

impl DeviceQueue {
    /// A queue at its start, with the features that were negotiated.
    #[must_use]
    pub const fn new(config: QueueConfig, features: u64) -> Self {
        let indirect = features & feature::INDIRECT_DESC != 0;
        let event_idx = features & feature::EVENT_IDX != 0;
        let state = match Format::of(features) {
            Format::Split => State::Split(split::device::Device::new(indirect, event_idx)),
            Format::Packed => State::Packed(packed::device::Device::new(indirect, event_idx)),
        };
        Self { config, state }
    }

    /// How far the device is: all that it remembers, but for the chains that it has not given back. Who goes on from
    /// there takes those again.
    ///
    /// So nothing may be under way of them, and those that are partly done have to be the last that were taken.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        match &self.state {
            State::Split(state) => state.mark(),
            State::Packed(state) => state.mark(),
        }
    }

    /// A queue that goes on from a mark, with the features that were negotiated; `None` if it has no such place.
    #[must_use]
    pub const fn resumed(config: QueueConfig, features: u64, mark: Mark) -> Option<Self> {
        let mut queue = Self::new(config, features);
        let possible = match &mut queue.state {
            State::Split(state) => state.resume(mark),
            State::Packed(state) => state.resume(mark, config.size),
        };
        if possible { Some(queue) } else { None }
    }

    /// The queue as if `index` descriptors had come and gone.
    #[cfg(test)]
    pub(super) fn start_at(&mut self, index: u16) {
        match &mut self.state {
            State::Split(state) => state.start_at(index),
            State::Packed(state) => state.start_at(index, self.config.size),
        }
    }

    /// Where the queue is.
    #[must_use]
    pub const fn config(&self) -> &QueueConfig {
        &self.config
    }

    /// Its format.
    #[must_use]
    pub const fn format(&self) -> Format {
        match self.state {
            State::Split(_) => Format::Split,
            State::Packed(_) => Format::Packed,
        }
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
        let areas = Areas::find_as(self.format(), memory, &self.config).ok_or(QueueError::Placement)?;
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
    /// are not checked: finding their [`Window`](crate::memory::Window)s does that.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let size = self.queue.config.size;
        match &mut self.queue.state {
            State::Split(state) => state.pop(size, &self.areas, self.memory, chain),
            State::Packed(state) => state.pop(size, &self.areas, self.memory, chain),
        }
    }

    /// Gives a chain back, by its [`head`](Chain::head): the device wrote `written` bytes into its
    /// writable buffers.
    ///
    /// With `VIRTIO_F_IN_ORDER` chains have to be given back in the order in which they came.
    pub fn push(&mut self, head: u16, written: u32) {
        self.push_all([(head, written)]);
    }

    /// Gives several chains back at once, as [`push`](Self::push) does one: the driver sees all of
    /// them or none.
    pub fn push_all(&mut self, chains: impl IntoIterator<Item = (u16, u32)>) {
        let size = self.queue.config.size;
        match &mut self.queue.state {
            State::Split(state) => state.push_all(size, &self.areas, chains),
            State::Packed(state) => state.push_all(size, &self.areas, chains),
        }
    }

    /// Whether the driver wants to be told of what was pushed since this was last asked.
    #[must_use]
    pub fn wants_notification(&mut self) -> bool {
        let size = self.queue.config.size;
        match &mut self.queue.state {
            State::Split(state) => state.wants_notification(size, &self.areas),
            State::Packed(state) => state.wants_notification(size, &self.areas),
        }
    }

    /// Whether the driver has made a chain available that the device has not taken.
    #[must_use]
    pub fn has_available(&self) -> bool {
        match &self.queue.state {
            State::Split(state) => state.has_available(&self.areas),
            State::Packed(state) => state.has_available(&self.areas),
        }
    }

    /// Whether the driver has come to the place that its kick names under `VIRTIO_F_NOTIFICATION_DATA` (section 2.9:
    /// bits 16 to 31 of what it writes), or was there before. If not, the driver is wrong about its own queue.
    #[must_use]
    pub fn has_come_to(&self, next: u16) -> bool {
        let size = self.queue.config.size;
        match &self.queue.state {
            State::Split(state) => state.has_come_to(size, &self.areas, next),
            State::Packed(state) => state.has_come_to(size, &self.areas, next),
        }
    }

    /// Asks the driver not to kick for now (sections 2.7.10 and 2.8.10).
    pub fn disable_kicks(&mut self) {
        match &self.queue.state {
            State::Split(state) => state.disable_kicks(&self.areas),
            State::Packed(state) => state.disable_kicks(&self.areas),
        }
    }

    /// Asks the driver to kick at the next buffer, and tells whether one came in before it knew:
    /// then no kick follows, and the caller goes on popping.
    #[must_use]
    pub fn enable_kicks(&mut self) -> bool {
        match &self.queue.state {
            State::Split(state) => state.enable_kicks(self.queue.config.size, &self.areas),
            State::Packed(state) => state.enable_kicks(&self.areas),
        }
    }
}
