//! Virtqueues, split (section 2.7) and packed (section 2.8), for both sides.
//!
//! - [`driver::DriverQueue`] adds buffers and takes them back;
//! - [`device::DeviceQueue`] pops chains and pushes them back as used.
//!
//! Both are the same for either [`Format`], which the negotiated features choose. What a format
//! is made of is in `split` and `packed`, a file for each side:
//!
//! ```text
//! DriverQueue ─┬─ split::driver  ══ available ring, used ring, table ══  split::device ─┬─ DeviceQueue
//!              └─ packed::driver ══════ one ring of descriptors ══════  packed::device ─┘
//! ```
//!
//! Neither side trusts what the other wrote: each keeps its own state in private memory, reads a
//! shared value once, checks the copy, and uses the copy.

pub mod chain;
mod descriptor;
pub mod device;
pub mod driver;
pub mod layout;
mod packed;
mod split;

pub use chain::{Buffer, Chain};
pub use device::{DeviceQueue, QueueError};
pub use driver::{DriverError, DriverQueue};
pub use layout::{Areas, Format, QueueConfig};

/// The greatest queue size here. The specification allows 32768; nothing of Chiton's gains from
/// more than this, and it bounds what a hostile guest can make the host walk.
pub const MAX_SIZE: u16 = 256;

/// The greatest number of bytes that the buffers of a chain may have together (section 2.7.5.2).
pub const MAX_BYTES: u64 = 1 << 32;

#[cfg(all(test, not(loom)))]
mod properties;
#[cfg(all(test, not(loom)))]
mod testing;
