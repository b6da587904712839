//! What stands in a VMCB before the guest runs: what exits, which ports and registers are the
//! guest's own, and the guest's registers.

use chiton_core::control::CR4_BOTH;
use chiton_core::paging::Pat;
use chiton_core::physical::{Pages, Physical};
use chiton_core::svm::controls::Controls;
use chiton_core::svm::features::{EFER_SVME, Features};
use chiton_core::svm::intercept::{IOPM_PAGES, MSRPM_PAGES, msrpm_bits, vector3, vector4, vector5};
use chiton_core::svm::{VmcbFields, VmcbRead, VmcbWrite, fields};
use chiton_core::vcpu::{SystemRegisters, Table};

use crate::Error;

/// The debug exception.
pub(crate) const DB: u8 = 1;
/// The undefined-instruction exception.
pub(crate) const UD: u8 = 6;
/// The general-protection exception.
pub(crate) const GP: u8 = 13;
/// The page fault.
pub(crate) const PF: u8 = 14;
/// The alignment check.
pub(crate) const AC: u8 = 17;
/// The machine check.
pub(crate) const MC: u8 = 18;

/// Exceptions that exit. #DB and #AC: a guest whose handler raises them again keeps the processor
/// busy for ever, with no instruction boundary at which anything could interrupt it. #MC: it is the
/// machine's.
const EXCEPTIONS: u32 = 1 << DB | 1 << AC | 1 << MC;

/// All accesses to debug registers: they hold what is written, and break nowhere.
const DEBUG_REGISTERS: u32 = u32::MAX;

/// Reads and writes of CR4: the guest has the features of its CPUID alone, and does not see the bit that is set for
/// the machine's sake. CR0 needs only the part that [`vector3::CR0_SELECTIVE`] is about: as it has a CR0 of its own, what
/// it sets there, turning caches off too, is its own loss; but what a processor refuses is refused.
const CONTROL_REGISTERS: u32 = 1 << 4 | 1 << (16 + 4);

/// Events of the machine, instructions that the guest's CPUID does not have, and those that ask for
/// something outside the guest. What is about the guest's own mode and tables does not exit.
pub(crate) const VECTOR_3: u32 = vector3::INTR
    | vector3::CR0_SELECTIVE
    | vector3::NMI
    | vector3::RDPMC
    | vector3::CPUID
    | vector3::RSM
    | vector3::INVD
    | vector3::HLT
    | vector3::INVLPGA
    | vector3::IOIO
    | vector3::MSR
    | vector3::TASK_SWITCH
    | vector3::FERR_FREEZE
    | vector3::SHUTDOWN;

const VECTOR_4: u32 = vector4::VMRUN
    | vector4::VMMCALL
    | vector4::VMLOAD
    | vector4::VMSAVE
    | vector4::STGI
    | vector4::CLGI
    | vector4::SKINIT
    | vector4::RDTSCP
    | vector4::WBINVD
    | vector4::MONITOR
    | vector4::MWAIT
    | vector4::XSETBV
    | vector4::RDPRU;

/// A processor without one of these instructions ignores its bit.
const VECTOR_5: u32 = vector5::INVLPGB | vector5::INVPCID | vector5::MCOMMIT | vector5::TLBSYNC;

/// Of the virtual interrupt control: RFLAGS.IF and CR8 of the guest are about its own interrupts
/// (APM volume 2, section 15.21.1).
pub(crate) const V_INTR_MASKING: u32 = 1 << 24;

/// Registers that are the guest's own: VMLOAD and VMSAVE exchange them, or the guest's VMCB has
/// them. By number: SYSENTER_CS, _ESP, _EIP, STAR, LSTAR, CSTAR, SFMASK, FS.base, GS.base, KernelGsBase.
const GUESTS_OWN: [u32; 10] = [
    0x174,
    0x175,
    0x176,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
];

/// The maps of a guest: a bit that is set exits.
pub(crate) struct Maps {
    ports: Pages,
    registers: Pages,
}

impl Maps {
    /// Every port exits, and every register but the guest's own.
    pub(crate) fn new(physical: &'static dyn Physical) -> Result<Self, Error> {
        let maps = Self {
            ports: Pages::side_by_side(physical, "the map of ports", IOPM_PAGES)?,
            registers: Pages::side_by_side(physical, "the map of model-specific registers", MSRPM_PAGES)?,
        };
        maps.ports.fill(0xff);
        maps.registers.fill(0xff);
        for (byte, bit) in GUESTS_OWN.into_iter().filter_map(msrpm_bits) {
            let byte = maps.registers.at::<u8>(byte);
            // SAFETY: the byte lies in the map, which is this value's own.
            unsafe { byte.write(byte.read() & !(0b11 << bit)) }
        }
        Ok(maps)
    }
}

