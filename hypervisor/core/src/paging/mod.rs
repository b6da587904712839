//! Second-level paging: the tables by which a processor turns what a guest takes for physical
//! addresses into the host's.
//!
//! ```text
//!  guest-physical ──► Table<Ept> or Table<Npt>   map, remap, unmap, protect, split
//!                        │     │
//!                        │     └─ Change ── settle(INVEPT, TLB flush) ──► outcome
//!                        └─ path(address) ──► the entries on the way
//! ```
//!
//! Only memory is touched here; the instructions that tell the processor of a change are the
//! backends'. [`Ept`] is Intel's format of an entry, [`Npt`] is AMD's; all else is the same for both.
//! Pages for tables come from [`Physical`](crate::physical::Physical), and the processor may use
//! and mark the tables while they are changed.
//!
//! Sections of the SDM are those of the editions from October 2024 to the end of 2025, where paging is chapter 5
//! of volume 3A and "VMX support for address translation" chapter 30 of volume 3C.

mod edit;
mod ept;
mod error;
mod format;
mod invalidation;
mod mark;
mod memory_type;
mod mtrr;
mod nested;
mod npt;
mod pat;
mod path;
mod rights;
mod size;
mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod violation;

pub use ept::{Ept, EptError};
pub use error::Error;
pub use format::{Broken, Format, Page};
pub use invalidation::Invalidation;
pub use mark::Mark;
pub use memory_type::{MemoryType, effective};
pub use mtrr::Mtrrs;
pub use nested::{Access, MOST_LOADS, Nested, NestedEnd, Way, walk};
pub use npt::Npt;
pub use pat::Pat;
pub use path::{Path, Step};
pub use rights::Rights;
pub use size::Size;
pub use table::{Change, GUEST_END, Table};
pub use violation::{Cause, Purpose, Violation};
