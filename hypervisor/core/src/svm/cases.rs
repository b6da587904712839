//! Ways to change a VMCB, of which many break it: a sweep through the fields, bit by bit, every kind of event, and
//! what only several fields together break.
//!
//! Whether such a VMCB is good or bad, nobody says here: the checker and a processor have to agree.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::event::{Event, Kind};
use super::field::AnyField;
use super::fields::{self, *};
use super::{VmcbFields, VmcbRead};

/// One way to change a VMCB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What is done, in words.
    pub name: String,
    /// The fields, and what they become.
    pub changes: Vec<(AnyField, u64)>,
}

/// Fields that the sweep leaves alone: whose memory the guest has is not to be found out by trying, nor what
/// interrupt controllers and encrypted guests do with addresses; and the clean bits are 0 in each case.
const LEFT_OUT: [AnyField; 9] = [
    NESTED_CONTROL.any(),
    AVIC_APIC_BAR.any(),
    AVIC_BACKING_PAGE.any(),
    AVIC_LOGICAL_TABLE.any(),
    AVIC_PHYSICAL_TABLE.any(),
    GHCB_PA.any(),
    VMSA_PA.any(),
    VIRTUALIZATION_EXTENSIONS.any(),
    VMCB_CLEAN.any(),
];
/// What only the processor writes.
const READ_ONLY: [AnyField; 8] = [
    EXITCODE.any(),
    EXITINFO1.any(),
    EXITINFO2.any(),
    EXITINTINFO.any(),
    NRIP.any(),
    FETCHED_COUNT.any(),
    VMGEXIT_RAX.any(),
    VMGEXIT_CPL.any(),
];

/// The changes of a good VMCB with nested paging, on a processor whose physical addresses have so many bits.
///
/// What a processor takes, it does: the guest is entered. All cases are such that it comes back before its first
/// instruction if nested tables map nothing.
#[must_use]
pub fn cases(vmcb: &dyn VmcbRead, physical_bits: u8) -> Vec<Case> {
    let mut all = Vec::new();
    for field in fields::all().filter(|field| !LEFT_OUT.contains(field) && !READ_ONLY.contains(field)) {
        for bit in bits(field, physical_bits) {
            let now = vmcb.read(field.offset, field.bytes);
            let verb = if now >> bit & 1 == 0 { "set" } else { "cleared" };
            all.push(Case {
                name: format!("{field}: bit {bit} {verb}"),
                changes: [(field, now ^ 1 << bit)].into(),
            });
        }
    }
    values(&mut all, physical_bits);
    events(&mut all);
    together(vmcb, &mut all);
    all
}

/// The bits of a field that are flipped.
fn bits(field: AnyField, physical_bits: u8) -> impl Iterator<Item = u32> {
    let width = u32::from(field.bytes) * 8;
    let left_out = if field == N_CR3.any() {
        // Other tables would map what happens to be there.
        12..physical_bits.into()
    } else if field == VIRTUAL_INTERRUPT.any() {
        // AVIC and x2AVIC.
        30..32
    } else {
        0..0
    };
    (0..width).filter(move |bit| !left_out.contains(bit))
}

/// Values at the edges of what is allowed.
fn values(all: &mut Vec<Case>, physical_bits: u8) {
    let mut value = |field: AnyField, value: u64| {
        all.push(Case {
            name: format!("{field}: {value:#x}"),
            changes: [(field, value)].into(),
        });
    };
    let end = 1_u64 << physical_bits;
    for map in [IOPM_BASE_PA.any(), MSRPM_BASE_PA.any()] {
        for at in [
            end - 0x4000,
            end - 0x3000,
            end - 0x2000,
            end - 0x1000,
            end,
            1 << 52,
            !0xfff,
        ] {
            value(map, at);
        }
    }
    for asid in [0, 1, 0xff, 0xffff, 0xffff_ffff] {
        value(GUEST_ASID.any(), asid);
    }
    for control in 0..9 {
        value(TLB_CONTROL.any(), control);
    }
    for byte in 0..8 {
        for memory_type in [1, 2, 3, 7, 8, 0x80, 0xff] {
            let pat = 0x0007_0406_0007_0406_u64;
            value(G_PAT.any(), pat & !(0xff << (8 * byte)) | memory_type << (8 * byte));
        }
    }
}

/// Every type of event with vectors that mean something.
fn events(all: &mut Vec<Case>) {
    for kind in [
        Kind::Interrupt,
        Kind::Reserved(1),
        Kind::Nmi,
        Kind::Exception,
        Kind::Software,
        Kind::Reserved(5),
        Kind::Reserved(6),
        Kind::Reserved(7),
    ] {
        for vector in (0..33).chain([0x80, 0xff]) {
            for code in [None, Some(0)] {
                let event = Event::new(kind, vector, code);
                all.push(Case {
                    name: format!("EVENTINJ: {event}"),
                    changes: [(EVENTINJ.any(), event.0)].into(),
                });
            }
        }
    }
}

