//! What a guest's processor says it can do (SDM volume 2A, CPUID).
//!
//! A guest needs only what ring 3 code can use and what the boot state relies on. So its table is
//! the host's own, cut down to a list: the same list whoever runs the processor, which is easier to
//! reason about than each host's whole table.

use alloc::vec::Vec;
use core::arch::x86_64::CpuidResult;

use crate::vcpu::Registers;

/// Extended states the guest may use: x87, SSE, AVX (SDM volume 1, section 13.1).
pub const XCR0: u64 = 0b111;

/// A mask of these bits.
const fn bits(list: &[u32]) -> u32 {
    let (mut mask, mut i) = (0, 0);
    while i < list.len() {
        mask |= 1 << list[i];
        i += 1;
    }
    mask
}

/// Leaf 1 ECX: SSE3, PCLMULQDQ, SSSE3, FMA, CX16, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE,
/// AVX, F16C, RDRAND.
const LEAF_1_ECX: u32 = bits(&[0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30]);
/// Leaf 1 ECX: a hypervisor is present.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 ECX: XSAVE and AVX.
const NEEDED_FOR_AVX: u32 = bits(&[26, 28]);
/// Leaf 1 EDX: FPU, DE, PSE, TSC, MSR, PAE, CX8, SEP, PGE, CMOV, PAT, CLFSH, MMX, FXSR, SSE, SSE2.
const LEAF_1_EDX: u32 = bits(&[0, 2, 3, 4, 5, 6, 8, 11, 13, 15, 16, 19, 23, 24, 25, 26]);
/// Leaf 7 EBX: FSGSBASE, BMI1, AVX2, SMEP, BMI2, ERMS, RDSEED, ADX, SMAP, CLFLUSHOPT, SHA.
const LEAF_7_EBX: u32 = bits(&[0, 3, 5, 7, 8, 9, 18, 19, 20, 23, 29]);
/// Leaf 7 ECX: UMIP, GFNI, VAES, VPCLMULQDQ.
const LEAF_7_ECX: u32 = bits(&[2, 8, 9, 10]);
/// Leaf 7 EDX: fast short `rep movsb`.
const LEAF_7_EDX: u32 = bits(&[4]);
/// Leaf 0x8000_0001 ECX: LAHF, LZCNT, PREFETCHW.
const EXTENDED_1_ECX: u32 = bits(&[0, 5, 8]);
/// Leaf 0x8000_0001 EDX: SYSCALL, NX, 1 GiB pages, long mode.
const EXTENDED_1_EDX: u32 = bits(&[11, 20, 26, 29]);

/// Leaf 1 ECX, with a local APIC: x2APIC, TSC deadline.
const APIC_ECX: u32 = bits(&[21, 24]);
/// Leaf 1 EDX, with a local APIC: APIC.
const APIC_EDX: u32 = bits(&[9]);

/// Leaf 1 ECX: the operating system has set CR4.OSXSAVE.
const OSXSAVE: u32 = 1 << 27;
/// What XSAVE takes for x87 and SSE: 512 bytes of legacy area and 64 of header (SDM volume 1,
/// section 13.4).
const XSAVE_SSE: u32 = 576;
/// What it takes with AVX beside that.
const XSAVE_AVX: u32 = 832;

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// EAX of the question.
    pub leaf: u32,
    /// ECX of the question; `None` where it does not matter.
    pub subleaf: Option<u32>,
    /// The answer.
    pub answer: CpuidResult,
}

/// The answer of a leaf that is not there.
const NOTHING: CpuidResult = CpuidResult {
    eax: 0,
    ebx: 0,
    ecx: 0,
    edx: 0,
};

/// The guest's table.
#[derive(Clone, Debug)]
pub struct GuestCpuid {
    entries: Vec<Entry>,
    avx: bool,
}

