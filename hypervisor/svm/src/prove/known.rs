//! Where an emulator is known to say something else than the APM, and why.
//!
//! Found by running, and read in the emulator's source (QEMU 7.2, `target/i386/tcg/sysemu/svm_helper.c`). A processor
//! that is none of these has no disagreement to explain.

use chiton_core::svm::cases::Case;
use chiton_core::svm::check::Violation;
use chiton_core::svm::field::AnyField;
use chiton_core::svm::fields::{CR3, CR4, EFER, EVENTINJ, G_PAT, GUEST_ASID, MSRPM_BASE_PA, N_CR3};

/// A known disagreement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// What it is, for people.
    pub(super) because: &'static str,
    /// Whether the processor refuses what the checker finds good; else it enters what the checker finds broken.
    refuses: bool,
    /// The field that is broken, or was changed.
    field: AnyField,
    /// What the rule begins with, of those that are about the field.
    rule: &'static str,
    /// What the field has to hold, of the bits `.0` the value `.1`: so that no other case of it is explained.
    holds: (u64, u64),
}

/// QEMU 7.2 has not this rule.
const fn lacks(field: AnyField, rule: &'static str, because: &'static str) -> Known {
    Known {
        because,
        refuses: false,
        field,
        rule,
        holds: (0, 0),
    }
}

/// QEMU 7.2 has a rule more about this field.
const fn adds(field: AnyField, holds: (u64, u64), because: &'static str) -> Known {
    Known {
        because,
        refuses: true,
        field,
        rule: "",
        holds,
    }
}

/// All that are known.
pub(super) const KNOWN: &[Known] = &[
    lacks(
        GUEST_ASID.any(),
        "it must be one",
        "QEMU 7.2 compares the ASID with 0 alone, and not with how many there are",
    ),
    lacks(
        N_CR3.any(),
        "bits beyond",
        "QEMU 7.2 takes any nCR3, and finds no tables where no memory is",
    ),
    lacks(G_PAT.any(), "each byte", "QEMU 7.2 does not look at the guest's PAT"),
    lacks(
        EFER.any(),
        "bits that this processor reserves",
        "QEMU 7.2 has one mask of EFER for all processors, those too that have no FFXSR",
    ),
    lacks(
        CR4.any(),
        "bits that this processor reserves",
        "QEMU 7.2 does not reserve CR4.PCIDE where CPUID has no PCID",
    ),
    lacks(
        EVENTINJ.any(),
        "64-bit mode",
        "QEMU 7.2 injects #OF and #BR in 64-bit mode",
    ),
    adds(
        EVENTINJ.any(),
        (0x7ff, 0x31f),
        "QEMU 7.2 takes vector 31 for none of an exception",
    ),
    adds(
        EFER.any(),
        (1 << 13, 1 << 13),
        "QEMU 7.2 has no EFER.LMSLE, and its CPUID does not say so",
    ),
    adds(
        CR3.any(),
        (1 << 60, 1 << 60),
        "QEMU 7.2 looks at CR3 if the host is in long mode, whatever the guest is in",
    ),
    adds(
        MSRPM_BASE_PA.any(),
        (0xfff, 0),
        "QEMU 7.2 refuses the last place for the map of registers, which just fits",
    ),
];

impl Known {
    /// The explanation of a disagreement, if there is one.
    pub(super) fn find(violations: &[Violation], refused: bool, case: &Case) -> Option<usize> {
        let of = |known: &Known, violation: &Violation| {
            violation.field == known.field && violation.rule.starts_with(known.rule)
        };
        if refused {
            return KNOWN.iter().position(|known| {
                let (bits, value) = known.holds;
                let changed = |(field, to): &(AnyField, u64)| *field == known.field && to & bits == value;
                known.refuses && case.changes.iter().any(changed)
            });
        }
        // One rule that the processor does have would have been enough for it.
        let lacked = |violation: &Violation| KNOWN.iter().any(|known| !known.refuses && of(known, violation));
        let first = violations.first().filter(|_| violations.iter().all(lacked))?;
        KNOWN.iter().position(|known| !known.refuses && of(known, first))
    }
}

#[cfg(test)]
mod tests {
    use chiton_core::svm::PlainVmcb;
    use chiton_core::svm::cases::cases;

    use super::*;

    fn of<'a>(all: &'a [Case], name: &str) -> &'a Case {
        all.iter().find(|case| case.name == name).unwrap()
    }

    #[test]
    fn a_disagreement_is_explained_by_what_is_known_of_its_field_and_by_nothing_else() {
        let all = cases(&PlainVmcb::default(), 40);
        assert!(Known::find(&[], true, of(&all, "EVENTINJ: exception 31")).is_some());
        assert_eq!(Known::find(&[], true, of(&all, "EVENTINJ: exception 13")), None);
        assert_eq!(Known::find(&[], true, of(&all, "CR0: bit 0 set")), None);
    }

    #[test]
    fn a_rule_that_the_processor_has_is_not_outweighed_by_one_that_it_lacks() {
        let violation = |field, rule| Violation {
            field,
            value: 0,
            rule,
            section: "",
        };
        let (lacked, had) = (
            violation(G_PAT.any(), "each byte must be a memory type"),
            violation(CR4.any(), "PAE must be set"),
        );
        let all = cases(&PlainVmcb::default(), 40);
        assert!(Known::find(&[lacked], false, &all[0]).is_some());
        assert_eq!(Known::find(&[had], false, &all[0]), None);
        assert_eq!(Known::find(&[lacked, had], false, &all[0]), None);
    }
}
