//! Exits that no instruction asked for: exceptions, interrupts.

use core::arch::asm;

use chiton_core::svm::event::Event;
use chiton_core::svm::{VmcbFields, fields};
use chiton_core::vcpu::Broken;

use super::Next;
use crate::setup::{AC, DB, MC};
use crate::{SvmVcpu, interrupts};

/// An exception of those that exit.
pub(super) fn exception(vcpu: &mut SvmVcpu, vector: u8) -> Next {
    match vector {
        // The guest's own: it gets it as if nothing had been. DR6 is as the processor has changed it
        // (APM volume 2, section 15.12.2).
        DB => vcpu.raise(Event::exception(DB, None)),
        AC => vcpu.raise(Event::exception(AC, Some(0))),
        MC => {
            // SAFETY: INT (APM volume 3) goes where the gate leads, and the IDT has one for it. The machine is broken,
            // whoever ran on it; the hypervisor's own handler says so, and ends the machine.
            unsafe { asm!("int 18") }
            Next::Resume
        }
        vector => {
            let error_code = vcpu.vmcb.get(fields::EXITINFO1);
            vcpu.note(format_args!(
                "exception {vector}, error code {error_code:#x}, exits, and was not asked for"
            ));
            Next::Broken(Broken::Unknown(0x40 + u32::from(vector)))
        }
    }
}

/// An interrupt of the machine: the timer, or another processor, since the others are masked. It was
/// not acknowledged, so it is still there. The guest has had its time, or has to look at what it is
/// sent: somebody may want to stop it.
pub(super) fn interrupt(vcpu: &mut SvmVcpu) -> Next {
    interrupts::take();
    vcpu.processor.timer.acknowledge();
    Next::Interrupted
}