impl GuestCpuid {
    /// Cuts a host's features down to the list; `host` answers a leaf and a subleaf.
    pub fn of(host: impl Fn(u32, u32) -> CpuidResult) -> Self {
        let mut entries = Vec::with_capacity(8);
        let mut add = |leaf, subleaf, answer| entries.push(Entry { leaf, subleaf, answer });
        let identity = host(0, 0);
        let highest = identity.eax.min(0xd);
        add(
            0,
            None,
            CpuidResult {
                eax: highest,
                ..identity
            },
        );
        let one = host(1, 0);
        let avx = highest >= 0xd && one.ecx & NEEDED_FOR_AVX == NEEDED_FOR_AVX;
        let mask = if avx { LEAF_1_ECX } else { LEAF_1_ECX & !NEEDED_FOR_AVX };
        // EBX keeps the size of a cache line; one logical processor, whose APIC ID is 0.
        let ebx = one.ebx & 0xff00 | 1 << 16;
        add(
            1,
            None,
            CpuidResult {
                ebx,
                ecx: one.ecx & mask | HYPERVISOR,
                edx: one.edx & LEAF_1_EDX,
                ..one
            },
        );
        if highest >= 7 {
            let seven = host(7, 0);
            let no_avx = if avx { 0 } else { bits(&[5]) };
            add(
                7,
                Some(0),
                CpuidResult {
                    eax: 0,
                    ebx: seven.ebx & LEAF_7_EBX & !no_avx,
                    ecx: seven.ecx & LEAF_7_ECX,
                    edx: seven.edx & LEAF_7_EDX,
                },
            );
        }
        if avx {
            add(
                0xd,
                Some(0),
                CpuidResult {
                    eax: XCR0 as u32,
                    ebx: XSAVE_AVX,
                    ecx: XSAVE_AVX,
                    edx: 0,
                },
            );
            add(
                0xd,
                Some(2),
                CpuidResult {
                    eax: XSAVE_AVX - XSAVE_SSE,
                    ebx: XSAVE_SSE,
                    ..NOTHING
                },
            );
        }
        add(
            0x8000_0000,
            None,
            CpuidResult {
                eax: 0x8000_0008,
                ..NOTHING
            },
        );
        let extended = host(0x8000_0001, 0);
        add(
            0x8000_0001,
            None,
            CpuidResult {
                ecx: extended.ecx & EXTENDED_1_ECX,
                edx: extended.edx & EXTENDED_1_EDX,
                ..NOTHING
            },
        );
        add(
            0x8000_0008,
            None,
            CpuidResult {
                eax: host(0x8000_0008, 0).eax,
                ..NOTHING
            },
        );
        Self { entries, avx }
    }

    /// The table.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether the guest has XSAVE and AVX.
    #[must_use]
    pub const fn avx(&self) -> bool {
        self.avx
    }

    /// The table with a local APIC of this number in it.
    #[must_use]
    pub fn with_apic(&self, number: u32) -> Vec<Entry> {
        let mut entries = self.entries.clone();
        for entry in entries.iter_mut().filter(|entry| entry.leaf == 1) {
            entry.answer.ebx |= number << 24;
            entry.answer.ecx |= APIC_ECX;
            entry.answer.edx |= APIC_EDX;
        }
        // The identity in x2APIC mode: one thread in a core, one core (SDM volume 2A, CPUID).
        entries.push(Entry {
            leaf: 0xb,
            subleaf: Some(0),
            answer: CpuidResult { edx: number, ..NOTHING },
        });
        entries
    }

    /// The same with a local APIC of this number.
    #[must_use]
    pub fn of_processor(&self, number: u32) -> Self {
        Self {
            entries: self.with_apic(number),
            avx: self.avx,
        }
    }

    /// What `cpuid` answers a guest that asks for this leaf and subleaf, with the CR4.OSXSAVE and
    /// the XCR0 that it has now. A leaf that is not in the table has nothing but zeros.
    #[must_use]
    pub fn answer(&self, leaf: u32, subleaf: u32, osxsave: bool, xcr0: u64) -> CpuidResult {
        let asked = |entry: &&Entry| entry.leaf == leaf && entry.subleaf.is_none_or(|s| s == subleaf);
        let mut answer = self.entries.iter().find(asked).map_or(NOTHING, |entry| entry.answer);
        match (leaf, subleaf) {
            (1, _) if osxsave => answer.ecx |= OSXSAVE,
            // EBX is what the states that are switched on take.
            (0xd, 0) if self.avx && xcr0 & 1 << 2 == 0 => answer.ebx = XSAVE_SSE,
            _ => {}
        }
        answer
    }

