//! What the guest's processor says it can do (SDM volume 2A, CPUID).
//!
//! The kernel would list what it supports (`KVM_GET_SUPPORTED_CPUID`), but that takes longer than
//! creating the machine where `cpuid` itself traps. A Chiton guest needs only what ring 3 code can
//! use and what the boot state relies on; both are features KVM passes through on any processor
//! that has them. So the table is the host's own, cut down to a list. (Leaf 0xD belongs to it even
//! for guests that use no wide registers: without it the kernel takes twice as long to accept the
//! table.)

use std::arch::x86_64::{__cpuid_count, CpuidResult};

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2, kvm_xcr, kvm_xcrs};
use kvm_ioctls::VcpuFd;

use crate::Error;

/// Extended states the guest may use: x87, SSE, AVX (SDM volume 1, section 13.1).
pub(crate) const XCR0: u64 = 0b111;

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

/// The guest's table, and whether it has AVX.
pub(crate) struct GuestCpuid {
    pub(crate) entries: Vec<kvm_cpuid_entry2>,
    pub(crate) avx: bool,
}

impl GuestCpuid {
    /// Cuts the host's features down to the list.
    pub(crate) fn of_host() -> Self {
        Self::from(__cpuid_count)
    }

    /// Makes it the table of a vCPU.
    pub(crate) fn give_to(&self, vcpu: &VcpuFd) -> Result<(), Error> {
        self.give(vcpu, &self.entries)
    }

    /// Makes it the table of a vCPU that has a local APIC of this number.
    pub(crate) fn give_with_apic(&self, vcpu: &VcpuFd, number: u32) -> Result<(), Error> {
        self.give(vcpu, &self.with_apic(number))
    }

    /// The table with the local APIC in it.
    fn with_apic(&self, number: u32) -> Vec<kvm_cpuid_entry2> {
        let mut entries = self.entries.clone();
        for entry in entries.iter_mut().filter(|entry| entry.function == 1) {
            entry.ebx |= number << 24;
            entry.ecx |= APIC_ECX;
            entry.edx |= APIC_EDX;
        }
        // The identity in x2APIC mode: one thread in a core, one core (SDM volume 2A, CPUID).
        entries.push(kvm_cpuid_entry2 {
            function: 0xb,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            edx: number,
            ..kvm_cpuid_entry2::default()
        });
        entries
    }

    fn give(&self, vcpu: &VcpuFd, entries: &[kvm_cpuid_entry2]) -> Result<(), Error> {
        let too_long = |_| Error::KvmCapability("room for the CPUID table");
        vcpu.set_cpuid2(&CpuId::from_entries(entries).map_err(too_long)?)
            .map_err(Error::kvm("KVM_SET_CPUID2"))?;
        if self.avx {
            let mut xcrs = kvm_xcrs {
                nr_xcrs: 1,
                ..kvm_xcrs::default()
            };
            xcrs.xcrs[0] = kvm_xcr {
                xcr: 0,
                reserved: 0,
                value: XCR0,
            };
            vcpu.set_xcrs(&xcrs).map_err(Error::kvm("KVM_SET_XCRS"))?;
        }
        Ok(())
    }

    fn from(host: impl Fn(u32, u32) -> CpuidResult) -> Self {
        let mut entries = Vec::with_capacity(8);
        let mut add = |leaf, subleaf: Option<u32>, r: CpuidResult| {
            entries.push(kvm_cpuid_entry2 {
                function: leaf,
                index: subleaf.unwrap_or(0),
                flags: if subleaf.is_some() {
                    KVM_CPUID_FLAG_SIGNIFCANT_INDEX
                } else {
                    0
                },
                eax: r.eax,
                ebx: r.ebx,
                ecx: r.ecx,
                edx: r.edx,
                padding: [0; 3],
            });
        };
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
            let ebx = seven.ebx & LEAF_7_EBX & !no_avx;
            add(
                7,
                Some(0),
                CpuidResult {
                    eax: 0,
                    ebx,
                    ecx: seven.ecx & LEAF_7_ECX,
                    edx: seven.edx & LEAF_7_EDX,
                },
            );
        }
        if avx {
            // Standard form: 512 bytes of legacy area, 64 of header, 256 of AVX state.
            add(
                0xd,
                Some(0),
                CpuidResult {
                    eax: XCR0 as u32,
                    ebx: 832,
                    ecx: 832,
                    edx: 0,
                },
            );
            add(
                0xd,
                Some(2),
                CpuidResult {
                    eax: 256,
                    ebx: 576,
                    ecx: 0,
                    edx: 0,
                },
            );
        }
        add(
            0x8000_0000,
            None,
            CpuidResult {
                eax: 0x8000_0008,
                ebx: 0,
                ecx: 0,
                edx: 0,
            },
        );
        let extended = host(0x8000_0001, 0);
        let (ecx, edx) = (extended.ecx & EXTENDED_1_ECX, extended.edx & EXTENDED_1_EDX);
        add(
            0x8000_0001,
            None,
            CpuidResult {
                eax: 0,
                ebx: 0,
                ecx,
                edx,
            },
        );
        add(
            0x8000_0008,
            None,
            CpuidResult {
                ebx: 0,
                ecx: 0,
                edx: 0,
                ..host(0x8000_0008, 0)
            },
        );
        Self { entries, avx }
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

    fn entry(cpuid: &GuestCpuid, leaf: u32) -> kvm_cpuid_entry2 {
        *cpuid
            .entries
            .iter()
            .find(|e| e.function == leaf)
            .expect("the leaf is there")
    }

    #[test]
    fn only_listed_features_pass() {
        let all = GuestCpuid::from(host(u32::MAX));
        assert!(all.avx);
        assert_eq!(entry(&all, 0).eax, 0xd);
        assert_eq!(entry(&all, 1).ecx, LEAF_1_ECX | HYPERVISOR);
        assert_eq!(entry(&all, 7).ebx & (1 << 16), 0, "AVX-512 needs more than XCR0 allows");
        assert_eq!(entry(&all, 0x8000_0001).edx, EXTENDED_1_EDX);
    }

    #[test]
    fn a_local_apic_shows_with_its_number_and_its_timer() {
        let bare = GuestCpuid::from(host(0));
        let table = bare.with_apic(5);
        let leaf = |function| {
            *table
                .iter()
                .find(|e| e.function == function)
                .expect("the leaf is there")
        };
        let one = leaf(1);
        assert_eq!((one.ebx >> 24, leaf(0xb).edx), (5, 5));
        assert_eq!((one.ecx & !HYPERVISOR, one.edx), (1 << 21 | 1 << 24, 1 << 9));
        assert_eq!(entry(&bare, 1).edx, 0, "others have none");
    }

    #[test]
    fn without_avx_there_is_neither_xsave_nor_avx2() {
        let none = GuestCpuid::from(host(!(1 << 28)));
        assert!(!none.avx);
        assert_eq!(entry(&none, 1).ecx & NEEDED_FOR_AVX, 0);
        assert_eq!(entry(&none, 7).ebx & (1 << 5), 0);
        assert!(!none.entries.iter().any(|e| e.function == 0xd));
    }

    #[test]
    fn a_processor_with_nothing_gives_a_guest_nothing_but_the_hypervisor_bit() {
        let bare = GuestCpuid::from(host(0));
        assert_eq!((entry(&bare, 1).ecx, entry(&bare, 1).edx), (HYPERVISOR, 0));
    }
}
