use std::collections::BTreeSet;

use super::field::{Encoding, Kind, Size};
use super::fields::{self, *};
use super::*;

/// Width and kind of each table of appendix B, and how many fields it has.
const APPENDIX_B: [(Size, Kind, usize); 15] = [
    (Size::Bits16, Kind::Control, 5),
    (Size::Bits16, Kind::Guest, 11),
    (Size::Bits16, Kind::Host, 7),
    (Size::Bits64, Kind::Control, 38),
    (Size::Bits64, Kind::Information, 3),
    (Size::Bits64, Kind::Guest, 21),
    (Size::Bits64, Kind::Host, 12),
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
