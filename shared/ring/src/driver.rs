//! The driver side of a virtqueue, of either format.

use super::{Areas, Buffer, Format, MAX_BYTES, packed, split};
use crate::feature;
use crate::memory::Window;

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

/// A virtqueue as the driver sees it, of up to `N` descriptors.
///
/// What it must remember it keeps in private memory, so that a device that scribbles over the
/// shared parts cannot mislead it.
#[derive(Debug)]
pub struct DriverQueue<'m, const N: usize> {
    areas: Areas<'m>,
    size: u16,
    state: State<N>,
}

/// What the driver remembers, by format.
#[derive(Debug)]
enum State<const N: usize> {
    Split(split::driver::Driver<N>),
    Packed(packed::driver::Driver<N>),
}

impl<const N: usize> State<N> {
    fn new(format: Format, size: u16, options: Options) -> Self {
        match format {
            Format::Split => Self::Split(split::driver::Driver::new(size, options)),
            Format::Packed => Self::Packed(packed::driver::Driver::new(size, options)),
        }
    }
}

impl<'m, const N: usize> DriverQueue<'m, N> {
    /// A queue at its start: all its memory must be zero.
    ///
    /// # Errors
    ///
    /// [`DriverError::Size`].
    pub fn new(areas: Areas<'m>, size: u16, features: u64) -> Result<Self, DriverError> {
        let format = Format::of(features);
        check_place::<N>(&areas, format, size)?;
        let options = Options {
            indirect: features & feature::INDIRECT_DESC != 0,
            event_idx: features & feature::EVENT_IDX != 0,
            in_order: features & feature::IN_ORDER != 0,
        };
        let state = State::new(format, size, options);
        Ok(Self { areas, size, state })
    }

    /// As [`new`](Self::new) in other areas, or the same, which this zeroes, with the same features.
    pub(super) fn begin_anew(&mut self, areas: Areas<'m>, size: u16) -> Result<(), DriverError> {
        let (format, options) = match &self.state {
            State::Split(state) => (Format::Split, state.options()),
            State::Packed(state) => (Format::Packed, state.options()),
        };
        check_place::<N>(&areas, format, size)?;
        areas.clear(format, size);
        *self = Self {
            areas,
            size,
            state: State::new(format, size, options),
        };
        Ok(())
    }

    /// Forgets the first chain in flight whose head is `from` or greater, and returns its head.
    pub(super) fn forget(&mut self, from: u16) -> Option<u16> {
        let lent = match &mut self.state {
            State::Split(state) => state.lent_mut(),
            State::Packed(state) => state.lent_mut(),
        };
        let (head, lent) = (0..self.size)
            .zip(lent)
            .skip(from.into())
            .find(|(_, lent)| lent.descriptors != 0)?;
        lent.descriptors = 0;
        Some(head)
    }

    /// The queue as if `index` descriptors had come and gone.
    #[cfg(test)]
    pub(super) fn start_at(&mut self, index: u16) {
        match &mut self.state {
            State::Split(state) => state.start_at(index),
            State::Packed(state) => state.start_at(index, self.size),
        }
    }

    /// How many descriptors are free.
    #[must_use]
    pub const fn free(&self) -> u16 {
        match &self.state {
            State::Split(state) => state.free(),
            State::Packed(state) => state.free(),
        }
    }

    /// Number of descriptors.
    #[must_use]
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Where it is.
    #[must_use]
    pub const fn areas(&self) -> Areas<'m> {
        self.areas
    }

    /// Makes a chain of buffers available and returns its head (in a packed queue its buffer ID),
    /// by which [`take`](Self::take) gives it back. Readable buffers come before writable ones.
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
        if buffers.len() > usize::from(self.free()) {
            return Err(DriverError::Full);
        }
        let room = check(buffers)?;
        Ok(match &mut self.state {
            State::Split(state) => state.add(self.size, &self.areas, buffers, room),
            State::Packed(state) => state.add(self.size, &self.areas, buffers, room),
        })
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
        let negotiated = match &self.state {
            State::Split(state) => state.options().indirect,
            State::Packed(state) => state.options().indirect,
        };
        let fits = negotiated
            && !buffers.is_empty()
            && buffers.len() <= usize::from(self.size)
            && buffers.len() <= table.len() / super::layout::DESCRIPTOR;
        if !fits {
            return Err(DriverError::Buffers(buffers.len()));
        }
        if self.free() == 0 {
            return Err(DriverError::Full);
        }
        let room = check(buffers)?;
        Ok(match &mut self.state {
            State::Split(state) => state.add_indirect(self.size, &self.areas, &table, address, buffers, room),
            State::Packed(state) => state.add_indirect(self.size, &self.areas, &table, address, buffers, room),
        })
    }

    /// Whether the device wants a kick for what was added since this was last asked.
    #[must_use]
    pub fn wants_kick(&mut self) -> bool {
        match &mut self.state {
            State::Split(state) => state.wants_kick(self.size, &self.areas),
            State::Packed(state) => state.wants_kick(self.size, &self.areas),
        }
    }

    /// What a kick of queue number `queue` says under `VIRTIO_F_NOTIFICATION_DATA` (section 2.9):
    /// the number, and where the next available entry or descriptor will be.
    #[must_use]
    pub const fn notification_data(&self, queue: u16) -> u32 {
        let next = match &self.state {
            State::Split(state) => state.next_available(),
            State::Packed(state) => state.next_available(),
        };
        (next as u32) << 16 | queue as u32
    }

    /// Takes back the next chain the device is done with: its head, and how many bytes the
    /// device wrote.
    ///
    /// # Errors
    ///
    /// [`DriverError::Device`] if the device breaks the rules; the queue must not be used further.
    pub fn take(&mut self) -> Result<Option<(u16, u32)>, DriverError> {
        match &mut self.state {
            State::Split(state) => state.take(self.size, &self.areas),
            State::Packed(state) => state.take(self.size, &self.areas),
        }
    }

    /// Asks for a notification at the next used buffer, and tells whether there is one already:
    /// then none may follow, and the caller takes it.
    #[must_use]
    pub fn arm(&mut self) -> bool {
        self.arm_for(1)
    }

    /// As [`arm`](Self::arm), but asks for a notification when the next `count` buffers are used, of
    /// which so many have to be in flight, and tells whether so many are already. A device that
    /// notifies earlier, as without `VIRTIO_F_EVENT_IDX` or with a packed queue, may.
    #[must_use]
    pub fn arm_for(&mut self, count: u16) -> bool {
        match &self.state {
            State::Split(state) => state.arm(self.size, &self.areas, count.max(1)),
            State::Packed(state) => state.arm(&self.areas),
        }
    }

    /// Asks for no notification.
    pub fn disarm(&mut self) {
        match &self.state {
            State::Split(state) => state.disarm(self.size, &self.areas),
            State::Packed(state) => state.disarm(&self.areas),
        }
    }
}

/// The negotiated features that change what a driver does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) indirect: bool,
    pub(super) event_idx: bool,
    pub(super) in_order: bool,
}

/// What the driver remembers of a chain in flight.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lent {
    /// How many descriptors it has in the queue; 0 if there is no such chain.
    pub(super) descriptors: u16,
    /// How many bytes the device may write.
    pub(super) room: u32,
}

/// Whether a queue of this format can be in these areas.
fn check_place<const N: usize>(areas: &Areas<'_>, format: Format, size: u16) -> Result<(), DriverError> {
    if !format.allows(size) || usize::from(size) > N || !areas.hold(format, size) {
        return Err(DriverError::Size(size));
    }
    Ok(())
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
