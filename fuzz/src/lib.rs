//! What the fuzz targets share: a reader of the fuzzer's bytes, and a guest that plays with a
//! device's registers, rings and memory as the bytes say.

use chiton_shared::memory::{GuestMemory, Window};

pub mod emulated;
pub mod guest;
pub mod ring;
pub mod script;

#[path = "../../shared/ring/tests/common/memory.rs"]
pub mod memory;
