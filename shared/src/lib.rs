//! Every byte that a Chiton guest and its hypervisor agree on.
//!
//! ```text
//!   guest (driver side)                      hypervisor (device side)
//!        │  manifest  ── read from the ELF file before start ──▶ │
//!        │ ◀── boot page: memory, devices, queues, clock, args ── │
//!        │  doorbells ── one `out` each: kick, wait, exit, … ───▶ │
//!        │ ◀════════ virtio rings in guest memory ══════════════▶ │
//! ```
//!
//! | module | what it fixes |
//! |---|---|
//! | [`map`] | which guest-physical address holds what |
//! | [`manifest`] | the ELF note in which a guest states its needs |
//! | [`boot`] | the page from which a guest learns its world |
//! | [`call`] | how a guest that is a function is called |
//! | [`doorbell`] | the I/O ports a guest rings, and the mailbox |
//! | [`emulated`] | registers and structures of the devices that are not virtio |
//! | [`measure`] | the lines that a measuring guest prints |
//! | [`memory`] | volatile access to memory the other side may change at any time |
//! | [`patience`] | how long either side looks before it sleeps |
//! | [`virtio`] | rings, the register block, and the devices' structures |
//!
//! The crate is `no_std`, allocates nothing, and asserts every layout at compile time.
//!
//! # Example
//!
//! A manifest as a guest states it and the hypervisor reads it back:
//!
//! ```
//! use chiton_shared::manifest::{Feature, Manifest, Ring};
//!
//! let manifest = Manifest::new(Ring::User).stack(64 << 10).require(Feature::CONSOLE);
//! let read_back = Manifest::from_bytes(&manifest.to_bytes()).expect("a manifest of this version");
//! assert_eq!(read_back.ring(), Some(Ring::User));
//! assert!(read_back.required.contains(Feature::CONSOLE));
//! ```
#![cfg_attr(not(test), no_std)]

pub mod boot;
pub mod call;
pub mod doorbell;
pub mod emulated;
pub mod interrupts;
pub mod manifest;
pub mod map;
pub mod measure;
pub mod patience;
pub mod processor;
pub mod virtio;

#[doc(inline)]
pub use chiton_ring::memory;

/// The version of this contract. A guest and a hypervisor of different versions refuse each other.
pub const ABI_VERSION: u32 = 1;
