//! MOV to CR0 and CR4, and from CR4 (APM volume 2, section 15.8.1).
//!
//! CR2, CR3 and CR8 are the guest's own, and CR0 but for what decides the mode and the caches. The exit comes before the
//! instruction.

use chiton_core::control::{self, CR4_BOTH};
use chiton_core::svm::event::Event;
use chiton_core::svm::intercept::vector3;
use chiton_core::svm::{VmcbFields, VmcbWrite, fields};
use chiton_core::vcpu::Broken;
use x86_64::registers::control::{Cr0Flags, EferFlags};

use super::{Next, instructions};
use crate::SvmVcpu;
use crate::setup::GP;

/// The second bytes of the opcodes.
const MOV_FROM: u8 = 0x20;
const MOV_TO: u8 = 0x22;

/// Has writes of CR0 exit again, after an LMSW that did not.
pub(super) fn watch(vcpu: &mut SvmVcpu) {
    if vcpu.exits & vector3::CR0_SELECTIVE == 0 {
        vcpu.exits |= vector3::CR0_SELECTIVE;
        vcpu.vmcb.set(fields::INTERCEPT_3, vcpu.exits);
    }
}

/// The guest reads CR4: what it has set.
pub(super) fn read_cr4(vcpu: &mut SvmVcpu) -> Next {
    let Some((register, next)) = instructions::general_register(vcpu, MOV_FROM) else {
        return no_mov(vcpu, 4);
    };
    *vcpu.registers.general_mut(register) = vcpu.cr4;
    vcpu.advance(next)
}

/// The guest writes CR4. A feature that its CPUID does not have is a reserved bit.
pub(super) fn write_cr4(vcpu: &mut SvmVcpu) -> Next {
    let Some((register, next)) = instructions::general_register(vcpu, MOV_TO) else {
        return no_mov(vcpu, 0x14);
    };
    let value = operand(vcpu, register);
    let long = vcpu.vmcb.get(fields::EFER) & EferFlags::LONG_MODE_ACTIVE.bits() != 0;
    if !control::takes_cr4(value, vcpu.processor.rules.cr4, long) {
        return vcpu.raise(Event::exception(GP, Some(0)));
    }
    vcpu.cr4 = value;
    vcpu.vmcb.set(fields::CR4, value | CR4_BOTH.bits());
    vcpu.forget();
    vcpu.advance(next)
}

/// The guest writes more of CR0 than TS and MP. LMSW exits too: it reaches the low four bits alone, and cannot clear PE,
/// so that the processor may carry it out: writes of CR0 exit no more before the next exit of another kind.
pub(super) fn write_cr0(vcpu: &mut SvmVcpu) -> Next {
    let Some((register, next)) = instructions::general_register(vcpu, MOV_TO) else {
        vcpu.exits &= !vector3::CR0_SELECTIVE;
        vcpu.vmcb.set(fields::INTERCEPT_3, vcpu.exits);
        return Next::Resume;
    };
    let taken = control::cr0(operand(vcpu, register)).filter(|value| change_mode(vcpu, *value));
    let Some(value) = taken else {
        return vcpu.raise(Event::exception(GP, Some(0)));
    };
    vcpu.vmcb.set(fields::CR0, value);
    vcpu.forget();
    vcpu.advance(next)
}

/// What is written: 64 bits in 64-bit mode, else 32.
fn operand(vcpu: &SvmVcpu, register: u8) -> u64 {
    let value = vcpu.registers.general(register);
    if vcpu.in_64_bit_mode() {
        value
    } else {
        value & 0xffff_ffff
    }
}

/// Has EFER agree with paging as CR0 is to have it; false if that cannot be now.
fn change_mode(vcpu: &mut SvmVcpu, cr0: u64) -> bool {
    /// L of the attributes of CS: 64-bit mode.
    const LONG: u16 = 1 << 9;
    let paging = Cr0Flags::PAGING.bits();
    if (vcpu.vmcb.get(fields::CR0) ^ cr0) & paging == 0 {
        return true;
    }
    let long_code = vcpu.vmcb.get(fields::CS_ATTRIBUTES) & LONG != 0;
    let old = vcpu.vmcb.get(fields::EFER);
    let efer = control::switch_paging(cr0 & paging != 0, old, vcpu.cr4, long_code);
    efer.is_some_and(|efer| {
        vcpu.vmcb.set(fields::EFER, efer);
        true
    })
}

/// The bytes at RIP have changed since.
fn no_mov(vcpu: &mut SvmVcpu, code: u32) -> Next {
    vcpu.note(format_args!("the bytes at RIP are no MOV of a control register"));
    Next::Broken(Broken::Unknown(code))
}
