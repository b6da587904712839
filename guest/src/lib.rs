//! The library a Chiton guest is written with.
//!
//! ```text
//!   main ── println! · Disk · fs · net · vsock · entropy · time · log · Vec, Box, String …
//!             │
//!             ▼
//!   drivers ── Queue ── shared::virtio rings in memory ◀══▶ the host's devices
//!             │
//!             ▼
//!   doorbells: `out` to kick a queue, to wait, to exit, to panic
//! ```
//!
//! A guest is a program without an operating system. The host has set everything up before its
//! first instruction: memory is mapped, the stack stands, devices are ready; the
//! [boot page](chiton_shared::boot::BootPage) says where they are. So there is nothing to
//! initialize here, and a guest that does nothing costs two exits.
//!
//! # A whole guest
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//!
//! chiton_guest::entry!(main);
//!
//! fn main() {
//!     chiton_guest::println!("Hello from ring {}.", chiton_guest::env::ring());
//! }
//! ```
//!
//! The library compiles for the host as well, where its drivers are tested against devices made
//! of `shared`'s other half. There is nobody to answer a doorbell on the host: what rings one
//! faults there.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod balloon;
pub mod block;
pub mod boot;
pub mod call;
pub mod console;
pub mod emulated;
pub mod entropy;
pub mod entry;
pub mod env;
pub mod fs;
pub mod heap;
pub mod host;
pub mod interrupts;
pub mod journal;
mod lazy;
mod logger;
mod memory_functions;
pub mod negotiate;
#[cfg(feature = "net")]
pub mod net;
pub mod panic;
pub mod preempt;
pub mod processors;
pub mod queue;
pub mod random;
pub mod time;
pub mod tlb;
pub mod vsock;

#[cfg(test)]
mod testing;

pub use chiton_shared as shared;
pub use entry::{ExitCode, exit};
pub use log;

/// 1024 bytes.
pub const KIB: u64 = 1 << 10;
/// 1024 [`KIB`].
pub const MIB: u64 = 1 << 20;
