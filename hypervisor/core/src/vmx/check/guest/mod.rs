//! Checks on the guest-state area (SDM volume 3C, section 28.3.1).

mod activity;
mod pdptes;
mod pointers;
pub(super) mod registers;
mod segments;
mod tables;

pub use activity::ACTIVITY;
pub use pdptes::PDPTES;
pub use pointers::POINTERS;
pub use registers::REGISTERS;
pub use segments::SEGMENTS;
pub use tables::TABLES;

use super::entry::{Entry, bit};
use crate::vmx::controls::{entry, secondary};
use crate::vmx::event::Event;
use crate::vmx::fields::*;

/// What the rules of the guest ask more than once.
impl Entry<'_> {
    /// The guest will be in IA-32e mode.
    fn long(&self) -> bool {
        self.entry(entry::IA32E_MODE_GUEST)
    }

    /// The guest will be in 64-bit mode: IA-32e mode, and L (bit 13) of CS.
    fn bits_64(&self) -> bool {
        self.long() && bit(u64::from(self.get(GUEST_CS_ACCESS_RIGHTS)), 13)
    }

    /// The guest will be in virtual-8086 mode: VM (bit 17) of RFLAGS.
    fn virtual_8086(&self) -> bool {
        bit(self.get(GUEST_RFLAGS), 17)
    }

    /// The guest may be in real mode, or without paging.
    pub(super) fn unrestricted(&self) -> bool {
        self.secondary(secondary::UNRESTRICTED_GUEST)
    }

    /// The guest will use FRED transitions: FRED (bit 32) of CR4.
    pub(super) fn uses_fred(&self) -> bool {
        bit(self.get(GUEST_CR4), 32)
    }

    /// The event to inject, if there is one.
    pub(super) fn injected(&self) -> Option<Event> {
        Some(Event(self.get(ENTRY_INTERRUPTION_INFORMATION))).filter(|event| event.is_valid())
    }
}
