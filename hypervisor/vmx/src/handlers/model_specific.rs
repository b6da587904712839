//! RDMSR and WRMSR (SDM volume 3C, section 27.1.3): the few registers that a guest here has. Any
//! other is a general-protection exception, as on a processor without it.

use core::arch::x86_64::_rdtsc;

use chiton_core::apic::GuestApic;
use chiton_core::paging::Pat;
use chiton_core::vmx::controls::secondary;
use chiton_core::vmx::{VmcsFields, VmcsWrite, fields};
use x86_64::registers::control::{Cr0Flags, EferFlags};

use super::Next;
use crate::inject::Injection;
use crate::setup::guest;
use crate::{Error, VmxVcpu, msr};

/// The time-stamp counter.
const TSC: u32 = 0x10;

/// Bits of EFER that the guest may change.
const EFER_GUESTS: EferFlags = EferFlags::SYSTEM_CALL_EXTENSIONS
    .union(EferFlags::LONG_MODE_ENABLE)
    .union(EferFlags::NO_EXECUTE_ENABLE);

/// RDMSR: EDX and EAX become the value.
pub(super) fn rdmsr(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    let register = vcpu.registers.rcx as u32;
    vcpu.hear_task_priority();
    let Some(value) = read(vcpu, register) else {
        return Ok(vcpu.raise(Injection::general_protection()));
    };
    vcpu.registers.rax = value & 0xffff_ffff;
    vcpu.registers.rdx = value >> 32;
    vcpu.advance()?;
    Ok(Next::Resume)
}

/// WRMSR of EDX and EAX.
pub(super) fn wrmsr(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    let register = vcpu.registers.rcx as u32;
    let value = vcpu.registers.rdx << 32 | vcpu.registers.rax & 0xffff_ffff;
    if !write(vcpu, register, value)? {
        return Ok(vcpu.raise(Injection::general_protection()));
    }
    vcpu.advance()?;
    Ok(Next::Resume)
}

/// The guest's value; `None` if it has no such register.
fn read(vcpu: &VmxVcpu, register: u32) -> Option<u64> {
    match register {
        TSC => Some(scaled(&vcpu.vmcs, now()).wrapping_add(vcpu.vmcs.get(fields::TSC_OFFSET))),
        msr::PAT => Some(vcpu.vmcs.get(fields::GUEST_PAT)),
        msr::EFER => Some(vcpu.vmcs.get(fields::GUEST_EFER)),
        _ if GuestApic::has(register) => vcpu.apic.as_ref()?.read(register, now()).ok(),
        _ => vcpu.msr_lists.get(register),
    }
}

/// Changes the guest's value; false if it has no such register, or the register takes no such
/// value.
fn write(vcpu: &mut VmxVcpu, register: u32, value: u64) -> Result<bool, Error> {
    match register {
        TSC => {
            let now = now();
            let offset = value.wrapping_sub(scaled(&vcpu.vmcs, now));
            vcpu.vmcs.set(fields::TSC_OFFSET, offset)?;
            if let Some(apic) = &mut vcpu.apic {
                apic.set_offset(offset, now);
            }
        }
        _ if GuestApic::has(register) => {
            vcpu.hear_task_priority();
            let Some(apic) = &mut vcpu.apic else { return Ok(false) };
            let taken = apic.write(register, value, now()).is_ok();
            vcpu.tell_task_priority();
            return Ok(taken);
        }
        msr::PAT if Pat::new(value).is_some() => vcpu.vmcs.set(fields::GUEST_PAT, value)?,
        msr::EFER => return write_efer(vcpu, value),
        // An address that is none would fail VM entry.
        _ if !is_canonical(value) => return Ok(false),
        _ => match vcpu.msr_lists.set(register, value) {
            Some(false) => {}
            Some(true) => vcpu.msr_lists.write(&mut vcpu.vmcs)?,
            None => return Ok(false),
        },
    }
    Ok(true)
}

/// EFER: LMA is the processor's, and LME does not change while paging is on (SDM volume 3A, section
/// 2.2.1).
fn write_efer(vcpu: &mut VmxVcpu, value: u64) -> Result<bool, Error> {
    let old = vcpu.vmcs.get(fields::GUEST_EFER);
    let active = EferFlags::LONG_MODE_ACTIVE.bits();
    let enable = EferFlags::LONG_MODE_ENABLE.bits();
    let paging = guest::cr0(&vcpu.vmcs) & Cr0Flags::PAGING.bits() != 0;
    if value & !(EFER_GUESTS.bits() | active) != 0 || paging && (value ^ old) & enable != 0 {
        return Ok(false);
    }
    guest::write_efer(&mut vcpu.vmcs, value & !active | old & active)?;
    // NXE decides what page tables mean; a WRMSR of the guest's own would have made the processor
    // forget.
    vcpu.forget_linear()?;
    Ok(true)
}

/// The machine's counter as the guest has it before the offset: times the multiplier, if there is one, as for RDTSC
/// (SDM volume 3C, section 27.3).
fn scaled(vmcs: &impl VmcsFields, machine: u64) -> u64 {
    const SCALING: u32 = secondary::USE_TSC_SCALING as u32;
    if vmcs.get(fields::SECONDARY_CONTROLS) & SCALING == 0 {
        return machine;
    }
    let product = u128::from(machine) * u128::from(vmcs.get(fields::TSC_MULTIPLIER));
    (product >> 48) as u64
}

/// The machine's counter.
fn now() -> u64 {
    // SAFETY: RDTSC (SDM volume 2B) changes two registers alone, and every processor in 64-bit mode has the counter.
    unsafe { _rdtsc() }
}

/// Whether bits 48 to 63 are those of bit 47.
const fn is_canonical(address: u64) -> bool {
    matches!(address.cast_signed() >> 47, 0 | -1)
}

#[cfg(test)]
mod tests {
    use chiton_core::vmx::PlainVmcs;

    use super::*;

    #[test]
    fn the_counter_is_multiplied_where_that_is_on() {
        let half = PlainVmcs::default().with(fields::TSC_MULTIPLIER, 1 << 47);
        assert_eq!(scaled(&half, 1001), 1001);
        let on = half.with(fields::SECONDARY_CONTROLS, secondary::USE_TSC_SCALING as u32);
        assert_eq!(scaled(&on, 1001), 500);
        assert_eq!(scaled(&on, u64::MAX), u64::MAX >> 1);
    }

    #[test]
    fn an_address_has_the_sign_of_bit_47() {
        assert!(is_canonical(0x7fff_ffff_ffff) && is_canonical(0xffff_8000_0000_0000));
        assert!(!is_canonical(0x8000_0000_0000) && !is_canonical(1 << 63));
    }
}
