//! Nested page faults (APM volume 2, section 15.25.6).
//!
//! ```text
//!   fault ─▶ is memory there?
//!       yes: map a page, and the guest runs the instruction again
//!       no:  a device register: decode the instruction ─▶ the run loop ─▶ finish it by hand
//! ```

use chiton_core::decode::{self, Access};
use chiton_core::space::Demand;
use chiton_core::svm::information::NestedFault;
use chiton_core::svm::{VmcbFields, fields};

use super::{Next, Pending, instructions};
use crate::{Error, SvmVcpu};

/// The guest has touched what is not mapped.
pub(super) fn fault(vcpu: &mut SvmVcpu) -> Result<Next, Error> {
    let address = vcpu.vmcb.get(fields::EXITINFO2);
    let mut stale = false;
    let demand = vcpu.space.demand(address, |_| stale = true)?;
    if stale || demand == Demand::Already {
        vcpu.forget();
    }
    match demand {
        Demand::Mapped | Demand::Already => Ok(Next::Resume),
        Demand::Nowhere => Ok(device_register(vcpu, address)),
    }
}

/// No memory is there. What was to be read or written is in the instruction alone.
fn device_register(vcpu: &mut SvmVcpu, address: u64) -> Next {
    let fault = NestedFault(vcpu.vmcb.get(fields::EXITINFO1));
    // A fetch, a page table, or the delivery of an event: no instruction moves data there.
    let what = if fault.has(NestedFault::FETCH) {
        Some("fetches instructions")
    } else if fault.has(NestedFault::TABLES) {
        Some("has a page table")
    } else if vcpu.event.is_valid() {
        Some("has the stack or the table of an event")
    } else {
        None
    };
    if let Some(what) = what {
        vcpu.note(format_args!(
            "the guest {what} at guest-physical {address:#x}, where no memory is"
        ));
        return Next::emulation(&[]);
    }
    let (bytes, len) = instructions::at_rip(vcpu);
    let bytes = &bytes[..len];
    if !vcpu.in_64_bit_mode() {
        vcpu.note(format_args!(
            "device registers, as at {address:#x}, are reached in 64-bit mode alone"
        ));
        return Next::emulation(bytes);
    }
    let instruction = match decode::decode(bytes) {
        Ok(instruction) => instruction,
        Err(refused) => {
            vcpu.note(format_args!(
                "the access to {address:#x} cannot be carried out: {refused}"
            ));
            return Next::Broken(refused.into());
        }
    };
    let segments = (vcpu.vmcb.get(fields::FS_BASE), vcpu.vmcb.get(fields::GS_BASE));
    let by = vcpu.accessor();
    let space = &vcpu.space;
    let read = |from, data: &mut [u8]| space.read(by, from, data).is_ok();
    let place = (address, fault.has(NestedFault::WRITE));
    match Access::begin(instruction, &vcpu.registers, segments, place, read) {
        Ok(access) => {
            vcpu.pending = Pending::Register(access);
            Next::Answer
        }
        Err(error) => {
            vcpu.note(format_args!(
                "the access to {address:#x} cannot be carried out: {error}"
            ));
            Next::emulation(bytes)
        }
    }
}

/// The board has answered.
pub(super) fn complete(vcpu: &mut SvmVcpu, access: Access) -> Next {
    let (by, space) = (vcpu.accessor(), &vcpu.space);
    let write = |to, data: &[u8]| space.write(by, to, data).is_ok();
    match access.complete(&mut vcpu.registers, write) {
        Ok(Some(more)) => {
            vcpu.pending = Pending::Register(more);
            Next::Answer
        }
        Ok(None) => vcpu.passed(),
        Err(error) => {
            vcpu.note(format_args!(
                "the access to a device register cannot be carried out: {error}"
            ));
            Next::emulation(&[])
        }
    }
}
