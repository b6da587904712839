//! How much memory guests may fill by writing to folders.

use alloc::sync::Arc;

use spin::Mutex;

use super::PAGE;

/// Memory that all folders of all guests share: so many pages are left.
#[derive(Debug)]
pub struct Room(Mutex<usize>);

impl Room {
    /// So many bytes, in whole pages.
    #[must_use]
    pub const fn new(bytes: usize) -> Self {
        Self(Mutex::new(bytes / PAGE))
    }

    /// How many pages nobody has.
    pub(super) fn left(&self) -> usize {
        *self.0.lock()
    }
}

/// One page of the room, until it is dropped.
#[derive(Debug)]
pub(super) struct Share(Arc<Room>);

impl Share {
    /// Takes one; `None` if none is left.
    pub(super) fn of(room: &Arc<Room>) -> Option<Self> {
        let mut left = room.0.lock();
        *left = left.checked_sub(1)?;
        Some(Self(Arc::clone(room)))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.0.0.lock() += 1;
    }
}
