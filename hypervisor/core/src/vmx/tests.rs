use std::collections::BTreeSet;

use super::field::{Encoding, Kind, Size};
use super::fields::{self, *};
use super::*;

/// Width and kind of each table of appendix B, and how many fields it has.
const APPENDIX_B: [(Size, Kind, usize); 15] = [
    (Size::Bits16, Kind::Control, 6),
    (Size::Bits16, Kind::Guest, 11),
    (Size::Bits16, Kind::Host, 7),
    (Size::Bits64, Kind::Control, 39),
    (Size::Bits64, Kind::Information, 3),
    (Size::Bits64, Kind::Guest, 23),
    (Size::Bits64, Kind::Host, 13),
    (Size::Bits32, Kind::Control, 20),
    (Size::Bits32, Kind::Information, 8),
    (Size::Bits32, Kind::Guest, 23),
    (Size::Bits32, Kind::Host, 1),
    (Size::Natural, Kind::Control, 8),
    (Size::Natural, Kind::Information, 6),
    (Size::Natural, Kind::Guest, 23),
    (Size::Natural, Kind::Host, 15),
];

#[test]
fn every_encoding_says_the_width_kind_and_index_of_its_table() {
    for (number, (table, (size, kind, count))) in fields::TABLES.into_iter().zip(APPENDIX_B).enumerate() {
        assert_eq!(table.len(), count, "table B-{}", number + 1);
        let mut last = None;
        for field in table {
            let encoding = field.encoding;
            assert_eq!((encoding.size(), encoding.kind()), (size, kind), "{field}");
            assert!(!encoding.is_high(), "{field}");
            assert!(last < Some(encoding.index()), "{field} is out of order");
            last = Some(encoding.index());
            // Put together again from its parts (section 26.11.2).
            let again = (size as u32) << 13 | (kind as u32) << 10 | encoding.index() << 1;
            assert_eq!(again, encoding.number(), "{field}");
        }
    }
}

/// The encodings of VMCS fields that other programs have, of a width and kind each, as ranges of even numbers: first and
/// last. Facts of Bochs' `cpu/vmx.h` in a version that has APIC-timer virtualization and not yet FRED (2025).
const BOCHS: [&[(u32, u32)]; 15] = [
    &[(0x0000, 0x000a)],
    &[(0x0800, 0x0814)],
    &[(0x0c00, 0x0c0c)],
    &[(0x2000, 0x2044), (0x204a, 0x204e)],
    &[(0x2400, 0x2402)],
    &[(0x2800, 0x2814), (0x2818, 0x2818), (0x282e, 0x2830)],
    &[(0x2c00, 0x2c06), (0x2c1a, 0x2c1a)],
    &[(0x4000, 0x4022)],
    &[(0x4400, 0x440e)],
    &[(0x4800, 0x482a), (0x482e, 0x482e)],
    &[(0x4c00, 0x4c00)],
    &[(0x6000, 0x600e)],
    &[(0x6400, 0x640a)],
    &[(0x6800, 0x682c)],
    &[(0x6c00, 0x6c1c)],
];
/// What that version does not have, and who has it.
const NOT_OF_BOCHS: [(u32, u32, &str); 6] = [
    (
        0x2052,
        0x2052,
        "INJECTED_EVENT_DATA of Linux' asm/vmx.h, by the patches for FRED",
    ),
    (0x2404, 0x2404, "ORIGINAL_EVENT_DATA there"),
    (
        0x2816,
        0x2816,
        "GUEST_IA32_LBR_CTL there, by the patches for architectural LBR",
    ),
    (0x281a, 0x2828, "GUEST_IA32_FRED_CONFIG to GUEST_IA32_FRED_SSP3 there"),
    (0x2c08, 0x2c16, "HOST_IA32_FRED_CONFIG to HOST_IA32_FRED_SSP3 there"),
    (
        0x4024,
        0x4026,
        "NOTIFY_WINDOW there; the KeyID of SEAM is the SDM's alone",
    ),
];

#[test]
fn others_have_the_same_fields_and_no_others() {
    let even = |(first, last): (u32, u32)| (first..=last).step_by(2).map(Encoding::new);
    let bochs = BOCHS.into_iter().flatten().copied().flat_map(even);
    let others = NOT_OF_BOCHS
        .into_iter()
        .flat_map(|(first, last, _)| even((first, last)));
    let theirs: Vec<_> = bochs.chain(others).collect();
    let unique: BTreeSet<_> = theirs.iter().copied().collect();
    assert_eq!(unique.len(), theirs.len(), "one is named twice");
    let ours: BTreeSet<_> = fields::all().map(|field| field.encoding).collect();
    assert_eq!(ours, unique);
    // As the book has it.
    assert_eq!(ours.len(), 206);
    assert_eq!(fields::all().filter(|field| field.is_writable()).count(), 189);
}

#[test]
fn no_two_fields_share_an_encoding_or_a_name() {
    let encodings: BTreeSet<_> = fields::all().map(|field| field.encoding).collect();
    let names: BTreeSet<_> = fields::all().map(|field| field.name).collect();
    assert_eq!(encodings.len(), fields::all().count());
    assert_eq!(names.len(), fields::all().count());
}

#[test]
fn fields_stand_where_other_tables_of_the_sdm_say() {
    // Numbers that are known by heart, one of each table.
    for (field, number) in [
        (VIRTUAL_PROCESSOR_ID.any(), 0x0000),
        (GUEST_TR_SELECTOR.any(), 0x080e),
        (HOST_TR_SELECTOR.any(), 0x0c0c),
        (EPT_POINTER.any(), 0x201a),
        (GUEST_PHYSICAL_ADDRESS.any(), 0x2400),
        (VMCS_LINK_POINTER.any(), 0x2800),
        (HOST_EFER.any(), 0x2c02),
        (SECONDARY_CONTROLS.any(), 0x401e),
        (EXIT_REASON.any(), 0x4402),
        (GUEST_TR_ACCESS_RIGHTS.any(), 0x4822),
        (HOST_SYSENTER_CS.any(), 0x4c00),
        (CR4_READ_SHADOW.any(), 0x6006),
        (EXIT_QUALIFICATION.any(), 0x6400),
        (GUEST_RIP.any(), 0x681e),
        (HOST_RIP.any(), 0x6c16),
    ] {
        assert_eq!(field.encoding, Encoding::new(number), "{field}");
    }
}

#[test]
fn a_plain_vmcs_has_the_fields_of_the_sdm_and_no_others() {
    let mut vmcs = PlainVmcs::default();
    let none = Encoding::new(0x2054);
    assert_eq!(vmcs.read(none), None);
    assert_eq!(
        vmcs.write(none, 1).unwrap_err().to_string(),
        "this processor's VMCS has no field 0x2054"
    );
    assert_eq!(
        vmcs.write(EXIT_REASON.encoding(), 1).unwrap_err().to_string(),
        "this processor's VMCS has no field 0x4402 (exit reason)"
    );
    vmcs.write(GUEST_CS_SELECTOR.encoding(), 0x12_3456).unwrap();
    assert_eq!(vmcs.get(GUEST_CS_SELECTOR), 0x3456);
    assert_eq!(PlainVmcs::copy(&vmcs).get(GUEST_CS_SELECTOR), 0x3456);
}
