//! CPUID, which always exits (SDM volume 3C, section 27.1.2).

use chiton_core::vmx::{VmcsFields, fields};
use x86_64::registers::control::Cr4Flags;

use super::Next;
use crate::{Error, VmxVcpu};

/// Answers from the guest's table.
pub(super) fn cpuid(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    let osxsave = vcpu.vmcs.get(fields::GUEST_CR4) & Cr4Flags::OSXSAVE.bits() != 0;
    let cpuid = vcpu.cpuid.as_ref().unwrap_or(&vcpu.processor.cpuid);
    cpuid.execute(&mut vcpu.registers, osxsave, vcpu.fpu.xcr0());
    vcpu.advance()?;
    Ok(Next::Resume)
}
