//! CPUID, HLT, XSETBV, MOV DR, and instructions that are passed over.

use chiton_core::decode::{LONGEST, length_of};
use chiton_core::svm::event::Event;
use chiton_core::svm::features::Features;
use chiton_core::svm::{VmcbFields, VmcbWrite, fields};
use chiton_core::vcpu::Broken;
use x86_64::registers::control::{Cr0Flags, Cr4Flags};

use super::Next;
use crate::SvmVcpu;
use crate::setup::GP;

/// Where the instruction behind the one that exited is: the processor has saved it, or the bytes at
/// RIP have its length, as one of these opcodes. They are another instruction only if another processor of the guest has
/// changed them since, and then there is nothing to be done.
fn behind(vcpu: &mut SvmVcpu, opcodes: &[&[u8]]) -> Result<u64, Next> {
    if vcpu.processor.features.has(Features::NRIP_SAVE) {
        return Ok(vcpu.vmcb.get(fields::NRIP));
    }
    let (bytes, len) = at_rip(vcpu);
    match opcodes.iter().find_map(|opcode| length_of(&bytes[..len], opcode)) {
        Some(length) => Ok(vcpu.registers.rip.wrapping_add(length.into())),
        None => {
            vcpu.note(format_args!(
                "the bytes at RIP are not the instruction that exited, {opcodes:02x?}: {:02x?}",
                &bytes[..len]
            ));
            Err(Next::Broken(Broken::Emulation { bytes, len: len as u8 }))
        }
    }
}

/// The bytes at RIP, and how many there are.
pub(super) fn at_rip(vcpu: &SvmVcpu) -> ([u8; LONGEST], usize) {
    let fetched = vcpu.vmcb.fetched();
    if vcpu.processor.features.has(Features::DECODE_ASSISTS) && fetched.1 > 0 {
        return fetched;
    }
    let base = if vcpu.in_64_bit_mode() {
        0
    } else {
        vcpu.vmcb.get(fields::CS_BASE)
    };
    let mut bytes = [0; LONGEST];
    let address = base.wrapping_add(vcpu.registers.rip);
    let paging = vcpu.vmcb.get(fields::CR0) & Cr0Flags::PAGING.bits() != 0;
    let cr3 = paging.then(|| vcpu.vmcb.get(fields::CR3));
    let len = vcpu.space.fetch(cr3, address, &mut bytes);
    (bytes, len)
}

/// Passes the instruction, which is done or has nothing to do.
pub(super) fn skip(vcpu: &mut SvmVcpu, opcodes: &[&[u8]]) -> Next {
    match behind(vcpu, opcodes) {
        Ok(rip) => vcpu.advance(rip),
        Err(next) => next,
    }
}

/// CPUID, answered from the guest's table.
pub(super) fn cpuid(vcpu: &mut SvmVcpu) -> Next {
    let osxsave = vcpu.cr4 & Cr4Flags::OSXSAVE.bits() != 0;
    let cpuid = vcpu.cpuid.as_ref().unwrap_or(&vcpu.processor.cpuid);
    cpuid.execute(&mut vcpu.registers, osxsave, vcpu.fpu.xcr0());
    skip(vcpu, &[&[0x0f, 0xa2]])
}

/// HLT: nothing more happens until an interrupt comes. Without an APIC, none does.
pub(super) fn hlt(vcpu: &mut SvmVcpu) -> Next {
    match skip(vcpu, &[&[0xf4]]) {
        Next::Resume if vcpu.apic.is_some() => {
            vcpu.halted = true;
            Next::Resume
        }
        Next::Resume => Next::Halt,
        next => next,
    }
}

/// XSETBV: the states that the guest saves and restores (APM volume 4, XSETBV).
pub(super) fn xsetbv(vcpu: &mut SvmVcpu) -> Next {
    let registers = &vcpu.registers;
    let value = registers.rdx << 32 | registers.rax & 0xffff_ffff;
    let allowed = vcpu.vmcb.get(fields::CPL) == 0 && registers.rcx as u32 == 0 && vcpu.processor.cpuid.avx();
    if !allowed || !vcpu.fpu.set_xcr0(value) {
        return vcpu.raise(Event::exception(GP, Some(0)));
    }
    skip(vcpu, &[&[0x0f, 0x01, 0xd1]])
}

/// MOV to and from debug registers: 0F 21 and 0F 23. They hold what is written, and break nowhere:
/// breakpoints are not offered.
pub(super) fn debug_register(vcpu: &mut SvmVcpu, number: u8, write: bool) -> Next {
    let Some((register, next)) = general_register(vcpu, if write { 0x23 } else { 0x21 }) else {
        vcpu.note(format_args!("the bytes at RIP are no MOV of a debug register"));
        return Next::Broken(Broken::Unknown(0x20 + u32::from(number)));
    };
    match (number, write) {
        (0..=3, false) => *vcpu.registers.general_mut(register) = vcpu.debug[usize::from(number)],
        (0..=3, true) => vcpu.debug[usize::from(number)] = vcpu.registers.general(register),
        // 4 and 5 are other names for 6 and 7.
        (4 | 6, false) => *vcpu.registers.general_mut(register) = vcpu.vmcb.get(fields::DR6),
        // Bits that mean nothing are set, or clear (APM volume 2, section 13.1.1).
        (4 | 6, true) => {
            let value = vcpu.registers.general(register) & 0xe00f | 0xffff_0ff0;
            vcpu.vmcb.set(fields::DR6, value);
        }
        (_, false) => *vcpu.registers.general_mut(register) = vcpu.vmcb.get(fields::DR7),
        (_, true) => {}
    }
    vcpu.advance(next)
}

/// The general register of a MOV to or from a control or debug register, whose opcode is 0F and this, and where the next
/// instruction is; `None` if the bytes at RIP are another instruction.
pub(super) fn general_register(vcpu: &SvmVcpu, opcode: u8) -> Option<(u8, u64)> {
    // It is in the ModRM byte behind the opcode, and in REX.B before it.
    let (bytes, len) = at_rip(vcpu);
    let bytes = &bytes[..len];
    let at = usize::from(length_of(bytes, &[0x0f, opcode])?);
    let modrm = *bytes.get(at)?;
    let rex = bytes[..at - 2].last().filter(|byte| **byte & 0xf0 == 0x40);
    let register = modrm & 7 | (rex.copied().unwrap_or(0) & 1) << 3;
    Some((register, vcpu.registers.rip.wrapping_add(at as u64 + 1)))
}
