//! Loading MSRs from the VM-entry MSR-load area (SDM volume 3C, section 28.4), after the guest state
//! has been found valid.
//!
//! The rules are those that hold for every processor. An entry for a register that this processor does
//! not have, or with a value that its WRMSR refuses, fails too, and is not found here.

use super::entry::Entry;
use super::{Outcome, Rule, Section};
use crate::vmx::fields::*;

/// The most entries that are looked at; no processor promises to take more (SDM volume 3D, section A.6).
const MOST: u32 = 4096;

/// An entry of a list of MSRs (SDM volume 3C, section 26.7.2): number, reserved, value.
fn each(entry: &Entry<'_>) -> impl Iterator<Item = [u64; 2]> {
    let start = entry.get(ENTRY_MSR_LOAD_ADDRESS);
    let count = entry.get(ENTRY_MSR_LOAD_COUNT).min(MOST);
    // A list that is not where memory can be fails for that, and is not read.
    let count = if entry.no_msr_list(start, count) { 0 } else { count };
    (0..u64::from(count)).map_while(move |index| {
        let at = start.checked_add(16 * index)?;
        Some([entry.memory.read_physical(at)?, entry.memory.read_physical(at + 8)?])
    })
}

/// The rules.
pub const LOADING: Section = Section {
    number: "28.4",
    title: "Loading MSRs",
    outcome: Outcome::InvalidMsr,
    rules: &[
        Rule::new(
            "msr_entry_reserved",
            "bits 63:32 of each entry's first word are 0",
            |entry, broken| {
                for [head, _] in each(entry).filter(|[head, _]| head >> 32 != 0) {
                    broken.value(ENTRY_MSR_LOAD_ADDRESS, head);
                }
            },
        ),
        Rule::new(
            "msr_entry_forbidden",
            "no entry loads IA32_FS_BASE, IA32_GS_BASE (they are in the guest state), IA32_SMM_MONITOR_CTL, IA32_SMBASE \
             or IA32_BIOS_UPDT_TRIG",
            |entry, broken| {
                for [head, _] in each(entry) {
                    if matches!(head & 0xffff_ffff, 0xc000_0100 | 0xc000_0101 | 0x9b | 0x9e | 0x79) {
                        broken.value(ENTRY_MSR_LOAD_ADDRESS, head & 0xffff_ffff);
                    }
                }
            },
        ),
        Rule::new(
            "msr_entry_x2apic",
            "no entry loads a register of the local APIC (0x800 to 0x8ff)",
            |entry, broken| {
                for [head, _] in each(entry).filter(|[head, _]| head >> 8 & 0xff_ffff == 8) {
                    broken.value(ENTRY_MSR_LOAD_ADDRESS, head & 0xffff_ffff);
                }
            },
        ),
    ],
};
