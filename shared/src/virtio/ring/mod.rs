//! The split virtqueue (section 2.7), for both sides.
//!
//! ```text
//!            driver area (available ring)          device area (used ring)
//!            written by the driver                 written by the device
//! driver ──▶ [flags|idx|ring…|used_event]   ◀──▶   [flags|idx|ring…|avail_event] ◀── device
//!                       │ heads                              ▲ heads, bytes written
//!                       ▼                                    │
//!            descriptor table: [addr|len|flags|next] …  ─────┘
//! ```
//!
//! - [`driver::DriverQueue`] adds buffers and takes them back;
//! - [`device::DeviceQueue`] pops chains and pushes them back as used.
//!
//! Neither trusts what the other wrote: each keeps its own state in private memory, reads a
//! shared value once, checks the copy, and uses the copy.

pub mod chain;
pub mod device;
pub mod driver;
pub mod layout;

pub use chain::{Buffer, Chain};
pub use device::{DeviceQueue, QueueError};
pub use driver::{DriverError, DriverQueue};
pub use layout::{Areas, QueueConfig};

/// The greatest queue size here. The specification allows 32768; nothing of Chiton's gains from
/// more than this, and it bounds what a hostile guest can make the host walk.
pub const MAX_SIZE: u16 = 256;

/// The greatest number of bytes that the buffers of a chain may have together (section 2.7.5.2).
pub const MAX_BYTES: u64 = 1 << 32;

/// Whether a notification is due under `VIRTIO_F_EVENT_IDX` (section 2.7.7 and 2.7.10): an index
/// moved from `old` to `new`, and the other side asked to hear when it passes `event`.
#[must_use]
pub const fn passes(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Moves `index` on by one.
///
/// `told` is where it stood when the other side was last considered for a notification. It is
/// dragged along once it is a whole turn behind: else 65536 steps would look like none.
const fn step(index: &mut u16, told: &mut u16) {
    *index = index.wrapping_add(1);
    if *index == *told {
        *told = told.wrapping_add(1);
    }
}

#[cfg(all(test, not(loom)))]
mod properties;
#[cfg(all(test, not(loom)))]
mod testing;

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn an_event_is_due_when_the_index_steps_over_it() {
        assert!(passes(5, 5, 6));
        assert!(!passes(6, 5, 6));
        assert!(passes(u16::MAX, u16::MAX, 0));
        assert!(!passes(3, 7, 7));
    }
}
