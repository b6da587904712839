//! What a VMCS holds before the first entry, a file for each part.

pub(crate) mod bitmaps;
pub(crate) mod controls;
pub(crate) mod guest;
pub(crate) mod host;
pub(crate) mod msr_lists;
