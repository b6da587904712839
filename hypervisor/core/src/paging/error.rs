//! Why a change is refused.

use super::{MemoryType, Rights};

/// Why a change of the tables is refused, or ended in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An address or a length that is not one of whole pages.
    #[error("the {what} {value:#x} is not a multiple of 4 KiB")]
    Unaligned {
        /// Which of them.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// Addresses that the tables or the processor do not have.
    #[error("{len:#x} bytes at the {what} address {address:#x} reach beyond {limit:#x}, where such addresses end")]
    Beyond {
        /// Of the guest or of the host.
        what: &'static str,
        /// The first address.
        address: u64,
        /// So many bytes from there.
        len: u64,
        /// The first address that there is not.
        limit: u64,
    },
    /// Something is mapped already.
    #[error("the guest-physical address {address:#x} is mapped already: unmap it first, or remap it")]
    Mapped {
        /// Where.
        address: u64,
    },
    /// Rights that no entry can have.
    #[error("no {1} entry of this processor can allow {0}")]
    Rights(Rights, &'static str),
    /// A memory type that no entry can have.
    #[error("no {1} entry of this processor can have the memory type {0}")]
    MemoryType(MemoryType, &'static str),
    /// No page for another table. What was changed until then stays changed.
    #[error("no page is left for a page table")]
    NoPages,
}
