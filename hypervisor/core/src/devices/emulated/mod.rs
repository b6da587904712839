//! Devices that are driven by registers alone, as real hardware is: what virtio is measured against.
//!
//! ```text
//!  driver ── a register, and another, and another ──▶ Disk ──▶ the trait Disk of virtio's
//!         ◀─ a word of data, and another, …            Nic ──▶ the trait Link of virtio's
//! ```
//!
//! The twins stand before the same backends as [`Block`](super::Block) and [`Net`](super::Net), so
//! that only the interface differs. They are small, and no quicker than they must be: the cost of
//! such a device is the exits, not the code behind them.
//!
//! A driver may write anything to any register, in any order and width. What makes no sense reads
//! as all ones and is not written; one call does a bounded amount of work.

pub mod disk;
pub mod nic;

#[cfg(test)]
mod tests;

pub use disk::Disk;
pub use nic::Nic;

use chiton_shared::memory::{GuestMemory, Window};

use super::buffers::is_writable;

/// A device behind registers of its own.
pub trait Emulated: Send {
    /// What the boot page calls it: of [`chiton_shared::emulated::id`].
    fn id(&self) -> u32;

    /// The driver reads `data.len()` bytes at this offset of the register block.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// The driver writes there. Whatever that starts is done when the call returns.
    fn write(&mut self, offset: u64, data: &[u8], memory: &dyn GuestMemory);

    /// Input may have come: takes it in.
    fn work(&mut self, _memory: &dyn GuestMemory) {}

    /// Whether the interrupt line is up.
    fn interrupt(&self) -> bool;

    /// Whether it has room for input, which the host then has to watch for.
    fn wants_input(&self) -> bool {
        false
    }

    /// How many operations have failed, or frames were lost, since it was made.
    fn failures(&self) -> u64;
}

/// Guest memory that a device may use: what the host built is out of reach for writing.
fn window(memory: &dyn GuestMemory, address: u64, len: usize, write: bool) -> Option<Window<'_>> {
    if write && !is_writable(address) {
        return None;
    }
    memory.window(address, len)
}
