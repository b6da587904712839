//! Virtqueues, split (virtio 1.3, section 2.7) and packed (section 2.8), for both sides.
//!
//! - [`DriverQueue`] adds buffers and takes them back;
//! - [`DeviceQueue`] pops chains and pushes them back as used;
//! - [`reset`] takes all buffers back from a device that goes on with its other queues.
//!
//! Both are the same for either [`Format`], which the negotiated features choose: with or without indirect
//! descriptors ([`INDIRECT_DESC`](feature::INDIRECT_DESC)) and notifications by index ([`EVENT_IDX`](feature::EVENT_IDX)).
//! What a format is made of is in `split` and `packed`, a file for each side:
//!
//! ```text
//! DriverQueue ─┬─ split::driver  ══ available ring, used ring, table ══  split::device ─┬─ DeviceQueue
//!              └─ packed::driver ══════ one ring of descriptors ══════  packed::device ─┘
//! ```
//!
//! Neither side trusts what the other wrote: each keeps its own state in private memory, reads a
//! shared value once, checks the copy, and uses the copy. Memory is reached by [`Window`](memory::Window)s, which give
//! values and no references; whoever has memory to share implements [`GuestMemory`](memory::GuestMemory).
//!
//! The crate is `no_std`, allocates nothing, and knows no transport: where a queue is ([`QueueConfig`]), and how one side
//! tells the other of it, is up to the caller.
//!
//! # Example
//!
//! A driver asks, a device answers, in one piece of memory:
//!
//! ```
//! use std::ptr::NonNull;
//! use chiton_ring::memory::{GuestMemory, Window};
//! use chiton_ring::{Areas, Buffer, Chain, DeviceQueue, DriverQueue, Format, QueueConfig, feature};
//!
//! /// Guest-physical memory that begins at 0.
//! struct Ram<'m>(Window<'m>);
//! impl GuestMemory for Ram<'_> {
//!     fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
//!         self.0.part(address.try_into().ok()?, len)
//!     }
//! }
//!
//! #[repr(align(4096))]
//! struct Page([u8; 4096]);
//! let mut page = Page([0; 4096]);
//! // SAFETY: the page lives as long as the window, and is reached by it alone.
//! let ram = Ram(unsafe { Window::new(NonNull::from(&mut page.0).cast(), 4096) });
//!
//! for format in [Format::Split, Format::Packed] {
//!     let features = match format {
//!         Format::Split => feature::RING,
//!         Format::Packed => feature::RING | feature::RING_PACKED,
//!     };
//!     // Both sides begin with zeros.
//!     ram.0.write(0, &[0; 4096]);
//!     let (config, _) = QueueConfig::placed(format, 0, 8);
//!     let areas = Areas::find_as(format, &ram, &config).expect("it is in memory");
//!     let mut driver = DriverQueue::<8>::new(areas, 8, features)?;
//!     ram.0.write(0x800, b"question");
//!     let id = driver.add(&[Buffer::readable(0x800, 8), Buffer::writable(0x900, 6)])?;
//!     assert!(driver.wants_kick());
//!
//!     let (mut device, mut chain) = (DeviceQueue::new(config, features), Chain::new());
//!     let mut device = device.attach(&ram)?;
//!     assert!(device.pop(&mut chain)?);
//!     assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (8, 6));
//!     let answer = chain.writable()[0];
//!     ram.window(answer.address, 6).expect("a buffer in memory").write(0, b"answer");
//!     device.push(chain.head(), 6);
//!     assert!(device.wants_notification());
//!
//!     assert_eq!(driver.take()?, Some((id, 6)));
//!     assert_eq!(ram.0.read_array::<6>(0x900), *b"answer");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it is proven
//!
//! Property tests play both sides with random steps; each side runs against an implementation of others (rust-vmm's
//! `virtio-queue`, devices of QEMU) or of the specification's text; Loom tries every interleaving (`--cfg loom`, with which
//! [`memory`] stands on a model); Miri runs all of it; fuzzers play a hostile other side.
#![cfg_attr(not(test), no_std)]

pub mod chain;
mod descriptor;
pub mod device;
pub mod driver;
pub mod feature;
pub mod layout;
pub mod memory;
mod packed;
pub mod reset;
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
