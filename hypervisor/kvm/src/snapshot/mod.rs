//! Snapshots: a guest with everything it has, in a file from which it, and any number of clones, go on.
//!
//! ```text
//!  running guest ── take ──▶ file ── open ──▶ Snapshot ── Guest::from_snapshot ──▶ a guest that goes on
//!    processors held,         memory as it is mapped,       memory mapped copy-on-write,
//!    devices idle             description, checksums        a new generation, the time of now
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `format` | every byte of the file |
//! | `write` | a file from memory and a description |
//! | `open` | a file is checked, and memory made of it |
//! | `take` | the guest is held, and asked for everything |
//! | `resume` | what a guest that goes on is told |

mod error;
pub mod format;
mod open;
pub(crate) mod resume;
pub(crate) mod take;
pub(crate) mod write;

pub use error::{SnapshotError, TakeError};
pub use open::Snapshot;
pub use take::Taken;
