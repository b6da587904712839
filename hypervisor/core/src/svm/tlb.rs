//! TLB_CONTROL: which translations VMRUN forgets (APM volume 2, section 15.16.1).
//!
//! A guest's translations, nested ones too, are tagged by its ASID, so nothing is forgotten at entries and
//! exits unless it is asked for. Who changes nested tables, gives an ASID to another guest, or
//! moves a guest to another processor, asks.

use super::Features;

/// Nothing.
pub const NOTHING: u8 = 0;
/// All translations of all ASIDs, the host's too.
pub const EVERYTHING: u8 = 1;
/// The guest's ASID; with FlushByAsid.
pub const GUEST: u8 = 3;
/// The guest's ASID, but for global pages; with FlushByAsid.
pub const GUEST_NOT_GLOBAL: u8 = 7;

/// How a processor forgets the least that contains all translations of the guest.
#[must_use]
pub const fn forget_guest(features: Features) -> u8 {
    if features.has(Features::FLUSH_BY_ASID) {
        GUEST
    } else {
        EVERYTHING
    }
}
