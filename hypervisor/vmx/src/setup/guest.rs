//! The guest-state area (SDM volume 3C, section 26.4), and the registers as core knows them.
//!
//! CR0 and CR4 have three values each: what the guest reads is the *shadow* in the bits of the
//! *mask*, which are the hypervisor's, and the *real* one in the others.

use chiton_core::control::{CR4_BOTH, CR4_GUESTS};
use chiton_core::paging::Pat;
use chiton_core::vcpu::{Segment, SystemRegisters, Table};
use chiton_core::vmx::controls::entry;
use chiton_core::vmx::fields::segments::{CS, DS, ES, FS, GS, LDTR, SS, SegmentFields, TR};
use chiton_core::vmx::{Capabilities, NoSuchField, VmcsFields, VmcsWrite, fields};
use x86_64::registers::control::{Cr0Flags, EferFlags};

/// A segment that cannot be used (SDM volume 3C, table 26-2).
const UNUSABLE: u32 = 1 << 16;
/// The present bit of access rights.
const PRESENT: u16 = 1 << 7;

/// Bits of CR0 that the guest may change without an exit: they are about floating point and about
/// its own pages. The rest decides the mode and the caches.
pub(crate) const CR0_GUESTS: Cr0Flags = Cr0Flags::MONITOR_COPROCESSOR
    .union(Cr0Flags::EMULATE_COPROCESSOR)
    .union(Cr0Flags::TASK_SWITCHED)
    .union(Cr0Flags::WRITE_PROTECT)
    .union(Cr0Flags::ALIGNMENT_MASK);

/// What CR0 and CR4 really hold when the guest has set them to something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RealControlRegisters {
    cr0_must: u64,
    cr0_may: u64,
    cr4_must: u64,
}

impl RealControlRegisters {
    /// As VMX operation wants them (SDM volume 3D, sections A.7 and A.8). An unrestricted guest may
    /// clear PE and PG.
    pub(crate) const fn new(capabilities: &Capabilities) -> Self {
        let free = Cr0Flags::PROTECTED_MODE_ENABLE.union(Cr0Flags::PAGING).bits();
        let uncached = Cr0Flags::CACHE_DISABLE.union(Cr0Flags::NOT_WRITE_THROUGH).bits();
        Self {
            cr0_must: capabilities.cr0_fixed0 & !free,
            cr0_may: capabilities.cr0_fixed1 & !uncached,
            cr4_must: capabilities.cr4_fixed0 | CR4_BOTH.bits() & capabilities.cr4_fixed1,
        }
    }

    /// CR0. A guest that turns caches off has them on for all that.
    pub(crate) const fn cr0(self, value: u64) -> u64 {
        (value | self.cr0_must) & self.cr0_may
    }

    /// CR4: with VMXE, which VMX operation needs and the guest does not see.
    pub(crate) const fn cr4(self, value: u64) -> u64 {
        value | self.cr4_must
    }
}

/// Writes the system registers, which decide the mode.
pub(crate) fn write(
    vmcs: &mut impl VmcsWrite,
    system: &SystemRegisters,
    real: RealControlRegisters,
) -> Result<(), NoSuchField> {
    write_cr0(vmcs, system.cr0, real)?;
    write_cr4(vmcs, system.cr4, real)?;
    vmcs.set(fields::GUEST_CR3, system.cr3)?;
    write_efer(vmcs, system.efer)?;
    for (fields, segment) in [
        (CS, &system.cs),
        (DS, &system.ds),
        (ES, &system.es),
        (FS, &system.fs),
        (GS, &system.gs),
        (SS, &system.ss),
        (TR, &system.tr),
        (LDTR, &system.ldt),
    ] {
        write_segment(vmcs, &fields, segment)?;
    }
    vmcs.set(fields::GUEST_GDTR_BASE, system.gdt.base)?;
    vmcs.set(fields::GUEST_GDTR_LIMIT, system.gdt.limit.into())?;
    vmcs.set(fields::GUEST_IDTR_BASE, system.idt.base)?;
    vmcs.set(fields::GUEST_IDTR_LIMIT, system.idt.limit.into())
}

