use std::string::{String, ToString};
use std::vec::Vec;

use super::check::{Processor, Violation, check};
use super::event::{Event, Kind};
use super::exit::Code;
use super::field::{Field, ReadWrite, Value};
use super::fields::*;
use super::information::Summary;
use super::intercept::vector4;
use super::*;
use crate::vcpu::Segment;

#[test]
fn a_field_holds_what_was_written_and_no_other_changes() {
    for field in all() {
        let mut vmcb = PlainVmcb::default();
        vmcb.write(field.offset, field.bytes, u64::MAX);
        for other in all() {
            let expected = if other == field {
                u64::MAX >> (64 - 8 * u32::from(field.bytes))
            } else {
                0
            };
            assert_eq!(
                vmcb.read(other.offset, other.bytes),
                expected,
                "{other} when {field} is set"
            );
        }
    }
}

#[test]
fn a_write_marks_its_group_and_no_other_as_changed() {
    let mut vmcb = PlainVmcb::default().with(VMCB_CLEAN, clean::ALL);
    vmcb.set(RIP, 1);
    vmcb.set(EVENTINJ, 1);
    assert_eq!(vmcb.get(VMCB_CLEAN), clean::ALL, "the processor keeps neither");
    vmcb.set(CR3, 0x1000);
    assert_eq!(vmcb.get(VMCB_CLEAN), clean::ALL & !clean::CONTROL_REGISTERS);
    vmcb.set(G_PAT, 0);
    vmcb.set(CPL, 3);
    let changed = clean::CONTROL_REGISTERS | clean::NESTED_PAGING | clean::SEGMENTS;
    assert_eq!(vmcb.get(VMCB_CLEAN), clean::ALL & !changed);
}

#[test]
fn a_segment_survives_the_way_into_the_vmcb_and_back() {
    let segment = Segment {
        selector: 0x23,
        base: 0x1234_5678_9abc,
        limit: u32::MAX,
        access: 0xa0fb,
    };
    let mut vmcb = PlainVmcb::default();
    vmcb.set_segment(CS, &segment);
    assert_eq!(vmcb.get(CS_ATTRIBUTES), 0xafb);
    assert_eq!(vmcb.segment(CS), segment);
}

fn exit(code: Code, info1: u64, info2: u64) -> String {
    let vmcb = PlainVmcb::default()
        .with(EXITCODE, code.0)
        .with(EXITINFO1, info1)
        .with(EXITINFO2, info2);
    Summary(&vmcb).to_string()
}

#[test]
fn exits_are_told_in_words() {
    let cases = [
        (
            Code::IOIO,
            0x0510_0210,
            0x1002,
            "IN or OUT: out, port 0x510, 8 bits, next at 0x1002",
        ),
        (
            Code::IOIO,
            0x0060_034d,
            0x1002,
            "IN or OUT: rep ins, port 0x60, 32 bits, next at 0x1002",
        ),
        (Code::MSR, 1, 0, "RDMSR or WRMSR: WRMSR"),
        (
            Code::NPF,
            0x1_0000_0006,
            0xd000_0000,
            "nested page fault: write, not mapped, guest-physical 0xd0000000",
        ),
        (
            Code::NPF,
            0x2_0000_0005,
            0x4_0000,
            "nested page fault: read of the guest's page tables, mapped without that right, guest-physical 0x40000",
        ),
        (Code(0x4e), 6, 0x10, "exception #PF: error code 0x6, address 0x10"),
        (Code(0x4d), 8, 0, "exception #GP: error code 0x8"),
        (Code(0x49), 0, 0, "exception 9"),
        (Code(0x14), 1 << 63 | 3, 0, "write of CR4: general register 3"),
        (Code(0x14), 0, 0, "write of CR4: not by `mov`, or not told"),
        (
            Code::TASK_SWITCH,
            0x28,
            1 << 38,
            "task switch: to the TSS 0x28 by a far jump",
        ),
        (Code::HLT, 0, 0, "HLT"),
        (
            Code(u64::MAX),
            0,
            0,
            "invalid guest state in the VMCB: a rule of VMRUN is broken",
        ),
        (
            Code(0xffff_ffff),
            0,
            0,
            "invalid guest state in the VMCB: a rule of VMRUN is broken",
        ),
        (Code(0x7777), 0, 0, "exit code 0x7777, which no manual names"),
    ];
    for (code, info1, info2, words) in cases {
        assert_eq!(exit(code, info1, info2), words);
    }
}

