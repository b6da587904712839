//! What several tests need.

use chiton_ring::memory::{GuestMemory, Window};

mod memory;
pub(crate) use memory::Memory;
