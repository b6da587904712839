//! MOV to and from control registers, CLTS and LMSW (SDM volume 3C, table 29-3).
//!
//! Only what changes a bit of the mask exits: in CR0 the mode and the caches, in CR4 what this
//! processor may have and the guest has not. CR3 never does, and CR8 only where there is no TPR
//! shadow.

use chiton_core::control;
use chiton_core::vmx::{VmcsFields, VmcsWrite, fields};
use chiton_shared::memory::GuestMemory;
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};

use super::Next;
use crate::inject::Injection;
use crate::setup::guest;
use crate::{Error, VmxVcpu};

/// What the guest did: bits 5:4 of the qualification.
const MOV_TO: u64 = 0;
const MOV_FROM: u64 = 1;
const CLTS: u64 = 2;

/// An access that the masks do not let pass.
pub(super) fn access(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    let qualification = vcpu.vmcs.get(fields::EXIT_QUALIFICATION);
    let number = qualification & 15;
    let register = (qualification >> 8 & 15) as u8;
    let value = vcpu.registers.general(register);
    let taken = match (qualification >> 4 & 3, number) {
        (MOV_TO, 0) => set_cr0(vcpu, value)?,
        (MOV_TO, 4) => set_cr4(vcpu, value)?,
        (MOV_TO, 8) if value < 16 => {
            vcpu.cr8 = value;
            true
        }
        (MOV_FROM, 8) => {
            *vcpu.registers.general_mut(register) = vcpu.cr8;
            true
        }
        (CLTS, _) => {
            let value = guest::cr0(&vcpu.vmcs) & !Cr0Flags::TASK_SWITCHED.bits();
            set_cr0(vcpu, value)?
        }
        (MOV_TO | MOV_FROM, _) => false,
        // LMSW changes the low four bits, and cannot clear PE.
        _ => {
            let source = qualification >> 16 & 15;
            let old = guest::cr0(&vcpu.vmcs);
            set_cr0(vcpu, old & !0b1110 | source)?
        }
    };
    if !taken {
        return Ok(vcpu.raise(Injection::general_protection()));
    }
    vcpu.advance()?;
    Ok(Next::Resume)
}

/// CR0; false if it takes no such value.
fn set_cr0(vcpu: &mut VmxVcpu, value: u64) -> Result<bool, Error> {
    let Some(value) = control::cr0(value) else {
        return Ok(false);
    };
    let paging = Cr0Flags::PAGING.bits();
    if (guest::cr0(&vcpu.vmcs) ^ value) & paging != 0 && !change_mode(vcpu, value & paging != 0)? {
        return Ok(false);
    }
    guest::write_cr0(&mut vcpu.vmcs, value, vcpu.real)?;
    vcpu.forget_linear()?;
    Ok(true)
}

/// Paging is switched on or off; false if that cannot be now.
fn change_mode(vcpu: &mut VmxVcpu, paging: bool) -> Result<bool, Error> {
    /// L of the access rights of CS: 64-bit mode.
    const LONG: u32 = 1 << 13;
    let in_64_bit_mode = vcpu.vmcs.get(fields::GUEST_CS_ACCESS_RIGHTS) & LONG != 0;
    let cr4 = guest::cr4(&vcpu.vmcs);
    let old = vcpu.vmcs.get(fields::GUEST_EFER);
    let Some(efer) = control::switch_paging(paging, old, cr4, in_64_bit_mode) else {
        return Ok(false);
    };
    let extended = cr4 & Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits() != 0;
    if paging && extended && efer & EferFlags::LONG_MODE_ACTIVE.bits() == 0 {
        // The processor would read these now (SDM volume 3A, section 5.4.1); VM entry takes them
        // from the VMCS.
        let table = vcpu.vmcs.get(fields::GUEST_CR3) & 0xffff_ffe0;
        let entries = [
            fields::GUEST_PDPTE0,
            fields::GUEST_PDPTE1,
            fields::GUEST_PDPTE2,
            fields::GUEST_PDPTE3,
        ];
        for (field, address) in entries.into_iter().zip((table..).step_by(8)) {
            let Some(window) = vcpu.space.ram.window(address, 8) else {
                return Ok(false);
            };
            let mut entry = [0; 8];
            window.read(0, &mut entry);
            vcpu.vmcs.set(field, u64::from_le_bytes(entry))?;
        }
    }
    guest::write_efer(&mut vcpu.vmcs, efer)?;
    Ok(true)
}

/// CR4; false if it takes no such value. A feature that the guest's CPUID does not have is a
/// reserved bit.
fn set_cr4(vcpu: &mut VmxVcpu, value: u64) -> Result<bool, Error> {
    let long = vcpu.vmcs.get(fields::GUEST_EFER) & EferFlags::LONG_MODE_ACTIVE.bits() != 0;
    if !control::takes_cr4(value, vcpu.processor.capabilities.cr4_fixed1, long) {
        return Ok(false);
    }
    guest::write_cr4(&mut vcpu.vmcs, value, vcpu.real)?;
    vcpu.forget_linear()?;
    Ok(true)
}
