//! Checks on VMX controls (SDM volume 3C, section 28.2.1).

mod entry;
mod execution;
mod exit;

pub use entry::ENTRY;
pub use execution::EXECUTION;
pub use exit::EXIT;
