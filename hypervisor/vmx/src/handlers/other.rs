//! HLT, XSETBV, MOV DR, and whatever no guest can cause.

use chiton_core::vcpu::Broken;
use chiton_core::vmx::exit::Basic;
use chiton_core::vmx::{VmcsFields, fields};

use super::Next;
use crate::inject::Injection;
use crate::{Error, VmxVcpu};

/// HLT: nothing more happens until an interrupt comes. Without an APIC, none does.
pub(super) fn hlt(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    vcpu.advance()?;
    vcpu.halted = vcpu.apic.is_some();
    Ok(if vcpu.halted { Next::Resume } else { Next::Halt })
}

/// XSETBV: the states that the guest saves and restores (SDM volume 2D, XSETBV).
pub(super) fn xsetbv(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    let registers = &vcpu.registers;
    let value = registers.rdx << 32 | registers.rax & 0xffff_ffff;
    if registers.rcx as u32 != 0 || !vcpu.fpu.set_xcr0(value) {
        return Ok(vcpu.raise(Injection::general_protection()));
    }
    vcpu.advance()?;
    Ok(Next::Resume)
}

/// MOV to and from debug registers (SDM volume 3C, table 29-4). They hold what is written, and
/// break nowhere: breakpoints are not offered.
pub(super) fn mov_dr(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    const FROM: u64 = 1 << 4;
    let qualification = vcpu.vmcs.get(fields::EXIT_QUALIFICATION);
    let register = (qualification >> 8 & 15) as u8;
    // 4 and 5 are other names for 6 and 7.
    let slot = match qualification & 7 {
        number @ 0..=3 => Some(number as usize),
        4 | 6 => Some(4),
        _ => None,
    };
    if qualification & FROM != 0 {
        let value = slot.map_or_else(|| vcpu.vmcs.get(fields::GUEST_DR7), |slot| vcpu.debug[slot]);
        *vcpu.registers.general_mut(register) = value;
    } else if let Some(slot) = slot {
        vcpu.debug[slot] = vcpu.registers.general(register);
    }
    vcpu.advance()?;
    Ok(Next::Resume)
}

/// The page-modification log is full: room is made.
pub(super) fn page_log_is_full(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    if let Some(log) = &mut vcpu.page_log {
        log.drain(&mut vcpu.vmcs)?;
    }
    Ok(Next::Resume)
}

/// An exit that no guest can cause as the controls are, or that nothing can be done about.
pub(super) fn unexpected(vcpu: &mut VmxVcpu, reason: Basic) -> Next {
    let qualification = vcpu.vmcs.get(fields::EXIT_QUALIFICATION);
    vcpu.note(format_args!(
        "the guest cannot go on after this exit: {reason}, qualification {qualification:#x}"
    ));
    Next::Broken(Broken::Unknown(reason.0.into()))
}