    /// Carries out CPUID: the question is in EAX and ECX, and the answer overwrites four registers.
    pub fn execute(&self, registers: &mut Registers, osxsave: bool, xcr0: u64) {
        let answer = self.answer(registers.rax as u32, registers.rcx as u32, osxsave, xcr0);
        registers.rax = answer.eax.into();
        registers.rbx = answer.ebx.into();
        registers.rcx = answer.ecx.into();
        registers.rdx = answer.edx.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(everything: u32) -> impl Fn(u32, u32) -> CpuidResult {
        move |leaf, _| match leaf {
            0 => CpuidResult {
                eax: 0x20,
                ebx: 1,
                ecx: 2,
                edx: 3,
            },
            _ => CpuidResult {
                eax: everything,
                ebx: everything,
                ecx: everything,
                edx: everything,
            },
        }
    }

    fn entry(cpuid: &GuestCpuid, leaf: u32) -> CpuidResult {
        let found = cpuid.entries.iter().find(|e| e.leaf == leaf);
        found.expect("the leaf is there").answer
    }

    #[test]
    fn only_listed_features_pass() {
        let all = GuestCpuid::of(host(u32::MAX));
        assert!(all.avx);
        assert_eq!(entry(&all, 0).eax, 0xd);
        assert_eq!(entry(&all, 1).ecx, LEAF_1_ECX | HYPERVISOR);
        assert_eq!(entry(&all, 7).ebx & (1 << 16), 0, "AVX-512 needs more than XCR0 allows");
        assert_eq!(entry(&all, 0x8000_0001).edx, EXTENDED_1_EDX);
    }

    #[test]
    fn a_local_apic_shows_with_its_number_and_its_timer() {
        let bare = GuestCpuid::of(host(0));
        let table = bare.with_apic(5);
        let leaf = |leaf| {
            let found = table.iter().find(|e| e.leaf == leaf);
            found.expect("the leaf is there").answer
        };
        let one = leaf(1);
        assert_eq!((one.ebx >> 24, leaf(0xb).edx), (5, 5));
        assert_eq!((one.ecx & !HYPERVISOR, one.edx), (1 << 21 | 1 << 24, 1 << 9));
        assert_eq!(entry(&bare, 1).edx, 0, "others have none");
    }

    #[test]
    fn without_avx_there_is_neither_xsave_nor_avx2() {
        let none = GuestCpuid::of(host(!(1 << 28)));
        assert!(!none.avx);
        assert_eq!(entry(&none, 1).ecx & NEEDED_FOR_AVX, 0);
        assert_eq!(entry(&none, 7).ebx & (1 << 5), 0);
        assert!(!none.entries.iter().any(|e| e.leaf == 0xd));
    }

    #[test]
    fn a_processor_with_nothing_gives_a_guest_nothing_but_the_hypervisor_bit() {
        let bare = GuestCpuid::of(host(0));
        assert_eq!((entry(&bare, 1).ecx, entry(&bare, 1).edx), (HYPERVISOR, 0));
    }

    #[test]
    fn an_answer_follows_what_the_guest_has_switched_on() {
        let all = GuestCpuid::of(host(u32::MAX));
        let one = |osxsave| all.answer(1, 7, osxsave, XCR0).ecx & OSXSAVE;
        assert_eq!((one(false), one(true)), (0, OSXSAVE));
        let size = |xcr0| all.answer(0xd, 0, true, xcr0).ebx;
        assert_eq!((size(0b11), size(XCR0)), (XSAVE_SSE, XSAVE_AVX));
        for (leaf, subleaf) in [
            (2, 0),
            (7, 1),
            (0xd, 1),
            (0x20, 0),
            (0x4000_0000, 0),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(all.answer(leaf, subleaf, true, XCR0), NOTHING, "{leaf:#x}.{subleaf:#x}");
        }
    }
}
