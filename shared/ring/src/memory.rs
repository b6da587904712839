//! Access to memory that the other side may change at any time.
//!
//! A [`Window`] is a bounded piece of guest memory. It hands out values, never references, so
//! that whatever the other side writes meanwhile is at worst a strange value.
//!
//! Every access is atomic: acquire and release for the 16-bit fields by which the two sides
//! hand things over, relaxed for the rest. Under `cfg(loom)` the same interface stands on
//! memory whose every interleaving a test can walk through.

#[cfg(not(loom))]
mod host;
#[cfg(loom)]
mod model;

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::fence;
#[cfg(not(loom))]
pub use host::Window;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::fence;
#[cfg(loom)]
pub use model::{Memory, Window};

/// Guest-physical memory, as the device side sees it.
pub trait GuestMemory {
    /// The `len` bytes from guest-physical address `address` on, or `None` unless all of them are
    /// memory and lie in one piece on the host.
    ///
    /// Address and length come from the guest: any value must be answered, without a panic.
    ///
    /// Guest memory should begin at a multiple of 8 on the host, as every mapping does. A queue in
    /// memory that does not is refused ([`Areas::find`](crate::Areas::find)).
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>>;
}

impl<M: GuestMemory + ?Sized> GuestMemory for &M {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        (**self).window(address, len)
    }
}