#[test]
fn an_exit_during_delivery_says_what_was_delivered() {
    let vmcb = PlainVmcb::default()
        .with(EXITCODE, Code::SHUTDOWN.0)
        .with(EXITINTINFO, Event::exception(14, Some(2)).0);
    assert_eq!(
        Summary(&vmcb).to_string(),
        "shutdown, while exception 14 with error code 0x2 was delivered"
    );
}

#[test]
fn every_exit_code_has_words_of_its_own() {
    let codes = (0..0xa7).chain(0x400..0x404).map(Code).chain(Code::ALL.iter().copied());
    let mut names: Vec<String> = codes.map(|code| code.to_string()).collect();
    names.sort();
    let before = names.len();
    names.dedup();
    // Those with a name of their own came twice.
    assert_eq!(before - names.len(), Code::ALL.len() - 4);
    assert!(names.iter().all(|name| !name.contains("no manual")));
}

#[test]
fn two_exceptions_become_what_the_processor_makes_of_them() {
    let e = |vector| Event::exception(vector, Some(0));
    let (gp, pf, df) = (e(13), e(14), e(8));
    assert_eq!(pf.then(pf), Some(df));
    assert_eq!(gp.then(gp), Some(df));
    assert_eq!(gp.then(pf), Some(pf), "a page fault in between is served first");
    assert_eq!(df.then(gp), None, "a shutdown");
    assert_eq!(Event::new(Kind::Nmi, 2, None).then(gp), Some(gp));
    assert_eq!(Event::default().then(gp), Some(gp));
    assert!(Event::new(Kind::Software, 0x80, None).is_software());
    assert!(Event::exception(3, None).is_software() && !pf.is_software());
}

const PROCESSOR: Processor = Processor {
    physical_bits: 40,
    cr4: 0x3f_ffff | 1 << 23,
    efer: 0xffff,
    long_mode: true,
    asids: 16,
};

/// A guest in 64-bit mode, as VMRUN takes it.
fn good() -> PlainVmcb {
    let mut vmcb = PlainVmcb::default();
    vmcb.set(EFER, 0x1d00);
    vmcb.set(CR0, 0x8001_0033);
    vmcb.set(CR3, 0x4_0000);
    vmcb.set(CR4, 0x620);
    vmcb.set(DR6, 0xffff_0ff0);
    vmcb.set(DR7, 0x400);
    vmcb.set(CS_ATTRIBUTES, 0xafb);
    vmcb.set(INTERCEPT_4, vector4::VMRUN);
    vmcb.set(GUEST_ASID, 1);
    vmcb.set(NESTED_CONTROL, 1);
    vmcb.set(N_CR3, 0x10_0000);
    vmcb.set(G_PAT, 0x0007_0406_0007_0406);
    vmcb
}

fn broken(vmcb: &PlainVmcb) -> Vec<(&'static str, &'static str)> {
    let name = |v: &Violation| (v.field.name, v.rule);
    check(vmcb, &PROCESSOR).iter().map(name).collect()
}

fn with<T: Value>(field: Field<T, ReadWrite>, value: T) -> PlainVmcb {
    let mut vmcb = good();
    vmcb.set(field, value);
    vmcb
}

#[test]
fn a_good_vmcb_breaks_no_rule() {
    assert_eq!(broken(&good()), []);
}