/// Everything in the VMCB but the registers of the guest.
pub(crate) fn controls(vmcb: &mut impl VmcbWrite, maps: &Maps, asid: u32, n_cr3: u64) {
    vmcb.set(fields::INTERCEPT_CR, CONTROL_REGISTERS);
    vmcb.set(fields::INTERCEPT_DR, DEBUG_REGISTERS);
    vmcb.set(fields::INTERCEPT_EXCEPTIONS, EXCEPTIONS);
    vmcb.set(fields::INTERCEPT_3, VECTOR_3);
    vmcb.set(fields::INTERCEPT_4, VECTOR_4);
    vmcb.set(fields::INTERCEPT_5, VECTOR_5);
    vmcb.set(fields::IOPM_BASE_PA, maps.ports.address());
    vmcb.set(fields::MSRPM_BASE_PA, maps.registers.address());
    vmcb.set(fields::GUEST_ASID, asid);
    vmcb.set(fields::VIRTUAL_INTERRUPT, V_INTR_MASKING);
    vmcb.set(fields::NESTED_CONTROL, 1);
    vmcb.set(fields::N_CR3, n_cr3);
    vmcb.set(fields::G_PAT, Pat::RESET.value());
    // As after a reset (APM volume 2, section 14.1.3).
    vmcb.set(fields::DR6, 0xffff_0ff0);
    vmcb.set(fields::DR7, 0x400);
}

/// What is wanted of the processor, beside a VMCB. Without its optional features instructions are decoded here, all
/// translations are forgotten instead of one guest's, and all of the VMCB is read at each entry.
pub(crate) const fn wanted(features: Features, vmcb: &dyn VmcbRead) -> Controls<'_> {
    Controls {
        features,
        required: Features::NESTED_PAGING,
        optional: Features::NRIP_SAVE | Features::CLEAN_BITS | Features::FLUSH_BY_ASID | Features::DECODE_ASSISTS,
        exits: [VECTOR_3, VECTOR_4, VECTOR_5],
        vmcb,
    }
}

/// Writes the system registers, which decide the mode.
pub(crate) fn write(vmcb: &mut impl VmcbWrite, system: &SystemRegisters) {
    vmcb.set(fields::CR0, system.cr0);
    vmcb.set(fields::CR2, system.cr2);
    vmcb.set(fields::CR3, system.cr3);
    vmcb.set(fields::CR4, system.cr4 | CR4_BOTH.bits());
    vmcb.set(fields::EFER, system.efer | EFER_SVME);
    for (fields, segment) in [
        (fields::CS, &system.cs),
        (fields::DS, &system.ds),
        (fields::ES, &system.es),
        (fields::FS, &system.fs),
        (fields::GS, &system.gs),
        (fields::SS, &system.ss),
        (fields::TR, &system.tr),
        (fields::LDTR, &system.ldt),
    ] {
        vmcb.set_segment(fields, segment);
    }
    vmcb.set(fields::GDTR_BASE, system.gdt.base);
    vmcb.set(fields::GDTR_LIMIT, system.gdt.limit.into());
    vmcb.set(fields::IDTR_BASE, system.idt.base);
    vmcb.set(fields::IDTR_LIMIT, system.idt.limit.into());
    vmcb.set(fields::CPL, (system.ss.access >> 5 & 3) as u8);
}

/// Reads the system registers back, without the bit of EFER that the guest must not see. CR4 as the guest has set it
/// is in no VMCB.
pub(crate) fn read(vmcb: &impl VmcbFields, cr4: u64) -> SystemRegisters {
    let table = |base, limit| Table {
        base: vmcb.get(base),
        limit: vmcb.get(limit) as u16,
    };
    SystemRegisters {
        cr0: vmcb.get(fields::CR0),
        cr2: vmcb.get(fields::CR2),
        cr3: vmcb.get(fields::CR3),
        cr4,
        efer: vmcb.get(fields::EFER) & !EFER_SVME,
        cs: vmcb.segment(fields::CS),
        ds: vmcb.segment(fields::DS),
        es: vmcb.segment(fields::ES),
        fs: vmcb.segment(fields::FS),
        gs: vmcb.segment(fields::GS),
        ss: vmcb.segment(fields::SS),
        tr: vmcb.segment(fields::TR),
        ldt: vmcb.segment(fields::LDTR),
        gdt: table(fields::GDTR_BASE, fields::GDTR_LIMIT),
        idt: table(fields::IDTR_BASE, fields::IDTR_LIMIT),
    }
}

#[cfg(test)]
mod tests {
    use chiton_core::svm::PlainVmcb;
    use chiton_core::vcpu::Segment;

    use super::*;

    #[test]
    fn registers_survive_the_way_into_the_vmcb_and_back() {
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
            ss: segment(0x1b, 0, 0xc0f3),
            gs: segment(0x1b, 0xf_0000, 0xc0f3),
            tr: segment(0x28, 0x2_1000, 0x8b),
            gdt: Table {
                base: 0x2_0000,
                limit: 55,
            },
            ..SystemRegisters::default()
        };
        let mut vmcb = PlainVmcb::default();
        write(&mut vmcb, &system);
        assert_eq!(read(&vmcb, 0x4_0620), system);
        assert_eq!(
            vmcb.get(fields::CR4),
            0x4_0660,
            "with MCE, which the guest does not read"
        );
        assert_eq!(
            vmcb.get(fields::EFER),
            0x1d00,
            "with SVME, which the guest does not read"
        );
        assert_eq!(vmcb.get(fields::CPL), 3);
    }
}
