//! The rules that VMRUN checks (APM volume 2, section 15.5.1, "Canonicalization and consistency checks", and for
//! events and nested paging sections 15.20 and 15.25.4).
//!
//! VMRUN answers a broken rule with exit code -1 and no word about which. [`check`] evaluates all of them, and
//! names the field, its value, the rule and the section.

use alloc::vec::Vec;
use core::arch::x86_64::CpuidResult;
use core::fmt;

use super::event::{Event, Kind};
use super::features::EFER_SVME;
use super::field::{AnyField, Field, Value};
use super::fields::{
    CR0, CR3, CR4, CS_ATTRIBUTES, DR6, DR7, EFER, EVENTINJ, G_PAT, GUEST_ASID, INTERCEPT_4, IOPM_BASE_PA,
    MSRPM_BASE_PA, N_CR3, NESTED_CONTROL, S_CET,
};
use super::intercept::{IOPM_PAGES, MSRPM_PAGES, vector4};
use super::{Features, VmcbFields, VmcbRead};
use crate::paging::Pat;

/// What of the processor the rules depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// How many bits a physical address has (CPUID leaf 0x8000_0008, EAX).
    pub physical_bits: u8,
    /// The bits of CR4 that it has features for.
    pub cr4: u64,
    /// The bits of EFER that it has features for.
    pub efer: u64,
    /// Whether it has long mode.
    pub long_mode: bool,
    /// How many ASIDs there are.
    pub asids: u32,
}

impl Processor {
    /// From CPUID, which `cpuid` answers by leaf and subleaf (APM volume 3, appendix E).
    pub fn of(cpuid: impl Fn(u32, u32) -> CpuidResult, features: Features) -> Self {
        let (one, seven) = (cpuid(1, 0), cpuid(7, 0));
        let extended = cpuid(0x8000_0001, 0);
        let bit = |register: u32, from: u32, to: u32| u64::from(register >> from & 1) << to;
        // VME to PCE, OSFXSR, OSXMMEXCPT: every processor with SVM has these.
        let cr4 = 0x7ff
            | bit(seven.ecx, 2, 11)
            | bit(seven.ebx, 0, 16)
            | bit(one.ecx, 17, 17)
            | bit(one.ecx, 26, 18)
            | bit(seven.ebx, 7, 20)
            | bit(seven.ebx, 20, 21)
            | bit(seven.ecx, 3, 22)
            | bit(seven.ecx, 7, 23);
        // SCE, LME, LMA and SVME; then NXE, LMSLE, which later processors say they have not, FFXSR, TCE, and what
        // later processors add.
        let efer = 0x1501
            | bit(extended.edx, 20, 11)
            | (1 << 13 & !bit(cpuid(0x8000_0008, 0).ebx, 20, 13))
            | bit(extended.edx, 25, 14)
            | bit(extended.ecx, 17, 15)
            | bit(cpuid(0x8000_0008, 0).ebx, 8, 17)
            | bit(cpuid(0x8000_0008, 0).ebx, 13, 18)
            | bit(cpuid(0x8000_0021, 0).eax, 7, 20)
            | bit(cpuid(0x8000_0021, 0).eax, 8, 21);
        Self {
            physical_bits: (cpuid(0x8000_0008, 0).eax & 0xff).clamp(32, 52) as u8,
            cr4,
            efer,
            long_mode: extended.edx & 1 << 29 != 0,
            asids: features.asids,
        }
    }
}

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field.
    pub field: AnyField,
    /// What it holds.
    pub value: u64,
    /// What VMRUN wants.
    pub rule: &'static str,
    /// Where the APM says so, in volume 2.
    pub section: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            value,
            rule,
            section,
        } = self;
        write!(f, "{field} is {value:#x}: {rule} (APM volume 2, section {section})")
    }
}