#[test]
fn each_broken_rule_is_named_and_no_other() {
    let cases = [
        (with(EFER, 0x0d00), "EFER", "SVME must be set"),
        (with(CR0, 0xa001_0033), "CR0", "NW must be clear where CD is"),
        (with(CR0, 0x1_8001_0033), "CR0", "bits 32 to 63 must be clear"),
        (
            with(CR3, 1 << 40),
            "CR3",
            "bits beyond a physical address must be clear",
        ),
        (
            with(CR4, 0x620 | 1 << 40),
            "CR4",
            "bits that this processor reserves must be clear",
        ),
        (with(DR6, 1 << 32), "DR6", "bits 32 to 63 must be clear"),
        (with(DR7, 1 << 63), "DR7", "bits 32 to 63 must be clear"),
        (
            with(EFER, 0x1_1d00),
            "EFER",
            "bits that this processor reserves must be clear",
        ),
        (with(CR4, 0x600), "CR4", "PAE must be set where EFER.LME and CR0.PG are"),
        (
            with(CR0, 0x8001_0032),
            "CR0",
            "PE must be set where EFER.LME and PG are",
        ),
        (
            with(CS_ATTRIBUTES, 0xefb),
            "CS attributes",
            "L and D must not both be set in long mode",
        ),
        (
            with(INTERCEPT_4, 0),
            "intercepts, vector 4",
            "VMRUN must be intercepted",
        ),
        (
            with(IOPM_BASE_PA, (1 << 40) - 0x2000),
            "IOPM_BASE_PA",
            "the whole map must lie where physical addresses are",
        ),
        (
            with(MSRPM_BASE_PA, u64::MAX),
            "MSRPM_BASE_PA",
            "the whole map must lie where physical addresses are",
        ),
        (with(GUEST_ASID, 0), "guest ASID", "0 is the host's"),
        (
            with(GUEST_ASID, 16),
            "guest ASID",
            "it must be one that the processor has",
        ),
        (
            with(EVENTINJ, 1 << 31 | 1 << 8),
            "EVENTINJ",
            "its type must not be reserved",
        ),
        (
            with(EVENTINJ, 1 << 31 | 3 << 8 | 2),
            "EVENTINJ",
            "an exception has a vector below 32 that is not the NMI's",
        ),
        (
            with(EVENTINJ, 1 << 31 | 3 << 8 | 4),
            "EVENTINJ",
            "64-bit mode has no #OF and no #BR",
        ),
        (
            with(N_CR3, 1 << 40),
            "nCR3",
            "bits beyond a physical address must be clear",
        ),
        (with(G_PAT, 0x0202), "G_PAT", "each byte must be a memory type"),
    ];
    for (vmcb, field, rule) in cases {
        assert_eq!(broken(&vmcb), [(field, rule)]);
    }
}

#[test]
fn rules_of_long_mode_do_not_hold_elsewhere() {
    let mut vmcb = good();
    vmcb.set(EFER, 0x1000);
    vmcb.set(CR0, 0x10);
    vmcb.set(CR4, 0);
    vmcb.set(CS_ATTRIBUTES, 0xe9b);
    assert_eq!(broken(&vmcb), []);
    let no_long_mode = Processor {
        long_mode: false,
        ..PROCESSOR
    };
    assert!(check(&vmcb, &no_long_mode).is_empty());
    assert_eq!(check(&good(), &no_long_mode).len(), 1);
}

#[test]
fn a_violation_is_a_sentence() {
    let vmcb = with(GUEST_ASID, 0);
    assert_eq!(
        check(&vmcb, &PROCESSOR)[0].to_string(),
        "guest ASID is 0x0: 0 is the host's (APM volume 2, section 15.5.1)"
    );
}

#[test]
fn a_dump_shows_what_is_not_zero_and_what_it_says() {
    let text = dump::Dump(&good().with(EXITCODE, 0x78)).to_string();
    assert!(
        text.contains("\n  0x010 intercepts, vector 4         00000001  VMRUN\n"),
        "{text}"
    );
    assert!(
        text.contains("\n  0x070 EXITCODE                     0000000000000078  HLT\n"),
        "{text}"
    );
    assert!(
        text.contains("\n  0x0d0 EFER                         0000000000001d00\n"),
        "{text}"
    );
    assert!(!text.contains("LSTAR"), "{text}");
    let intercepts = good()
        .with(INTERCEPT_CR, 1 << 4 | 1 << 20)
        .with(INTERCEPT_DR, u32::MAX)
        .with(INTERCEPT_EXCEPTIONS, 1 << 1 | 1 << 9);
    let text = dump::Dump(&intercepts).to_string();
    for words in [
        "  reads of CR4, writes of CR4\n",
        "  every access to DRs\n",
        "  #DB, 9\n",
    ] {
        assert!(text.contains(words), "{text}");
    }
}
