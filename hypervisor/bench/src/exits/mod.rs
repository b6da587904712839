//! What each kind of exit costs: the suite `chiton-bench exits`.
//!
//! ```text
//!   catalogue  which cases there are, and what each needs
//!      │
//!   suite      a machine for all that need the same; what hangs or is killed costs one case
//!      │            │ starts this program again as `machine`, and reads its lines
//!      ▼            ▼
//!   records ◀── machine   guest `vmexit` on KVM, with all that the cases need of a host
//!      │
//!   convert    ticks less what the clock itself takes ──▶ Case
//! ```
//!
//! The lines are the same whoever runs the guest, so [`records`] also reads those that a bare machine has printed.

pub mod bare;
pub mod calibrate;
pub mod catalogue;
pub mod convert;
mod error;
pub mod host_calls;
pub mod machine;
pub mod native;
pub mod nested;
pub mod records;
pub mod suite;

pub use error::ExitsError;
