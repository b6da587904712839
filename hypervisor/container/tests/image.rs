//! Images: archives made by code, real file systems, real registries, and other programs as oracles.

#![allow(clippy::unwrap_used, missing_docs, reason = "it is a test")]

#[path = "image/support.rs"]
mod support;

#[path = "image/hostile.rs"]
mod hostile;
#[path = "image/oracles.rs"]
mod oracles;
#[path = "image/overlay.rs"]
mod overlay;
#[path = "image/registry.rs"]
mod registry;
#[path = "image/round_trip.rs"]
mod round_trip;
#[path = "image/store.rs"]
mod store;
#[path = "image/trouble.rs"]
mod trouble;
