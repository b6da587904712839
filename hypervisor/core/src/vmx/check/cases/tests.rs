use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::vmx::check::{Findings, NoMemory, Outcome, SECTIONS, Violation, check, outcome, rules, sample};
use crate::vmx::controls::primary;
use crate::vmx::field::Encoding;
use crate::vmx::fields::*;
use crate::vmx::{Capabilities, NoSuchField, PlainVmcs, VmcsFields, VmcsRead, VmcsWrite};

/// Where the scratch page is in tests.
const SCRATCH: u64 = 0x50_0000;

/// What the checker says of a case.
fn violations(case: &Case) -> Vec<Violation> {
    let mut vmcs = Placed(sample::vmcs());
    case.apply(&mut vmcs, SCRATCH).unwrap();
    let bytes = |address: u64| {
        let offset = address.checked_sub(SCRATCH).filter(|offset| *offset < 0x1000)?;
        Some(
            case.memory
                .iter()
                .find(|(at, _)| *at == offset)
                .map_or(0, |(_, bytes)| *bytes),
        )
    };
    check(&vmcs, &sample::capabilities(), &bytes)
}

/// The rules that are broken.
fn names(violations: &[Violation]) -> BTreeSet<&'static str> {
    violations.iter().map(|violation| violation.rule.name).collect()
}

#[test]
fn a_good_vmcs_breaks_no_rule() {
    let found = check(&sample::vmcs(), &sample::capabilities(), &NoMemory);
    assert_eq!(names(&found), BTreeSet::new(), "{}", Findings(&found));
    assert!(Findings(&found).to_string().starts_with("entry check: all "));
}