/// What only several fields together break, or mend.
fn together(vmcb: &dyn VmcbRead, all: &mut Vec<Case>) {
    const LME: u64 = 1 << 8;
    const LMA: u64 = 1 << 10;
    let (cr0, cr4, efer) = (vmcb.get(CR0), vmcb.get(CR4), vmcb.get(EFER));
    let (pe, wp, nw, cd, pg) = (1, 1 << 16, 1 << 29, 1 << 30, 1 << 31);
    let (pae, cet) = (1 << 5, 1 << 23);
    let attributes = u64::from(vmcb.get(CS_ATTRIBUTES));
    let (long, default) = (1 << 9, 1 << 10);
    let cases: [(&str, &[(AnyField, u64)]); 12] = [
        ("CR0: NW and CD set", &[(CR0.any(), cr0 | nw | cd)]),
        (
            "no paging, no long mode",
            &[(CR0.any(), cr0 & !pg), (EFER.any(), efer & !LMA)],
        ),
        (
            "no paging, no LME",
            &[(CR0.any(), cr0 & !pg), (EFER.any(), efer & !(LMA | LME))],
        ),
        (
            "no protection, no paging, no LME",
            &[(CR0.any(), cr0 & !(pg | pe)), (EFER.any(), efer & !(LMA | LME))],
        ),
        ("paging without LME", &[(EFER.any(), efer & !(LMA | LME))]),
        (
            "paging without LME and PAE",
            &[(EFER.any(), efer & !(LMA | LME)), (CR4.any(), cr4 & !pae)],
        ),
        (
            "paging without PE and LME",
            &[(EFER.any(), efer & !(LMA | LME)), (CR0.any(), cr0 & !pe)],
        ),
        (
            "CR3 beyond a physical address, without LME",
            &[(EFER.any(), efer & !(LMA | LME)), (CR3.any(), 1 << 60)],
        ),
        (
            "16-bit code in long mode",
            &[(CS_ATTRIBUTES.any(), attributes & !(long | default))],
        ),
        (
            "32-bit code in long mode",
            &[(CS_ATTRIBUTES.any(), attributes & !long | default)],
        ),
        (
            "L and D without LME",
            &[
                (EFER.any(), efer & !(LMA | LME)),
                (CS_ATTRIBUTES.any(), attributes | long | default),
            ],
        ),
        (
            "CR4.CET without CR0.WP",
            &[(CR4.any(), cr4 | cet), (CR0.any(), cr0 & !wp)],
        ),
    ];
    all.extend(cases.into_iter().map(|(name, changes)| Case {
        name: name.into(),
        changes: changes.into(),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::svm::PlainVmcb;

    const BITS: u8 = 40;

    #[test]
    fn every_field_that_software_writes_is_changed_or_left_out_for_a_reason() {
        let all = cases(&PlainVmcb::default(), BITS);
        assert!(all.len() > 3000, "{}", all.len());
        for field in fields::all() {
            let changed = all.iter().any(|case| case.changes.iter().any(|(of, _)| *of == field));
            let left_out = LEFT_OUT.contains(&field) || READ_ONLY.contains(&field);
            assert_ne!(changed, left_out, "{field}");
        }
    }

    #[test]
    fn what_is_kept_of_a_vmcb_breaks_the_same_rules() {
        use crate::svm::VmcbWrite;
        use crate::svm::check::{Kept, Processor, check};

        let processor = Processor {
            physical_bits: BITS,
            cr4: 0x7ff | 1 << 23,
            efer: 0x1d01,
            long_mode: true,
            asids: 16,
        };
        let good = PlainVmcb::default()
            .with(NESTED_CONTROL, 1)
            .with(CR4, 1 << 23)
            .with(EFER, 0x1d00)
            .with(CR0, 0x8001_0031);
        let mut broken = 0;
        for case in cases(&good, BITS) {
            let mut vmcb = good.clone();
            for (field, value) in &case.changes {
                vmcb.write(field.offset, field.bytes, *value);
            }
            let expected = check(&vmcb, &processor);
            broken += expected.len();
            assert_eq!(check(&Kept::of(&vmcb), &processor), expected, "{}", case.name);
        }
        assert!(broken > 1000, "{broken}");
    }

    #[test]
    fn no_case_gives_the_guest_other_tables() {
        for (field, value) in cases(&PlainVmcb::default(), BITS)
            .into_iter()
            .flat_map(|case| case.changes)
        {
            if field == N_CR3.any() {
                assert_eq!(value & ((1 << BITS) - 0x1000), 0, "{value:#x}");
            }
        }
    }
}