/// CR0 (APM volume 2, section 3.1.1).
const PE: u64 = 1 << 0;
const NW: u64 = 1 << 29;
const CD: u64 = 1 << 30;
const WP: u64 = 1 << 16;
const PG: u64 = 1 << 31;
/// CR4 (APM volume 2, section 3.1.3).
const PAE: u64 = 1 << 5;
const CET: u64 = 1 << 23;
/// EFER (APM volume 2, section 3.1.7).
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;
/// Attributes of CS.
const LONG: u16 = 1 << 9;
const DEFAULT: u16 = 1 << 10;
/// S_CET: bits 0 to 5, 10, 11 and the address above have meanings (APM volume 2, section 18.11).
const S_CET_RESERVED: u64 = 0x3c0;

/// The fields that the rules ask for.
const ASKED: [AnyField; 16] = [
    CR0.any(),
    CR3.any(),
    CR4.any(),
    CS_ATTRIBUTES.any(),
    DR6.any(),
    DR7.any(),
    EFER.any(),
    EVENTINJ.any(),
    G_PAT.any(),
    GUEST_ASID.any(),
    INTERCEPT_4.any(),
    IOPM_BASE_PA.any(),
    MSRPM_BASE_PA.any(),
    N_CR3.any(),
    NESTED_CONTROL.any(),
    S_CET.any(),
];

/// What the rules ask of a VMCB, as it was before VMRUN. A refusal may change the VMCB: the event is gone, and an
/// emulator saves its own registers as the guest's.
#[derive(Clone, Copy, Debug)]
pub struct Kept([u64; ASKED.len()]);

impl Kept {
    /// Of this VMCB.
    #[must_use]
    pub fn of(vmcb: &impl VmcbRead) -> Self {
        Self(ASKED.map(|field| vmcb.read(field.offset, field.bytes)))
    }
}

impl VmcbRead for Kept {
    fn read(&self, offset: u16, bytes: u8) -> u64 {
        let asked = |field: &AnyField| (field.offset, field.bytes) == (offset, bytes);
        let at = ASKED.iter().position(asked);
        at.and_then(|at| self.0.get(at)).copied().unwrap_or(0)
    }
}

/// Every rule that a VMCB breaks, in the order of the manual.
#[must_use]
pub fn check(vmcb: &dyn VmcbRead, processor: &Processor) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut rules = Rules {
        vmcb,
        broken: &mut broken,
    };
    rules.guest(processor);
    rules.controls(processor);
    rules.event();
    if vmcb.get(NESTED_CONTROL) & 1 != 0 {
        rules.nested_paging(processor);
    }
    broken
}

struct Rules<'a> {
    vmcb: &'a dyn VmcbRead,
    broken: &'a mut Vec<Violation>,
}

