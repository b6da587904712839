//! The host-state area: what the processor loads at each VM exit (SDM volume 3C, section 26.5).
//!
//! It is this program as it is now. RSP alone differs from entry to entry; `entry` writes it.

use core::arch::asm;

use chiton_core::vmx::{NoSuchField, VmcsWrite, fields};
use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr3, Cr4};

use crate::{entry, msr};

/// Writes the host-state area.
pub(crate) fn write(vmcs: &mut impl VmcsWrite) -> Result<(), NoSuchField> {
    let (table, flags) = Cr3::read_raw();
    vmcs.set(fields::HOST_CR0, Cr0::read_raw())?;
    vmcs.set(fields::HOST_CR3, table.start_address().as_u64() | u64::from(flags))?;
    vmcs.set(fields::HOST_CR4, Cr4::read_raw())?;

    // The requested privilege level and the table indicator have to be 0 (section 28.2.3).
    let selector = |selector: u16| selector & !7;
    let task = task_register();
    vmcs.set(fields::HOST_CS_SELECTOR, selector(CS::get_reg().0))?;
    vmcs.set(fields::HOST_SS_SELECTOR, selector(SS::get_reg().0))?;
    vmcs.set(fields::HOST_DS_SELECTOR, selector(DS::get_reg().0))?;
    vmcs.set(fields::HOST_ES_SELECTOR, selector(ES::get_reg().0))?;
    vmcs.set(fields::HOST_FS_SELECTOR, selector(FS::get_reg().0))?;
    vmcs.set(fields::HOST_GS_SELECTOR, selector(GS::get_reg().0))?;
    vmcs.set(fields::HOST_TR_SELECTOR, selector(task))?;

    let gdt = sgdt().base.as_u64();
    vmcs.set(fields::HOST_GDTR_BASE, gdt)?;
    vmcs.set(fields::HOST_IDTR_BASE, sidt().base.as_u64())?;
    // SAFETY: LTR takes the selector of a TSS descriptor in the GDT alone (SDM volume 2A, LTR), of 16 bytes in 64-bit
    // mode (volume 3A, figure 9-4); that of this GDT is in the task register.
    let descriptor = unsafe {
        let at = (gdt + u64::from(selector(task))) as *const u64;
        [at.read_unaligned(), at.add(1).read_unaligned()]
    };
    vmcs.set(fields::HOST_TR_BASE, task_base(descriptor))?;

    // SAFETY: RDMSR (SDM volume 2B) raises #GP where there is no such register; every processor in 64-bit mode has
    // these (volume 4, table 2-2).
    let read = |register| unsafe { msr::read(register) };
    vmcs.set(fields::HOST_FS_BASE, read(msr::FS_BASE))?;
    vmcs.set(fields::HOST_GS_BASE, read(msr::GS_BASE))?;
    vmcs.set(fields::HOST_SYSENTER_CS, read(msr::SYSENTER_CS) as u32)?;
    vmcs.set(fields::HOST_SYSENTER_ESP, read(msr::SYSENTER_ESP))?;
    vmcs.set(fields::HOST_SYSENTER_EIP, read(msr::SYSENTER_EIP))?;
    vmcs.set(fields::HOST_PAT, read(msr::PAT))?;
    vmcs.set(fields::HOST_EFER, read(msr::EFER))?;

    vmcs.set(fields::HOST_RIP, entry::exited as *const () as u64)
}

/// The selector in the task register.
fn task_register() -> u16 {
    let selector: u16;
    // SAFETY: STR (SDM volume 2B) reads the task register into another, and changes nothing else.
    unsafe { asm!("str {:x}", out(reg) selector, options(nomem, nostack, preserves_flags)) }
    selector
}

/// The base in a system descriptor of 64-bit mode (SDM volume 3A, figure 9-4).
const fn task_base(descriptor: [u64; 2]) -> u64 {
    let [low, high] = descriptor;
    low >> 16 & 0xff_ffff | (low >> 56) << 24 | high << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_of_a_task_state_segment_is_put_together_from_four_pieces() {
        assert_eq!(task_base([0x1100_8922_3344_0067, 0xffff_8000]), 0xffff_8000_1122_3344);
    }
}
