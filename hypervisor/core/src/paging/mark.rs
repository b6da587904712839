//! The flags that the processor sets in the entries it uses.

use super::Format;

/// What the processor notes in the entry of a page (SDM volume 3C, section 30.3.5; APM volume 2,
/// section 15.25.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The page was used.
    Accessed,
    /// The page was written to.
    Dirty,
}

impl Mark {
    pub(super) fn bit<F: Format>(self) -> u64 {
        match self {
            Self::Accessed => F::ACCESSED,
            Self::Dirty => F::DIRTY,
        }
    }
}
