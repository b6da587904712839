//! The event suppression structures (sections 2.8.10 and 2.8.14): one in the driver area, by which
//! the driver says what it wants to hear of, and one in the device area for the device.

use core::sync::atomic::Ordering;

use super::position::Position;
use crate::memory::{Window, fence};

/// Size of the structure.
pub(crate) const BYTES: usize = 4;

const DESC: usize = 0;
const FLAGS: usize = 2;

const FLAGS_ENABLE: u16 = 0;
const FLAGS_DISABLE: u16 = 1;
const FLAGS_DESC: u16 = 2;
/// The other bits of the field are reserved.
const FLAGS_MASK: u16 = 3;

/// Asks for no notification.
pub(super) fn disable(mine: &Window<'_>) {
    mine.store_u16(FLAGS, FLAGS_DISABLE);
}

/// Asks for a notification: with event index, when the descriptor at `next` changes hands.
///
/// What is read afterwards was not there before the wish was visible.
pub(super) fn enable(mine: &Window<'_>, event_idx: bool, next: Position) {
    if event_idx {
        mine.store_u16(DESC, next.bits());
        mine.store_u16(FLAGS, FLAGS_DESC);
    } else {
        mine.store_u16(FLAGS, FLAGS_ENABLE);
    }
    fence(Ordering::SeqCst);
}

/// Whether the other side, by its structure, wants to hear that `moved` descriptors changed hands
/// up to `now`.
pub(super) fn is_wanted(theirs: &Window<'_>, event_idx: bool, now: Position, moved: u16, size: u16) -> bool {
    // What changed hands must be visible before the wish is read (section 2.8.21.3.1).
    fence(Ordering::SeqCst);
    match theirs.load_u16(FLAGS) & FLAGS_MASK {
        FLAGS_DISABLE => false,
        FLAGS_DESC if event_idx => now.has_passed(theirs.load_u16(DESC), moved, size),
        _ => moved != 0,
    }
}
