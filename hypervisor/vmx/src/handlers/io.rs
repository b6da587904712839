//! IN, OUT, INS and OUTS (SDM volume 3C, table 29-5 and section 29.2.5).

use chiton_core::decode::Width;
use chiton_core::port::{PortAccess, StringPort};
use chiton_core::space::PageFault;
use chiton_core::vmx::exit::Basic;
use chiton_core::vmx::instruction::Operands;
use chiton_core::vmx::{VmcsFields, fields};

use super::{Next, Pending};
use crate::inject::{Injection, PF};
use crate::{Error, VmxVcpu};

/// Hands the access to the run loop.
pub(super) fn begin(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    let qualification = vcpu.vmcs.get(fields::EXIT_QUALIFICATION);
    let has = |bit: u32| qualification >> bit & 1 != 0;
    let port = (qualification >> 16) as u16;
    let width = match qualification & 7 {
        0 => Width::Byte,
        1 => Width::Word,
        _ => Width::Doubleword,
    };
    let string = has(4).then(|| string(vcpu, qualification, has(5), has(3)));
    let mut access = PortAccess::new(port, has(3), width, string);
    if access.is_over(&vcpu.registers) {
        vcpu.advance()?;
        return Ok(Next::Resume);
    }
    if !access.input {
        match access.memory(&vcpu.registers) {
            Some(address) => {
                if let Err(fault) = vcpu.space.read(vcpu.accessor(), address, access.value()) {
                    return Ok(page_fault(vcpu, fault));
                }
            }
            None => access.take(&vcpu.registers),
        }
    }
    if access.is_done() {
        vcpu.advance()?;
    }
    vcpu.pending = Pending::Port(access);
    Ok(Next::Answer)
}

/// What INS and OUTS have beside the port.
fn string(vcpu: &VmxVcpu, qualification: u64, repeated: bool, input: bool) -> StringPort {
    let field = vcpu.vmcs.get(fields::EXIT_INSTRUCTION_INFORMATION);
    let addresses = match Operands::new(Basic::IO_INSTRUCTION, field, qualification) {
        Some(Operands::StringIo { address_bits: 16, .. }) => Width::Word,
        Some(Operands::StringIo { address_bits: 32, .. }) => Width::Doubleword,
        _ => Width::Quadword,
    };
    // The processor says where the element is; of that, the base of the segment is what RSI or RDI is
    // not.
    let registers = &vcpu.registers;
    let pointer = if input { registers.rdi } else { registers.rsi };
    let linear = vcpu.vmcs.get(fields::GUEST_LINEAR_ADDRESS);
    StringPort {
        repeated,
        addresses,
        base: linear.wrapping_sub(pointer & addresses.mask()),
    }
}

/// Puts what was read where it belongs, and passes the instruction, or its element.
pub(super) fn complete(vcpu: &mut VmxVcpu, mut access: PortAccess) -> Result<Next, Error> {
    if access.input
        && let Some(address) = access.memory(&vcpu.registers)
        && let Err(fault) = vcpu.space.write(vcpu.accessor(), address, access.value())
    {
        return Ok(page_fault(vcpu, fault));
    }
    // One that is done was passed before.
    if !access.is_done() && access.complete(&mut vcpu.registers) {
        vcpu.advance()?;
    }
    Ok(Next::Resume)
}

/// The memory of a string is not the guest's to use so.
fn page_fault(vcpu: &mut VmxVcpu, fault: PageFault) -> Next {
    vcpu.cr2 = fault.address;
    vcpu.raise(Injection::with_code(PF, fault.code))
}
