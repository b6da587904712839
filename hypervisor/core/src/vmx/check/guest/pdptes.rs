//! Checks on guest page-directory-pointer-table entries, which PAE paging keeps in the processor.

use crate::vmx::check::entry::{Entry, beyond, bit};
use crate::vmx::check::{Outcome, Rule, Section};
use crate::vmx::controls::secondary;
use crate::vmx::fields::*;

/// Whether the guest uses PAE paging (SDM volume 3A, section 5.1.1).
fn pae_paging(entry: &Entry<'_>) -> bool {
    bit(entry.get(GUEST_CR0), 31) && bit(entry.get(GUEST_CR4), 5) && !entry.long()
}

/// Whether an entry is present and has a reserved bit: 2:1, 8:5, or beyond the physical-address width.
fn invalid(entry: &Entry<'_>, value: u64) -> bool {
    let reserved = value & 0x1e6 != 0 || beyond(value, entry.capabilities.processor.physical_bits);
    bit(value, 0) && reserved
}

/// The rules.
pub const PDPTES: Section = Section {
    number: "28.3.1.6",
    title: "Guest page-directory-pointer-table entries",
    outcome: Outcome::InvalidGuest,
    rules: &[
        Rule::new(
            "pdpte_fields",
            "with \"enable EPT\" and PAE paging, if it is present (bit 0), bits 2:1, 8:5 and those beyond the \
             physical-address width are 0",
            |entry, broken| {
                if entry.secondary(secondary::ENABLE_EPT) && pae_paging(entry) {
                    for field in [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3] {
                        broken.when(invalid(entry, entry.get(field)), field);
                    }
                }
            },
        ),
        Rule::new(
            "pdptes_in_memory",
            "without \"enable EPT\", with PAE paging, in each entry at CR3 that is present (bit 0), bits 2:1, 8:5 and \
             those beyond the physical-address width are 0",
            |entry, broken| {
                if !entry.secondary(secondary::ENABLE_EPT) && pae_paging(entry) {
                    // The table is 32 bytes, so aligned (SDM volume 3A, table 5-7).
                    let table = entry.get(GUEST_CR3) & 0xffff_ffe0;
                    for index in 0..4 {
                        let value = entry.memory.read_physical(table + 8 * index);
                        if let Some(value) = value.filter(|value| invalid(entry, *value)) {
                            broken.value(GUEST_CR3, value);
                        }
                    }
                }
            },
        ),
    ],
};
