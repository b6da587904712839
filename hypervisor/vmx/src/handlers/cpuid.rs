//! CPUID, which always exits (SDM volume 3C, section 27.1.2).

use chiton_core::vmx::{VmcsFields, fields};
use x86_64::registers::control::Cr4Flags;

use super::Next;
use crate::{Error, VmxVcpu};

/// Answers from the guest's table.
pub(super) fn cpuid(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    let registers = &mut vcpu.registers;
    let osxsave = vcpu.vmcs.get(fields::GUEST_CR4) & Cr4Flags::OSXSAVE.bits() != 0;
    let (leaf, subleaf) = (registers.rax as u32, registers.rcx as u32);
    let answer = vcpu.processor.cpuid.answer(leaf, subleaf, osxsave, vcpu.fpu.xcr0);
    registers.rax = answer.eax.into();
    registers.rbx = answer.ebx.into();
    registers.rcx = answer.ecx.into();
    registers.rdx = answer.edx.into();
    vcpu.advance()?;
    Ok(Next::Resume)
}