/// What a processor has after a reset and the guest's world does not name.
pub(crate) fn write_rest(vmcs: &mut impl VmcsWrite) -> Result<(), NoSuchField> {
    /// DR7 after a reset: bit 10 is always set.
    const DR7: u64 = 0x400;
    vmcs.set(fields::GUEST_PAT, Pat::RESET.value())?;
    vmcs.set(fields::GUEST_DR7, DR7)?;
    vmcs.set(fields::GUEST_DEBUGCTL, 0)?;
    vmcs.set(fields::GUEST_SYSENTER_CS, 0)?;
    vmcs.set(fields::GUEST_SYSENTER_ESP, 0)?;
    vmcs.set(fields::GUEST_SYSENTER_EIP, 0)?;
    vmcs.set(fields::GUEST_INTERRUPTIBILITY_STATE, 0)?;
    vmcs.set(fields::GUEST_ACTIVITY_STATE, 0)?;
    vmcs.set(fields::GUEST_PENDING_DEBUG_EXCEPTIONS, 0)?;
    // No shadow VMCS.
    vmcs.set(fields::VMCS_LINK_POINTER, u64::MAX)?;
    vmcs.set(fields::CR0_GUEST_HOST_MASK, !CR0_GUESTS.bits())?;
    vmcs.set(fields::CR4_GUEST_HOST_MASK, !CR4_GUESTS.bits())
}

/// CR0 as the guest has set it: what it reads, and what it really has.
pub(crate) fn write_cr0(vmcs: &mut impl VmcsWrite, value: u64, real: RealControlRegisters) -> Result<(), NoSuchField> {
    vmcs.set(fields::CR0_READ_SHADOW, value)?;
    vmcs.set(fields::GUEST_CR0, real.cr0(value))
}

/// CR4 as the guest has set it: what it reads, and what it really has.
pub(crate) fn write_cr4(vmcs: &mut impl VmcsWrite, value: u64, real: RealControlRegisters) -> Result<(), NoSuchField> {
    vmcs.set(fields::CR4_READ_SHADOW, value)?;
    vmcs.set(fields::GUEST_CR4, real.cr4(value))
}

/// EFER, and the control that has to agree with its LMA (SDM volume 3C, section 28.3.1.1).
pub(crate) fn write_efer(vmcs: &mut impl VmcsWrite, value: u64) -> Result<(), NoSuchField> {
    const LONG: u32 = entry::IA32E_MODE_GUEST as u32;
    let controls = vmcs.get(fields::ENTRY_CONTROLS) & !LONG;
    let long = value & EferFlags::LONG_MODE_ACTIVE.bits() != 0;
    vmcs.set(fields::ENTRY_CONTROLS, if long { controls | LONG } else { controls })?;
    vmcs.set(fields::GUEST_EFER, value)
}

/// CR0 as the guest reads it.
pub(crate) fn cr0(vmcs: &impl VmcsFields) -> u64 {
    let guests = CR0_GUESTS.bits();
    vmcs.get(fields::GUEST_CR0) & guests | vmcs.get(fields::CR0_READ_SHADOW) & !guests
}

/// CR4 as the guest reads it.
pub(crate) fn cr4(vmcs: &impl VmcsFields) -> u64 {
    let guests = CR4_GUESTS.bits();
    vmcs.get(fields::GUEST_CR4) & guests | vmcs.get(fields::CR4_READ_SHADOW) & !guests
}

/// The ring that the guest is in: the privilege level of its stack segment (SDM volume 3C, section
/// 26.4.1).
pub(crate) fn ring(vmcs: &impl VmcsFields) -> u8 {
    (vmcs.get(fields::GUEST_SS_ACCESS_RIGHTS) >> 5 & 3) as u8
}

