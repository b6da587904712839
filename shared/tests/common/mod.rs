//! What several tests need.

use chiton_shared::memory::{GuestMemory, Window};

mod memory;
pub(crate) use memory::Memory;
