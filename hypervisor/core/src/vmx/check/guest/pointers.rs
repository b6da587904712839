//! Checks on guest RIP, RFLAGS, and SSP.

use crate::vmx::check::entry::{Entry, bit, upper_alike};
use crate::vmx::check::{Outcome, Rule, Section};
use crate::vmx::controls::entry;
use crate::vmx::event::Kind;
use crate::vmx::fields::*;

/// Bits of RFLAGS that are always 0: 63:22, 15, 5 and 3.
const RFLAGS_ZERO: u64 = !0 << 22 | 1 << 15 | 1 << 5 | 1 << 3;
/// Bit of RFLAGS that is always 1.
const RFLAGS_ONE: u64 = 1 << 1;

/// Whether an address fits the guest's mode: in 64-bit mode all bits above those that count are alike,
/// which is less than canonical; otherwise bits 63:32 are 0.
fn fits_mode(entry: &Entry<'_>, address: u64) -> bool {
    if entry.bits_64() {
        upper_alike(address, entry.capabilities.processor.linear_bits)
    } else {
        address >> 32 == 0
    }
}

/// The rules.
pub const POINTERS: Section = Section {
    number: "28.3.1.4",
    title: "Guest RIP, RFLAGS, and SSP",
    outcome: Outcome::InvalidGuest,
    rules: &[
        Rule::new(
            "guest_rip",
            "outside 64-bit mode bits 63:32 are 0; in it, all bits above those of a linear address are alike",
            |entry, broken| broken.when(!fits_mode(entry, entry.get(GUEST_RIP)), GUEST_RIP),
        ),
        Rule::new(
            "rflags_reserved",
            "bits 63:22, 15, 5 and 3 are 0, and bit 1 is 1",
            |entry, broken| {
                let rflags = entry.get(GUEST_RFLAGS);
                broken.when(rflags & RFLAGS_ZERO != 0 || rflags & RFLAGS_ONE == 0, GUEST_RFLAGS);
            },
        ),
        Rule::new(
            "rflags_virtual_8086",
            "VM (bit 17) is 0 with \"IA-32e mode guest\", and without CR0.PE",
            |entry, broken| {
                let impossible = entry.long() || !bit(entry.get(GUEST_CR0), 0);
                broken.when(entry.virtual_8086() && impossible, GUEST_RFLAGS);
            },
        ),
        Rule::new(
            "rflags_interrupts",
            "IF (bit 9) is 1 if an external interrupt is injected",
            |entry, broken| {
                let interrupt = entry
                    .injected()
                    .is_some_and(|event| event.kind() == Kind::ExternalInterrupt);
                broken.when(interrupt && !bit(entry.get(GUEST_RFLAGS), 9), GUEST_RFLAGS);
            },
        ),
        Rule::new(
            "guest_ssp",
            "with \"load CET state\", bits 1:0 are 0; outside 64-bit mode bits 63:32 are 0; in it, all bits above those of \
             a linear address are alike",
            |e, broken| {
                let ssp = e.get(GUEST_SSP);
                broken.when(
                    e.entry(entry::LOAD_CET_STATE) && (ssp & 3 != 0 || !fits_mode(e, ssp)),
                    GUEST_SSP,
                );
            },
        ),
    ],
};