impl Rules<'_> {
    fn is<T: Value, A>(&mut self, field: Field<T, A>, kept: bool, rule: &'static str, section: &'static str) {
        if !kept {
            self.broken.push(Violation {
                field: field.any(),
                value: self.vmcb.get(field).into(),
                rule,
                section,
            });
        }
    }

    /// The guest's registers.
    fn guest(&mut self, processor: &Processor) {
        const SECTION: &str = "15.5.1";
        let vmcb = self.vmcb;
        let (cr0, cr3, cr4, efer) = (vmcb.get(CR0), vmcb.get(CR3), vmcb.get(CR4), vmcb.get(EFER));
        let has = |value: u64, bits: u64| value & bits == bits;
        self.is(EFER, has(efer, EFER_SVME), "SVME must be set", SECTION);
        self.is(
            CR0,
            has(cr0, CD) || !has(cr0, NW),
            "NW must be clear where CD is",
            SECTION,
        );
        self.is(CR0, cr0 >> 32 == 0, "bits 32 to 63 must be clear", SECTION);
        let cr3_beyond = u64::MAX << processor.physical_bits;
        let long = has(efer, LME) && has(cr0, PG);
        self.is(
            CR3,
            cr3 & cr3_beyond == 0 || !long,
            "bits beyond a physical address must be clear",
            SECTION,
        );
        self.is(
            CR4,
            cr4 & !processor.cr4 == 0,
            "bits that this processor reserves must be clear",
            SECTION,
        );
        self.is(DR6, vmcb.get(DR6) >> 32 == 0, "bits 32 to 63 must be clear", SECTION);
        self.is(DR7, vmcb.get(DR7) >> 32 == 0, "bits 32 to 63 must be clear", SECTION);
        self.is(
            EFER,
            efer & !processor.efer == 0,
            "bits that this processor reserves must be clear",
            SECTION,
        );
        self.is(
            EFER,
            processor.long_mode || efer & (LMA | LME) == 0,
            "LMA and LME must be clear where the processor has no long mode",
            SECTION,
        );
        self.is(
            CR4,
            !long || has(cr4, PAE),
            "PAE must be set where EFER.LME and CR0.PG are",
            SECTION,
        );
        self.is(
            CR0,
            !long || has(cr0, PE),
            "PE must be set where EFER.LME and PG are",
            SECTION,
        );
        let both = LONG | DEFAULT;
        self.is(
            CS_ATTRIBUTES,
            !(long && has(cr4, PAE)) || vmcb.get(CS_ATTRIBUTES) & both != both,
            "L and D must not both be set in long mode",
            SECTION,
        );
        self.is(
            CR0,
            !has(cr4, CET) || has(cr0, WP),
            "WP must be set where CR4.CET is",
            SECTION,
        );
        self.is(
            S_CET,
            !has(cr4, CET) || vmcb.get(S_CET) & S_CET_RESERVED == 0,
            "reserved bits must be clear where CR4.CET is set",
            SECTION,
        );
    }

    /// What the hypervisor decides.
    fn controls(&mut self, processor: &Processor) {
        const SECTION: &str = "15.5.1";
        let vmcb = self.vmcb;
        self.is(
            INTERCEPT_4,
            vmcb.get(INTERCEPT_4) & vector4::VMRUN != 0,
            "VMRUN must be intercepted",
            SECTION,
        );
        let limit = 1_u64 << processor.physical_bits;
        for (field, pages) in [(IOPM_BASE_PA, IOPM_PAGES), (MSRPM_BASE_PA, MSRPM_PAGES)] {
            // The processor ignores the low twelve bits.
            let end = (vmcb.get(field) & !0xfff).checked_add(pages as u64 * 4096);
            self.is(
                field,
                end.is_some_and(|end| end <= limit),
                "the whole map must lie where physical addresses are",
                SECTION,
            );
        }
        let asid = vmcb.get(GUEST_ASID);
        self.is(GUEST_ASID, asid != 0, "0 is the host's", SECTION);
        self.is(
            GUEST_ASID,
            asid == 0 || asid < processor.asids,
            "it must be one that the processor has",
            "15.16",
        );
    }

    /// What is to be delivered.
    fn event(&mut self) {
        const SECTION: &str = "15.20";
        let event = Event(self.vmcb.get(EVENTINJ));
        if !event.is_valid() {
            return;
        }
        self.is(
            EVENTINJ,
            !matches!(event.kind(), Kind::Reserved(_)),
            "its type must not be reserved",
            SECTION,
        );
        if event.kind() == Kind::Exception {
            self.is(
                EVENTINJ,
                event.vector() < 32 && event.vector() != 2,
                "an exception has a vector below 32 that is not the NMI's",
                SECTION,
            );
            let long = self.vmcb.get(EFER) & LMA != 0 && self.vmcb.get(CS_ATTRIBUTES) & LONG != 0;
            self.is(
                EVENTINJ,
                !long || !matches!(event.vector(), 4 | 5),
                "64-bit mode has no #OF and no #BR",
                SECTION,
            );
        }
    }

    fn nested_paging(&mut self, processor: &Processor) {
        const SECTION: &str = "15.25.4";
        let vmcb = self.vmcb;
        self.is(
            N_CR3,
            vmcb.get(N_CR3) >> processor.physical_bits == 0,
            "bits beyond a physical address must be clear",
            SECTION,
        );
        self.is(
            G_PAT,
            Pat::new(vmcb.get(G_PAT)).is_some(),
            "each byte must be a memory type",
            SECTION,
        );
    }
}
