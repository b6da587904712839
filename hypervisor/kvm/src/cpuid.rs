//! The guest's CPUID table, as KVM takes it.
//!
//! The kernel would list what it supports (`KVM_GET_SUPPORTED_CPUID`), but that takes longer than
//! creating the machine where `cpuid` itself traps. The features of core's list are those that KVM
//! passes through on any processor that has them, so the table is the host's own, cut down to it.
//! (Leaf 0xD belongs to it even for guests that use no wide registers: without it the kernel takes
//! twice as long to accept the table.)

use std::arch::x86_64::__cpuid_count;

use chiton_core::cpuid::{self, Entry, XCR0};
use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2, kvm_xcr, kvm_xcrs};
use kvm_ioctls::VcpuFd;

use crate::Error;

/// The guest's table, and whether it has AVX.
#[derive(Clone)]
pub(crate) struct GuestCpuid {
    table: cpuid::GuestCpuid,
    pub(crate) avx: bool,
}

impl GuestCpuid {
    /// Cuts the host's features down to the list.
    pub(crate) fn of_host() -> Self {
        let table = cpuid::GuestCpuid::of(__cpuid_count);
        let avx = table.avx();
        Self { table, avx }
    }

    /// What the guest sees.
    pub(crate) fn entries(&self) -> &[Entry] {
        self.table.entries()
    }

    /// Makes it the table of a vCPU.
    pub(crate) fn give_to(&self, vcpu: &VcpuFd) -> Result<(), Error> {
        self.give(vcpu, self.table.entries())
    }

    /// Makes it the table of a vCPU that has a local APIC of this number.
    pub(crate) fn give_with_apic(&self, vcpu: &VcpuFd, number: u32) -> Result<(), Error> {
        self.give(vcpu, &self.table.with_apic(number))
    }

    fn give(&self, vcpu: &VcpuFd, entries: &[Entry]) -> Result<(), Error> {
        let too_long = |_| Error::KvmCapability("room for the CPUID table");
        let entries: Vec<_> = entries.iter().map(entry_to).collect();
        vcpu.set_cpuid2(&CpuId::from_entries(&entries).map_err(too_long)?)
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
}

fn entry_to(entry: &Entry) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function: entry.leaf,
        index: entry.subleaf.unwrap_or(0),
        flags: if entry.subleaf.is_some() {
            KVM_CPUID_FLAG_SIGNIFCANT_INDEX
        } else {
            0
        },
        eax: entry.answer.eax,
        ebx: entry.answer.ebx,
        ecx: entry.answer.ecx,
        edx: entry.answer.edx,
        padding: [0; 3],
    }
}
