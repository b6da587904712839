//! What is to be said of a guest that could not go on.

use alloc::string::String;
use core::fmt;

/// Why a vCPU gave up, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report(pub(crate) String);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
