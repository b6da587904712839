//! EPT violations and misconfigurations (SDM volume 3C, section 30.3.3).
//!
//! ```text
//!   violation ─▶ is memory there?
//!       yes: map a page, and the guest runs the instruction again
//!       no:  a device register: decode the instruction ─▶ the run loop ─▶ finish it by hand
//!   misconfiguration ─▶ made on purpose? mend the entry, and the guest runs the instruction again
//! ```

use chiton_core::decode::{self, Access, LONGEST};
use chiton_core::paging::{Cause, Purpose, Violation};
use chiton_core::space::Demand;
use chiton_core::vcpu::Broken;
use chiton_core::vmx::exit::Basic;
use chiton_core::vmx::{VmcsFields, fields};

use super::{Next, Pending};
use crate::{Error, VmxVcpu, memory};

/// The guest has touched what is not mapped.
pub(super) fn violation(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    let violation = Violation::of_ept(
        vcpu.vmcs.get(fields::EXIT_QUALIFICATION),
        vcpu.vmcs.get(fields::GUEST_PHYSICAL_ADDRESS),
        vcpu.vmcs.get(fields::GUEST_LINEAR_ADDRESS),
    );
    if let Some(hook) = vcpu.hook.as_ref().filter(|hook| hook.holds(violation.guest)) {
        hook.turn(&mut vcpu.space, &vcpu.processor, violation.access.execute)?;
        return Ok(Next::Resume);
    }
    match memory::demand(&mut vcpu.space, &vcpu.processor, violation.guest)? {
        Demand::Mapped => return Ok(Next::Resume),
        Demand::Nowhere => return device_register(vcpu, &violation),
        Demand::Already => {}
    }
    let path = vcpu.space.table.path(violation.guest);
    match violation.cause(&path) {
        // The violation itself has made the processor forget (SDM volume 3C, section 30.4.3.1).
        Cause::Stale => Ok(Next::Resume),
        cause => {
            vcpu.note(format_args!("{violation}, and no rule says what then: {cause}"));
            Ok(Next::emulation(&[]))
        }
    }
}

/// No memory is there. What was to be read or written is in the instruction alone.
fn device_register(vcpu: &mut VmxVcpu, violation: &Violation) -> Result<Next, Error> {
    let address = violation.guest;
    let cr3 = vcpu.vmcs.get(fields::GUEST_CR3);
    let mut bytes = [0; LONGEST];
    // Nothing else than 64-bit mode is gone on with, which has page tables.
    let len = vcpu.space.fetch(Some(cr3), vcpu.registers.rip, &mut bytes);
    let bytes = &bytes[..len];
    // A fetch, a page table, or the delivery of an event: no instruction moves data there.
    if violation.access.execute || violation.purpose != Purpose::Page || vcpu.event.is_some() {
        vcpu.note(format_args!("{violation}, and no memory is there"));
        return Ok(Next::emulation(&[]));
    }
    let instruction = match decode::decode(bytes) {
        Ok(instruction) if in_64_bit_mode(vcpu) => instruction,
        Ok(_) => {
            vcpu.note(format_args!(
                "device registers at {address:#x} are reached in 64-bit mode alone"
            ));
            return Ok(Next::emulation(bytes));
        }
        Err(refused) => {
            vcpu.note(format_args!(
                "the access to {address:#x} cannot be carried out: {refused}"
            ));
            return Ok(Next::Broken(refused.into()));
        }
    };
    let segments = (
        vcpu.vmcs.get(fields::GUEST_FS_BASE),
        vcpu.vmcs.get(fields::GUEST_GS_BASE),
    );
    let (by, space) = (vcpu.accessor(), &vcpu.space);
    let read = |from, data: &mut [u8]| space.read(by, from, data).is_ok();
    let place = (address, violation.access.write);
    match Access::begin(instruction, &vcpu.registers, segments, place, read) {
        Ok(access) => {
            vcpu.pending = Pending::Mmio(access);
            Ok(Next::Answer)
        }
        Err(error) => {
            vcpu.note(format_args!(
                "the access to {address:#x} cannot be carried out: {error}"
            ));
            Ok(Next::emulation(bytes))
        }
    }
}

/// The board has answered.
pub(super) fn complete(vcpu: &mut VmxVcpu, access: Access) -> Result<Next, Error> {
    let (by, space) = (vcpu.accessor(), &vcpu.space);
    let write = |to, data: &[u8]| space.write(by, to, data).is_ok();
    match access.complete(&mut vcpu.registers, write) {
        Ok(Some(more)) => {
            vcpu.pending = Pending::Mmio(more);
            Ok(Next::Answer)
        }
        Ok(None) => {
            vcpu.passed()?;
            Ok(Next::Resume)
        }
        Err(error) => {
            vcpu.note(format_args!(
                "the access to a device register cannot be carried out: {error}"
            ));
            Ok(Next::emulation(&[]))
        }
    }
}

/// An entry of EPT that no processor takes. Unless it was made so on purpose, and is mended, it is an error of the
/// hypervisor, since no guest can write there.
pub(super) fn misconfiguration(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    let address = vcpu.vmcs.get(fields::GUEST_PHYSICAL_ADDRESS);
    if vcpu.options.misconfigure && memory::mend(&mut vcpu.space, &vcpu.processor, address)? {
        return Ok(Next::Resume);
    }
    let path = vcpu.space.table.path(address);
    vcpu.note(format_args!("{path}"));
    Ok(Next::Broken(Broken::Unknown(Basic::EPT_MISCONFIGURATION.0.into())))
}

fn in_64_bit_mode(vcpu: &VmxVcpu) -> bool {
    /// L of the access rights.
    const LONG: u32 = 1 << 13;
    vcpu.vmcs.get(fields::GUEST_CS_ACCESS_RIGHTS) & LONG != 0
}
