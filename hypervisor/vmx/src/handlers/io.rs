//! IN, OUT, INS and OUTS (SDM volume 3C, tables 29-5 and 29-9).
//!
//! The string instructions are carried out element by element: after each, the guest is entered at
//! the same instruction with one element less to do, so that it can be interrupted in between.

use chiton_core::vcpu::Exit;
use chiton_core::vmx::exit::Basic;
use chiton_core::vmx::instruction::Operands;
use chiton_core::vmx::{VmcsFields, fields};

use super::{Next, Pending};
use crate::inject::{Injection, PF};
use crate::memory::Fault;
use crate::setup::guest::ring;
use crate::{Error, VmxVcpu};

/// A read or write of a port under way.
pub(crate) struct PortAccess {
    port: u16,
    input: bool,
    /// 1, 2 or 4 bytes.
    len: usize,
    data: [u8; 4],
    /// For INS and OUTS.
    string: Option<StringIo>,
}

/// What a string instruction has beside the port.
#[derive(Clone, Copy)]
struct StringIo {
    /// The linear address of this element.
    address: u64,
    /// Whether RCX counts.
    repeat: bool,
    /// The bits of RSI or RDI, and of RCX, that count.
    mask: u64,
}

impl PortAccess {
    /// From the exit qualification.
    const fn new(qualification: u64) -> Self {
        Self {
            port: (qualification >> 16) as u16,
            input: qualification & 1 << 3 != 0,
            len: (qualification & 7) as usize + 1,
            data: [0; 4],
            string: None,
        }
    }

    pub(super) fn exit(&mut self) -> Exit<'_> {
        let data = &mut self.data[..self.len.min(4)];
        if self.input {
            Exit::In { port: self.port, data }
        } else {
            Exit::Out { port: self.port, data }
        }
    }
}

/// Hands the access to the run loop.
pub(super) fn begin(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    const STRING: u64 = 1 << 4;
    const REPEAT: u64 = 1 << 5;
    let qualification = vcpu.vmcs.get(fields::EXIT_QUALIFICATION);
    let mut access = PortAccess::new(qualification);
    if qualification & STRING != 0 {
        let field = vcpu.vmcs.get(fields::EXIT_INSTRUCTION_INFORMATION);
        let bits = match Operands::new(Basic::IO_INSTRUCTION, field, qualification) {
            Some(Operands::StringIo { address_bits, .. }) => address_bits,
            _ => 64,
        };
        let string = StringIo {
            address: vcpu.vmcs.get(fields::GUEST_LINEAR_ADDRESS),
            repeat: qualification & REPEAT != 0,
            mask: u64::MAX >> (64 - bits),
        };
        if string.repeat && vcpu.registers.rcx & string.mask == 0 {
            vcpu.advance()?;
            return Ok(Next::Resume);
        }
        if !access.input {
            let (cr3, ring) = (vcpu.vmcs.get(fields::GUEST_CR3), ring(&vcpu.vmcs));
            let data = &mut access.data[..access.len.min(4)];
            if let Err(fault) = vcpu.memory.read(cr3, ring, string.address, data) {
                return Ok(page_fault(vcpu, fault));
            }
        }
        access.string = Some(string);
    } else {
        access.data = (vcpu.registers.rax as u32).to_le_bytes();
    }
    vcpu.pending = Pending::Port(access);
    Ok(Next::Answer)
}

/// Puts what was read where it belongs, and passes the instruction, or its element.
pub(super) fn complete(vcpu: &mut VmxVcpu, access: PortAccess) -> Result<Next, Error> {
    let Some(string) = access.string else {
        if access.input {
            vcpu.registers.rax = with_low_bytes(vcpu.registers.rax, access.data, access.len);
        }
        vcpu.advance()?;
        return Ok(Next::Resume);
    };
    if access.input {
        let (cr3, ring) = (vcpu.vmcs.get(fields::GUEST_CR3), ring(&vcpu.vmcs));
        if let Err(fault) = vcpu
            .memory
            .write(cr3, ring, string.address, &access.data[..access.len.min(4)])
        {
            return Ok(page_fault(vcpu, fault));
        }
    }
    /// RFLAGS.DF: strings are gone through downwards.
    const DOWN: u64 = 1 << 10;
    let registers = &mut vcpu.registers;
    let len = access.len as u64;
    let step = if registers.rflags & DOWN == 0 {
        len
    } else {
        len.wrapping_neg()
    };
    let pointer = if access.input {
        &mut registers.rdi
    } else {
        &mut registers.rsi
    };
    *pointer = step_in(*pointer, step, string.mask);
    if string.repeat {
        registers.rcx = step_in(registers.rcx, u64::MAX, string.mask);
        if registers.rcx & string.mask != 0 {
            return Ok(Next::Resume);
        }
    }
    vcpu.advance()?;
    Ok(Next::Resume)
}

/// A register of which the bits of a mask count, changed by so much. A change of 32 bits clears the
/// upper half, one of 16 leaves it (SDM volume 1, section 3.4.1.1).
const fn step_in(register: u64, by: u64, mask: u64) -> u64 {
    let kept = if mask == 0xffff { register & !mask } else { 0 };
    kept | register.wrapping_add(by) & mask
}

/// RAX with AL, AX or EAX changed.
const fn with_low_bytes(rax: u64, data: [u8; 4], len: usize) -> u64 {
    let value = u32::from_le_bytes(data) as u64;
    match len {
        1 => rax & !0xff | value & 0xff,
        2 => rax & !0xffff | value & 0xffff,
        _ => value,
    }
}

/// The memory of a string is not the guest's to use so.
fn page_fault(vcpu: &mut VmxVcpu, fault: Fault) -> Next {
    vcpu.cr2 = fault.address;
    vcpu.raise(Injection::with_code(PF, fault.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qualification_names_port_direction_and_size() {
        let mut out = PortAccess::new(0x0510_0003);
        out.data = [1, 2, 3, 4];
        assert_eq!(
            out.exit(),
            Exit::Out {
                port: 0x510,
                data: &[1, 2, 3, 4]
            }
        );
        let mut input = PortAccess::new(0x60_0008);
        assert_eq!(
            input.exit(),
            Exit::In {
                port: 0x60,
                data: &mut [0]
            }
        );
    }

    #[test]
    fn what_is_read_changes_as_much_of_rax_as_the_width_says() {
        let rax = 0x1111_1111_1111_1111;
        let data = [0xaa, 0xbb, 0xcc, 0xdd];
        assert_eq!(with_low_bytes(rax, data, 1), 0x1111_1111_1111_11aa);
        assert_eq!(with_low_bytes(rax, data, 2), 0x1111_1111_1111_bbaa);
        assert_eq!(with_low_bytes(rax, data, 4), 0xddcc_bbaa);
    }

    #[test]
    fn pointers_and_counts_stay_in_their_width() {
        assert_eq!(step_in(u64::MAX, 1, u64::MAX), 0);
        assert_eq!(step_in(0x1_ffff_ffff, 1, 0xffff_ffff), 0);
        assert_eq!(step_in(0x5_ffff, 1, 0xffff), 0x5_0000);
        assert_eq!(step_in(7, u64::MAX, u64::MAX), 6);
    }
}
