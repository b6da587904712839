//! Guest memory for the tests of this folder; those in `tests/` use the same.

use crate::memory::{GuestMemory, Window};

#[path = "../tests/common/memory.rs"]
mod memory;
pub(super) use memory::Memory;
