//! IN, OUT, INS and OUTS (APM volume 2, section 15.10.2).

use chiton_core::decode::{Width, segment_of};
use chiton_core::port::{PortAccess, StringPort};
use chiton_core::space::PageFault;
use chiton_core::svm::event::Event;
use chiton_core::svm::features::Features;
use chiton_core::svm::information::Port;
use chiton_core::svm::{VmcbFields, VmcbWrite, fields};

use super::{Next, Pending, instructions};
use crate::SvmVcpu;
use crate::setup::PF;

/// Hands the access to the run loop.
pub(super) fn begin(vcpu: &mut SvmVcpu) -> Next {
    let port = Port(vcpu.vmcb.get(fields::EXITINFO1));
    let next = vcpu.vmcb.get(fields::EXITINFO2);
    let width = match port.bytes() {
        1 => Width::Byte,
        2 => Width::Word,
        _ => Width::Doubleword,
    };
    let string = port.is_string().then(|| StringPort {
        repeated: port.is_repeated(),
        addresses: match port.address_bits() {
            16 => Width::Word,
            32 => Width::Doubleword,
            _ => Width::Quadword,
        },
        base: segment_base(vcpu, port),
    });
    let mut access = PortAccess::new(port.port(), port.is_in(), width, string);
    if access.is_over(&vcpu.registers) {
        return vcpu.advance(next);
    }
    if !access.input {
        match access.memory(&vcpu.registers) {
            Some(address) => {
                let by = vcpu.accessor();
                if let Err(fault) = vcpu.space.read(by, address, access.value()) {
                    return page_fault(vcpu, fault);
                }
            }
            None => access.take(&vcpu.registers),
        }
    }
    vcpu.pending = Pending::Port(access, next);
    if access.is_done() {
        match vcpu.advance(next) {
            Next::Resume => {}
            end => return end,
        }
    }
    Next::Answer
}

/// Puts what was read where it belongs, and passes the instruction, or its element.
pub(super) fn complete(vcpu: &mut SvmVcpu, mut access: PortAccess, next: u64) -> Next {
    if access.input
        && let Some(address) = access.memory(&vcpu.registers)
        && let Err(fault) = vcpu.space.write(vcpu.accessor(), address, access.value())
    {
        return page_fault(vcpu, fault);
    }
    if access.is_done() {
        // It was passed before.
        Next::Resume
    } else if access.complete(&mut vcpu.registers) {
        vcpu.advance(next)
    } else {
        Next::Resume
    }
}

/// Base of the segment of the memory operand: ES for INS, else DS or what a prefix says. In 64-bit
/// mode only FS and GS have one.
fn segment_base(vcpu: &SvmVcpu, port: Port) -> u64 {
    const ES: u8 = 0;
    const DS: u8 = 3;
    let number = if port.is_in() {
        ES
    } else if vcpu.processor.features.has(Features::DECODE_ASSISTS) {
        port.segment()
    } else {
        let (bytes, len) = instructions::at_rip(vcpu);
        segment_of(&bytes[..len]).unwrap_or(DS)
    };
    let vmcb = &vcpu.vmcb;
    match number {
        4 => vmcb.get(fields::FS_BASE),
        5 => vmcb.get(fields::GS_BASE),
        _ if vcpu.in_64_bit_mode() => 0,
        ES => vmcb.get(fields::ES_BASE),
        1 => vmcb.get(fields::CS_BASE),
        2 => vmcb.get(fields::SS_BASE),
        _ => vmcb.get(fields::DS_BASE),
    }
}

/// The memory of a string is not the guest's to use so.
fn page_fault(vcpu: &mut SvmVcpu, fault: PageFault) -> Next {
    vcpu.vmcb.set(fields::CR2, fault.address);
    vcpu.raise(Event::exception(PF, Some(fault.code)))
}
