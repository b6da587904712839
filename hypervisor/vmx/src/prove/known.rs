//! Where an emulator is known to say something else than the SDM, and why.
//!
//! Found by running, and read in the emulator's source (Bochs 2.7, `cpu/vmx.cc`). A processor that is
//! none of these has no disagreement to explain.

use chiton_core::vmx::check::{Outcome, Violation};
use chiton_core::vmx::field::AnyField;
use chiton_core::vmx::fields::*;

/// A known disagreement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// What it is, for people.
    pub(super) because: &'static str,
    /// What the processor does.
    processor: Outcome,
    /// Rules that it does not have; nothing else is broken. None: it has a rule more.
    rules: &'static [&'static str],
    /// The field that is broken, if it is about one alone.
    field: Option<AnyField>,
}

/// Bochs 2.7 has not these rules.
const fn lacks(rules: &'static [&'static str], because: &'static str) -> Known {
    Known {
        because,
        processor: Outcome::Entered,
        rules,
        field: None,
    }
}

/// All that are known.
pub(super) const KNOWN: &[Known] = &[
    lacks(
        &["guest_debugctl"],
        "Bochs 2.7 does not look at reserved bits of IA32_DEBUGCTL",
    ),
    lacks(
        &["guest_perf_global_ctrl", "host_perf_global_ctrl"],
        "Bochs 2.7 offers to load IA32_PERF_GLOBAL_CTRL, but has no such register",
    ),
    lacks(
        &["long_guest_paging"],
        "Bochs 2.7 does not ask for CR0.PG with \"IA-32e mode guest\"",
    ),
    lacks(
        &["guest_rip"],
        "Bochs 2.7 does not look at the upper bits of RIP in 64-bit mode",
    ),
    lacks(&["rflags_virtual_8086"], "Bochs 2.7 takes RFLAGS.VM without CR0.PE"),
    lacks(&["event_wakes"], "Bochs 2.7 injects any event into HLT"),
    lacks(&["nmi_into_nmi"], "Bochs 2.7 injects an NMI that is blocked by an NMI"),
    lacks(
        &["pending_debug_reserved"],
        "Bochs 2.7 looks at the lower half of the pending debug exceptions alone",
    ),
    lacks(
        &["pending_single_step"],
        "Bochs 2.7 does not look at BS of the pending debug exceptions",
    ),
    lacks(
        &["msr_entry_forbidden"],
        "Bochs 2.7 ignores the register IA32_SMM_MONITOR_CTL in a list",
    ),
    lacks(
        &["host_cet_needs_write_protection"],
        "Bochs 2.7 compares CR4.CET with CR0.WP of the host only with \"load CET state\"",
    ),
    lacks(
        &["injected_error_code_bit"],
        "Bochs 2.7 does not look at the bit of the error code on a processor that has CET",
    ),
    lacks(
        &["data_level"],
        "Bochs 2.7 does not count readable code (type 11) among the types with a level",
    ),
    Known {
        because: "Bochs 2.7 looks at nothing of a usable SS in 64-bit mode whose selector has level 0, and never compares its level with \
                  that of CS",
        processor: Outcome::Entered,
        rules: &[
            "ss_type",
            "cs_level",
            "segment_is_code_or_data",
            "segment_is_present",
            "segment_granularity",
            "segment_rights_reserved",
            "segment_base_upper",
        ],
        field: Some(GUEST_SS_ACCESS_RIGHTS.any()),
    },
    Known {
        because: "Bochs 2.7 does not know that \"entry to SMM\" is for SMM alone, and stumbles over the guest state",
        processor: Outcome::InvalidGuest,
        rules: &["smm_controls", "smi_blocking", "smm_wait_for_sipi"],
        field: None,
    },
    Known {
        because: "Bochs 2.7 does not look at the bit of the error code, and finds only that interrupts are off in the guest",
        processor: Outcome::InvalidGuest,
        rules: &["injected_error_code_bit", "rflags_interrupts"],
        field: Some(ENTRY_INTERRUPTION_INFORMATION.any()),
    },
    Known {
        because: "Bochs 2.7 wants the requested privilege level of CS to be its level, which is no rule of VM entries",
        processor: Outcome::InvalidGuest,
        rules: &[],
        field: Some(GUEST_CS_SELECTOR.any()),
    },
];

impl Known {
    /// The explanation of a disagreement, if there is one: of a case that changes these fields.
    pub(super) fn find(violations: &[Violation], processor: Outcome, changed: &[AnyField]) -> Option<usize> {
        KNOWN.iter().position(|known| {
            known.processor == processor
                && known.rules.is_empty() == violations.is_empty()
                && violations
                    .iter()
                    .all(|violation| known.rules.contains(&violation.rule.name))
                && known.field.is_none_or(|field| changed.contains(&field))
        })
    }
}

#[cfg(test)]
mod tests {
    use chiton_core::vmx::check::SECTIONS;

    use super::*;

    #[test]
    fn only_rules_are_lacked_that_there_are() {
        let rules: Vec<_> = SECTIONS
            .iter()
            .flat_map(|section| section.rules)
            .map(|rule| rule.name)
            .collect();
        for rule in KNOWN.iter().flat_map(|known| known.rules) {
            assert!(rules.contains(rule), "{rule}");
        }
    }

    #[test]
    fn a_disagreement_is_explained_by_field_or_rule_and_never_by_nothing() {
        assert_eq!(Known::find(&[], Outcome::InvalidHost, &[]), None);
        assert_eq!(
            Known::find(&[], Outcome::InvalidGuest, &[GUEST_SS_SELECTOR.any()]),
            None
        );
        assert!(Known::find(&[], Outcome::InvalidGuest, &[GUEST_CS_SELECTOR.any()]).is_some());
    }
}