#[test]
fn each_case_breaks_its_rule_and_no_other() {
    let mut wrong = String::new();
    for case in cases() {
        let found = violations(&case);
        let expected = case.also.iter().copied().chain(case.rule).collect::<BTreeSet<_>>();
        if names(&found) != expected {
            wrong.push_str(&format!("{} (breaks {expected:?}):\n{}", case.name, Findings(&found)));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The rule that no change of a VMCS breaks on the processor of the sample; it has a test of its own below.
const APART: [&str; 1] = ["eptp_accessed_dirty"];

#[test]
fn every_rule_has_a_case() {
    let cased = cases()
        .into_iter()
        .filter_map(|case| case.rule)
        .chain(APART)
        .collect::<BTreeSet<_>>();
    let rules = SECTIONS
        .iter()
        .flat_map(|section| section.rules)
        .map(|rule| rule.name)
        .collect::<BTreeSet<_>>();
    assert_eq!(cased, rules);
    assert_eq!(
        SECTIONS.iter().map(|section| section.rules.len()).sum::<usize>(),
        rules.len(),
        "names are unique"
    );
}

#[test]
fn cases_have_names_of_their_own() {
    let mut seen = BTreeMap::new();
    for case in cases() {
        *seen.entry((case.rule, case.name)).or_insert(0) += 1;
    }
    // The three lists of MSRs have cases of one name, each for its own rule.
    assert!(seen.values().all(|count| *count == 1), "{seen:#?}");
}

#[test]
fn accessed_and_dirty_bits_need_a_processor_that_has_them() {
    let mut vmcs = sample::vmcs();
    vmcs.set(EPT_POINTER, 0x10_0000 | 1 << 6 | 3 << 3 | 6).unwrap();
    let mut capabilities = sample::capabilities();
    assert!(check(&vmcs, &capabilities, &NoMemory).is_empty());
    capabilities.ept_vpid.0 &= !(1 << 21);
    assert_eq!(
        names(&check(&vmcs, &capabilities, &NoMemory)),
        BTreeSet::from(["eptp_accessed_dirty"])
    );
}

/// Where a VMCS is that knows it.
const REGION: u64 = 0x60_0000;

/// A VMCS that knows where it is.
struct Placed(PlainVmcs);

impl VmcsRead for Placed {
    fn read(&self, encoding: Encoding) -> Option<u64> {
        self.0.read(encoding)
    }

    fn region(&self) -> Option<u64> {
        Some(REGION)
    }
}

impl VmcsWrite for Placed {
    fn write(&mut self, encoding: Encoding, value: u64) -> Result<(), NoSuchField> {
        self.0.write(encoding, value)
    }
}

#[test]
fn a_vmcs_that_does_not_know_where_it_is_cannot_be_linked_to_itself() {
    let all = cases();
    let case = all
        .iter()
        .find(|case| case.rule == Some("link_pointer_itself"))
        .unwrap();
    assert!(case.apply(&mut sample::vmcs(), SCRATCH).is_err());
    assert!(case.apply(&mut Placed(sample::vmcs()), SCRATCH).is_ok());
}

#[test]
fn an_error_code_goes_by_protection_in_an_unrestricted_guest_alone() {
    let restricted = cases()
        .into_iter()
        .find(|case| case.name == "#GP without an error code in a restricted guest without protection")
        .unwrap();
    let with_code = |set: bool| {
        let mut vmcs = sample::vmcs();
        restricted.apply(&mut vmcs, SCRATCH).unwrap();
        vmcs.set(ENTRY_INTERRUPTION_INFORMATION, 0x8000_030d | u32::from(set) << 11)
            .unwrap();
        names(&check(&vmcs, &sample::capabilities(), &NoMemory)).contains("injected_error_code_bit")
    };
    assert_eq!([true, false].map(with_code), [false, true]);
    // A processor that takes either takes none in real mode.
    let real = cases()
        .into_iter()
        .find(|case| case.name == "#GP with an error code in real mode")
        .unwrap();
    let mut vmcs = sample::vmcs();
    real.apply(&mut vmcs, SCRATCH).unwrap();
    let mut capabilities = sample::capabilities();
    capabilities.basic.0 |= 1 << 56;
    assert!(names(&check(&vmcs, &capabilities, &NoMemory)).contains("injected_error_code_bit"));
}

#[test]
fn other_events_want_what_they_are_of() {
    let broken = |vector: u32, fred: bool, trap: bool| {
        let mut vmcs = sample::vmcs();
        vmcs.set(ENTRY_INTERRUPTION_INFORMATION, 0x8000_0700 | vector).unwrap();
        vmcs.set(ENTRY_INSTRUCTION_LENGTH, 2).unwrap();
        let mut capabilities = sample::capabilities();
        if fred {
            let cr4 = vmcs.get(GUEST_CR4);
            vmcs.set(GUEST_CR4, cr4 | 1 << 32).unwrap();
        } else {
            capabilities.cr4_fixed1 &= !(1 << 32);
        }
        if !trap {
            capabilities.primary.may &= !primary::MONITOR_TRAP_FLAG;
        }
        names(&check(&vmcs, &capabilities, &NoMemory))
    };
    let none = BTreeSet::new();
    assert_eq!(broken(0, false, true), none);
    assert_eq!(broken(1, true, false), none);
    assert_eq!(broken(2, true, true), none);
    assert_eq!(broken(0, true, false), BTreeSet::from(["injected_vector"]));
    assert_eq!(broken(1, false, true), BTreeSet::from(["injected_vector"]));
    assert!(broken(0, false, false).contains("injected_kind"));
}

#[test]
fn a_list_of_msrs_that_is_nowhere_is_not_read() {
    for case in cases()
        .into_iter()
        .filter(|case| case.rule == Some("entry_msr_load_list"))
    {
        let mut vmcs = sample::vmcs();
        case.apply(&mut vmcs, SCRATCH).unwrap();
        let memory = |address: u64| -> Option<u64> { panic!("{}: reads {address:#x}", case.name) };
        assert!(!check(&vmcs, &sample::capabilities(), &memory).is_empty());
    }
}

#[test]
fn a_shadow_vmcs_is_found_good_by_its_revision() {
    let revision = |word: u64| move |address: u64| (address == SCRATCH).then_some(word);
    let vmcs = sample::vmcs().with(VMCS_LINK_POINTER, SCRATCH);
    assert!(check(&vmcs, &sample::capabilities(), &revision(0x2b)).is_empty());
    assert_eq!(
        names(&check(&vmcs, &sample::capabilities(), &revision(0x8000_002b))),
        BTreeSet::from(["link_pointer_revision"]),
        "a shadow VMCS, but no VMCS shadowing"
    );
}

#[test]
fn other_modes_are_good_too() {
    for rule in [
        "segment_granularity",
        "virtual_8086_base",
        "ss_level_is_zero",
        "pdpte_fields",
        "hlt_level",
    ] {
        // Each of these cases is a good VMCS of another mode, but for its last change.
        let mut case = cases().into_iter().find(|case| case.rule == Some(rule)).unwrap();
        let last = case.changes.pop().unwrap();
        if rule == "ss_level_is_zero" || rule == "hlt_level" {
            case.changes.pop();
        }
        let found = violations(&case);
        assert!(found.is_empty(), "{rule} without {last:?}\n{}", Findings(&found));
    }
}

#[test]
fn an_entry_fails_as_the_first_group_says_that_is_broken() {
    let case = |rule| cases().into_iter().find(|case| case.rule == Some(rule)).unwrap();
    for (rule, expected) in [
        ("vpid_zero", Outcome::InvalidControls),
        ("host_pat", Outcome::InvalidHost),
        ("host_stays_long", Outcome::InvalidHost),
        ("cs_type", Outcome::InvalidGuest),
        ("pdpte_fields", Outcome::InvalidGuest),
        ("msr_entry_x2apic", Outcome::InvalidMsr),
    ] {
        assert_eq!(outcome(&violations(&case(rule))), expected, "{rule}");
    }
    assert_eq!(outcome(&[]), Outcome::Entered);
    let mut both = sample::vmcs();
    case("cs_type").apply(&mut both, SCRATCH).unwrap();
    case("vpid_zero").apply(&mut both, SCRATCH).unwrap();
    assert_eq!(
        outcome(&check(&both, &sample::capabilities(), &NoMemory)),
        Outcome::InvalidControls
    );
}

#[test]
fn a_broken_rule_is_told_with_field_value_rule_and_section() {
    let case = cases().into_iter().find(|case| case.rule == Some("vpid_zero")).unwrap();
    assert_eq!(
        Findings(&violations(&case)).to_string(),
        format!(
            "entry check: one of {} rules is broken; VM entry with invalid control field(s) (VM-instruction error 7)\n  \
             virtual-processor identifier is 0x0: with \"enable VPID\", it is not 0, which is the hypervisor's own (SDM \
             volume 3C, section 28.2.1.1)\n",
            rules()
        )
    );
}

#[test]
fn the_sweep_has_hundreds_of_cases_good_and_bad() {
    let all = sweep(&sample::vmcs());
    let bad = all.iter().filter(|case| !violations(case).is_empty()).count();
    assert!(
        all.len() > 1000 && bad > 300 && all.len() - bad > 300,
        "{} cases, {bad} bad",
        all.len()
    );
}

#[test]
fn every_field_that_software_writes_is_changed_or_left_out_for_a_reason() {
    let changed: BTreeSet<_> = cases()
        .into_iter()
        .chain(sweep(&sample::vmcs()))
        .flat_map(|case| case.changes)
        .map(|change| change.field.encoding)
        .collect();
    for field in all().filter(|field| field.is_writable()) {
        let reasons = LEFT_OUT.iter().filter(|(left_out, _)| *left_out == field).count();
        let is_changed = usize::from(changed.contains(&field.encoding));
        assert_eq!(is_changed + reasons, 1, "{field}");
    }
}

#[test]
fn a_field_of_which_entry_asks_nothing_may_hold_anything() {
    let all = sweep(&sample::vmcs());
    let free: Vec<_> = all
        .iter()
        .filter(|case| case.name.starts_with("TSC offset: "))
        .collect();
    assert_eq!(free.len(), 4);
    assert!(free.into_iter().all(|case| violations(case).is_empty()));
}

#[test]
fn nothing_that_the_host_would_live_with_is_in_the_sweep() {
    for case in sweep(&sample::vmcs()) {
        let host = case
            .changes
            .iter()
            .any(|change| change.field.encoding.kind() == crate::vmx::field::Kind::Host);
        if host {
            assert_eq!(outcome(&violations(&case)), Outcome::InvalidHost, "{}", case.name);
        }
    }
}

proptest! {
    #[test]
    fn any_values_of_any_fields_are_checked(
        values in prop::collection::vec((prop::sample::select(all().collect::<Vec<_>>()), any::<u64>()), 0..40),
        word: u64,
    ) {
        let mut vmcs = sample::vmcs();
        for (field, value) in values {
            // Read-only fields say no; that is all right.
            let _ = vmcs.write(field.encoding, value);
        }
        let found = check(&vmcs, &sample::capabilities(), &|_| Some(word));
        prop_assert!(!Findings(&found).to_string().is_empty());
        // Nothing but zeroes, on a processor without anything.
        prop_assert!(!check(&PlainVmcs::default(), &Capabilities::default(), &|_| Some(word)).is_empty());
    }

    #[test]
    fn controls_that_are_not_active_are_not_looked_at(bits: u32, tertiary: u64) {
        let mut vmcs = sample::vmcs();
        let primary = u64::from(vmcs.get(PRIMARY_CONTROLS)) & !primary::ACTIVATE_SECONDARY_CONTROLS;
        vmcs.set(PRIMARY_CONTROLS, primary as u32).unwrap();
        vmcs.set(SECONDARY_CONTROLS, bits).unwrap();
        vmcs.set(TERTIARY_CONTROLS, tertiary).unwrap();
        prop_assert!(check(&vmcs, &sample::capabilities(), &NoMemory).is_empty());
    }
}

/// The page of the book with every rule, its section and its cases.
#[test]
fn the_book_has_every_rule_and_its_cases() {
    let mut table = String::from("| rule | what has to be | broken by |\n|---|---|---|\n");
    let all = cases();
    for section in SECTIONS {
        table.push_str(&format!(
            "| **{}** | **{}** | {} |\n",
            section.number, section.title, section.outcome
        ));
        for rule in section.rules {
            let cases = all.iter().filter(|case| case.rule == Some(rule.name));
            let mut names = cases.map(|case| case.name.as_str()).collect::<Vec<_>>().join("; ");
            if names.is_empty() {
                names = String::from("(a test of its own)");
            }
            table.push_str(&format!("| `{}` | {} | {names} |\n", rule.name, rule.words));
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/entry-checker.md");
    let page = std::fs::read_to_string(path).unwrap();
    for shown in ["entry check: one of", "entry check: all"] {
        let sentence = format!("{shown} {} rules", rules());
        assert!(
            page.contains(&sentence),
            "docs/src/entry-checker.md does not show {sentence:?}"
        );
    }
    let (before, rest) = page.split_once("<!-- rules -->\n").unwrap();
    let (old, after) = rest.split_once("<!-- end of rules -->").unwrap();
    if std::env::var_os("CHITON_WRITE_BOOK").is_some() {
        std::fs::write(
            path,
            format!("{before}<!-- rules -->\n{table}<!-- end of rules -->{after}"),
        )
        .unwrap();
        return;
    }
    assert!(
        old == table,
        "docs/src/entry-checker.md has not the rules of the checker; write them with `CHITON_WRITE_BOOK=1 cargo test \
         -p chiton-core book`"
    );
}
