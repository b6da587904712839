//! The packed virtqueue (section 2.8).
//!
//! ```text
//!          descriptor ring, written by both
//! driver ─▶ [addr|len|id|flags] [addr|len|id|flags] … ◀─ device
//!              available: AVAIL = driver's wrap counter, USED its inverse
//!              used:      AVAIL = USED = device's wrap counter
//! driver ─▶ driver area: what the driver wants to hear of ─▶ device
//! driver ◀─ device area: what the device wants to hear of ◀─ device
//! ```
//!
//! `flags` is the field by which a descriptor changes hands; it is written last and read first.

pub(super) mod device;
pub(super) mod driver;
pub(super) mod event;
mod layout;
mod position;
