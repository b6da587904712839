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
    /// The fields that break them.
    fields: &'static [AnyField],
    /// The fields of which one was changed.
    changed: &'static [AnyField],
}

/// Bochs 2.7 has not this rule about these fields.
const fn lacks(rule: &'static [&'static str; 1], fields: &'static [AnyField], because: &'static str) -> Known {
    Known {
        because,
        processor: Outcome::Entered,
        rules: rule,
        fields,
        changed: fields,
    }
}

/// All that are known.
pub(super) const KNOWN: &[Known] = &[
    lacks(
        &["guest_debugctl"],
        &[GUEST_DEBUGCTL.any()],
        "Bochs 2.7 does not look at reserved bits of IA32_DEBUGCTL",
    ),
    lacks(
        &["guest_perf_global_ctrl"],
        &[GUEST_PERF_GLOBAL_CTRL.any()],
        "Bochs 2.7 offers to load the guest's IA32_PERF_GLOBAL_CTRL, but has no such register",
    ),
    lacks(
        &["host_perf_global_ctrl"],
        &[HOST_PERF_GLOBAL_CTRL.any()],
        "Bochs 2.7 offers to load the host's IA32_PERF_GLOBAL_CTRL, but has no such register",
    ),
    lacks(
        &["long_guest_paging"],
        &[GUEST_CR0.any()],
        "Bochs 2.7 does not ask for CR0.PG with \"IA-32e mode guest\"",
    ),
    lacks(
        &["guest_rip"],
        &[GUEST_RIP.any()],
        "Bochs 2.7 does not look at the upper bits of RIP in 64-bit mode",
    ),
    lacks(
        &["rflags_virtual_8086"],
        &[GUEST_RFLAGS.any()],
        "Bochs 2.7 takes RFLAGS.VM without CR0.PE",
    ),
    lacks(
        &["event_wakes"],
        &[GUEST_ACTIVITY_STATE.any()],
        "Bochs 2.7 injects any event into HLT",
    ),
    lacks(
        &["nmi_into_nmi"],
        &[GUEST_INTERRUPTIBILITY_STATE.any()],
        "Bochs 2.7 injects an NMI that is blocked by an NMI",
    ),
    lacks(
        &["pending_debug_reserved"],
        &[GUEST_PENDING_DEBUG_EXCEPTIONS.any()],
        "Bochs 2.7 looks at the lower half of the pending debug exceptions alone",
    ),
    Known {
        because: "Bochs 2.7 does not look at BS of the pending debug exceptions",
        processor: Outcome::Entered,
        rules: &["pending_single_step"],
        fields: &[GUEST_PENDING_DEBUG_EXCEPTIONS.any()],
        // It is wrong too if it stays, and what waits is other.
        changed: &[GUEST_PENDING_DEBUG_EXCEPTIONS.any(), GUEST_INTERRUPTIBILITY_STATE.any()],
    },
    lacks(
        &["msr_entry_forbidden"],
        &[ENTRY_MSR_LOAD_ADDRESS.any()],
        "Bochs 2.7 ignores the registers IA32_SMM_MONITOR_CTL and IA32_SMBASE in a list",
    ),
    lacks(
        &["host_cet_needs_write_protection"],
        &[HOST_CR4.any()],
        "Bochs 2.7 compares CR4.CET with CR0.WP of the host only with \"load CET state\"",
    ),
    lacks(
        &["injected_error_code_bit"],
        &[ENTRY_INTERRUPTION_INFORMATION.any()],
        "Bochs 2.7 does not look at the bit of the error code on a processor that has CET",
    ),
    lacks(
        &["data_level"],
        &[
            GUEST_DS_ACCESS_RIGHTS.any(),
            GUEST_ES_ACCESS_RIGHTS.any(),
            GUEST_FS_ACCESS_RIGHTS.any(),
            GUEST_GS_ACCESS_RIGHTS.any(),
        ],
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
        // The level is told of the register that is compared with SS.
        fields: &[
            GUEST_SS_ACCESS_RIGHTS.any(),
            GUEST_SS_BASE.any(),
            GUEST_CS_ACCESS_RIGHTS.any(),
        ],
        changed: &[GUEST_SS_ACCESS_RIGHTS.any()],
    },
    Known {
        because: "Bochs 2.7 does not know that \"entry to SMM\" is for SMM alone, and stumbles over the guest state",
        processor: Outcome::InvalidGuest,
        rules: &["smm_controls", "smi_blocking", "smm_wait_for_sipi"],
        fields: &[
            ENTRY_CONTROLS.any(),
            GUEST_INTERRUPTIBILITY_STATE.any(),
            GUEST_ACTIVITY_STATE.any(),
        ],
        changed: &[ENTRY_CONTROLS.any()],
    },
    Known {
        because: "Bochs 2.7 does not look at the bit of the error code, and finds only that interrupts are off in the guest",
        processor: Outcome::InvalidGuest,
        rules: &["injected_error_code_bit", "rflags_interrupts"],
        fields: &[ENTRY_INTERRUPTION_INFORMATION.any(), GUEST_RFLAGS.any()],
        changed: &[ENTRY_INTERRUPTION_INFORMATION.any()],
    },
    Known {
        because: "Bochs 2.7 wants the requested privilege level of CS to be its level, which is no rule of VM entries",
        processor: Outcome::InvalidGuest,
        rules: &[],
        fields: &[],
        changed: &[GUEST_CS_SELECTOR.any()],
    },
];

impl Known {
    /// The explanation of a disagreement, if there is one: of a case that changes these fields.
    pub(super) fn find(violations: &[Violation], processor: Outcome, changed: &[AnyField]) -> Option<usize> {
        KNOWN.iter().position(|known| {
            known.processor == processor
                && known.rules.is_empty() == violations.is_empty()
                && violations.iter().all(|violation| {
                    known.rules.contains(&violation.rule.name) && known.fields.contains(&violation.field)
                })
                && known.changed.iter().any(|field| changed.contains(field))
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
    fn each_names_its_fields() {
        for known in KNOWN {
            assert_eq!(known.fields.is_empty(), known.rules.is_empty(), "{}", known.because);
            assert!(!known.changed.is_empty(), "{}", known.because);
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