/// Reads the system registers back. CR2 is not in a VMCS.
pub(crate) fn read(vmcs: &impl VmcsFields, cr2: u64) -> SystemRegisters {
    let segment = |fields| read_segment(vmcs, fields);
    SystemRegisters {
        cr0: cr0(vmcs),
        cr2,
        cr3: vmcs.get(fields::GUEST_CR3),
        cr4: cr4(vmcs),
        efer: vmcs.get(fields::GUEST_EFER),
        cs: segment(&CS),
        ds: segment(&DS),
        es: segment(&ES),
        fs: segment(&FS),
        gs: segment(&GS),
        ss: segment(&SS),
        tr: segment(&TR),
        ldt: segment(&LDTR),
        gdt: Table {
            base: vmcs.get(fields::GUEST_GDTR_BASE),
            limit: vmcs.get(fields::GUEST_GDTR_LIMIT) as u16,
        },
        idt: Table {
            base: vmcs.get(fields::GUEST_IDTR_BASE),
            limit: vmcs.get(fields::GUEST_IDTR_LIMIT) as u16,
        },
    }
}

fn write_segment(vmcs: &mut impl VmcsWrite, fields: &SegmentFields, segment: &Segment) -> Result<(), NoSuchField> {
    let usable = segment.access & PRESENT != 0;
    vmcs.set(fields.selector, segment.selector)?;
    vmcs.set(fields.base, segment.base)?;
    vmcs.set(fields.limit, segment.limit)?;
    vmcs.set(fields.rights, if usable { segment.access.into() } else { UNUSABLE })
}

fn read_segment(vmcs: &impl VmcsFields, fields: &SegmentFields) -> Segment {
    let access = vmcs.get(fields.rights);
    Segment {
        selector: vmcs.get(fields.selector),
        base: vmcs.get(fields.base),
        limit: vmcs.get(fields.limit),
        access: if access & UNUSABLE == 0 { access as u16 } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use chiton_core::vmx::PlainVmcs;

    use super::*;

    fn capabilities() -> Capabilities {
        Capabilities {
            cr0_fixed0: 0x8000_0021,
            cr0_fixed1: 0xffff_ffff,
            cr4_fixed0: 1 << 13,
            cr4_fixed1: 0x1727ff,
            ..Capabilities::default()
        }
    }

    #[test]
    fn registers_survive_the_way_into_the_vmcs_and_back() {
        let segment = |selector, base, access| Segment {
            selector,
            base,
            limit: u32::MAX,
            access,
        };
        let system = SystemRegisters {
            cr0: 0x8005_0033,
            cr2: 7,
            cr3: 0x4_0000,
            cr4: 0x4_0620,
            efer: 0xd00,
            cs: segment(0x23, 0, 0xa0fb),
            ds: segment(0x1b, 0, 0xc0f3),
            gs: segment(0x1b, 0xf_0000, 0xc0f3),
            tr: segment(0x28, 0x2_1000, 0x8b),
            gdt: Table {
                base: 0x2_0000,
                limit: 55,
            },
            ..SystemRegisters::default()
        };
        let mut vmcs = PlainVmcs::default();
        let real = RealControlRegisters::new(&capabilities());
        write_rest(&mut vmcs).unwrap();
        write(&mut vmcs, &system, real).unwrap();
        assert_eq!(read(&vmcs, 7), system);
        assert_eq!(vmcs.get(fields::GUEST_LDTR_ACCESS_RIGHTS), UNUSABLE);
        assert_eq!(vmcs.get(fields::ENTRY_CONTROLS), entry::IA32E_MODE_GUEST as u32);
        assert_eq!(
            vmcs.get(fields::GUEST_CR4),
            0x4_2660,
            "with VMXE and MCE, which it does not read"
        );
    }

    #[test]
    fn caches_stay_on_whatever_the_guest_says() {
        let real = RealControlRegisters::new(&capabilities());
        assert_eq!(real.cr0(0x6000_0010), 0x30);
    }
}
