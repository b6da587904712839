//! Checks on guest descriptor-table registers.

use crate::vmx::check::{Outcome, Rule, Section};
use crate::vmx::fields::*;

/// The rules.
pub const TABLES: Section = Section {
    number: "28.3.1.3",
    title: "Guest descriptor-table registers",
    outcome: Outcome::InvalidGuest,
    rules: &[
        Rule::new("table_base_canonical", "it is a canonical address", |entry, broken| {
            for field in [GUEST_GDTR_BASE, GUEST_IDTR_BASE] {
                broken.when(!entry.canonical(entry.get(field)), field);
            }
        }),
        Rule::new("table_limit", "bits 31:16 are 0", |entry, broken| {
            for field in [GUEST_GDTR_LIMIT, GUEST_IDTR_LIMIT] {
                broken.when(entry.get(field) >> 16 != 0, field);
            }
        }),
    ],
};
