//! RDMSR and WRMSR (APM volume 2, section 15.11): the few registers that a guest here has beside its
//! own. Any other is a general-protection exception, as on a processor without it.

use core::arch::x86_64::_rdtsc;

use chiton_core::apic::GuestApic;
use chiton_core::paging::Pat;
use chiton_core::svm::event::Event;
use chiton_core::svm::features::EFER_SVME;
use chiton_core::svm::{VmcbFields, VmcbWrite, fields};
use x86_64::registers::control::{Cr0Flags, EferFlags};

use super::{Next, instructions};
use crate::SvmVcpu;
use crate::setup::GP;

/// The time-stamp counter.
const TSC: u32 = 0x10;
/// The page attribute table.
const PAT: u32 = 0x277;
/// Long mode, no-execute, `syscall`.
const EFER: u32 = 0xc000_0080;

/// Bits of EFER that the guest may change.
const EFER_GUESTS: EferFlags = EferFlags::SYSTEM_CALL_EXTENSIONS
    .union(EferFlags::LONG_MODE_ENABLE)
    .union(EferFlags::NO_EXECUTE_ENABLE);

/// Either of the two: EXITINFO1 says which.
pub(super) fn access(vcpu: &mut SvmVcpu) -> Next {
    let write = vcpu.vmcb.get(fields::EXITINFO1) != 0;
    let register = vcpu.registers.rcx as u32;
    vcpu.hear_task_priority();
    let done = if write {
        let value = vcpu.registers.rdx << 32 | vcpu.registers.rax & 0xffff_ffff;
        set(vcpu, register, value)
    } else if let Some(value) = get(vcpu, register) {
        vcpu.registers.rax = value & 0xffff_ffff;
        vcpu.registers.rdx = value >> 32;
        true
    } else {
        false
    };
    if done {
        instructions::skip(vcpu, &[&[0x0f, if write { 0x30 } else { 0x32 }]])
    } else {
        vcpu.raise(Event::exception(GP, Some(0)))
    }
}

/// The guest's value; `None` if it has no such register.
fn get(vcpu: &SvmVcpu, register: u32) -> Option<u64> {
    match register {
        TSC => Some(now().wrapping_add(vcpu.vmcb.get(fields::TSC_OFFSET))),
        PAT => Some(vcpu.vmcb.get(fields::G_PAT)),
        EFER => Some(vcpu.vmcb.get(fields::EFER) & !EFER_SVME),
        _ if GuestApic::has(register) => vcpu.apic.as_ref()?.read(register, now()).ok(),
        _ => None,
    }
}

/// Changes the guest's value; false if it has no such register, or the register takes no such
/// value.
fn set(vcpu: &mut SvmVcpu, register: u32, value: u64) -> bool {
    match register {
        TSC => {
            let now = now();
            let offset = value.wrapping_sub(now);
            vcpu.vmcb.set(fields::TSC_OFFSET, offset);
            if let Some(apic) = &mut vcpu.apic {
                apic.set_offset(offset, now);
            }
            true
        }
        _ if GuestApic::has(register) => {
            let taken = vcpu
                .apic
                .as_mut()
                .is_some_and(|apic| apic.write(register, value, now()).is_ok());
            vcpu.tell_task_priority();
            taken
        }
        PAT if Pat::new(value).is_some() => {
            vcpu.vmcb.set(fields::G_PAT, value);
            vcpu.forget();
            true
        }
        EFER => {
            let paging = vcpu.vmcb.get(fields::CR0) & Cr0Flags::PAGING.bits() != 0;
            let Some(value) = efer(vcpu.vmcb.get(fields::EFER), value, paging) else {
                return false;
            };
            vcpu.vmcb.set(fields::EFER, value);
            // NXE decides what page tables mean.
            vcpu.forget();
            true
        }
        _ => false,
    }
}

/// What EFER becomes when the guest writes a value; `None` if it does not take it. LMA is the
/// processor's, and LME does not change while paging is on (APM volume 2, section 14.6.1).
fn efer(old: u64, value: u64, paging: bool) -> Option<u64> {
    let kept = EferFlags::LONG_MODE_ACTIVE.bits() | EFER_SVME;
    let enable = EferFlags::LONG_MODE_ENABLE.bits();
    let known = EFER_GUESTS.bits() | EferFlags::LONG_MODE_ACTIVE.bits();
    if value & !known != 0 || paging && (value ^ old) & enable != 0 {
        return None;
    }
    Some(value & !kept | old & kept)
}

fn now() -> u64 {
    // SAFETY: RDTSC (APM volume 3) changes two registers alone, and every processor in 64-bit mode has the counter.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_reach_svm_and_not_leave_long_mode_while_it_pages() {
        let old = 0x1d00;
        assert_eq!(efer(old, 0xd01, true), Some(0x1d01));
        assert_eq!(efer(old, 0x901, true), Some(0x1d01), "LMA is the processor's");
        assert_eq!(efer(old, 0x1d00, true), None, "SVME is reserved");
        assert_eq!(efer(old, 0xc00, true), None, "LME");
        assert_eq!(efer(0x1000, 0x100, false), Some(0x1100));
        assert_eq!(efer(old, 0x4d00, true), None, "a feature that CPUID does not have");
    }
}
