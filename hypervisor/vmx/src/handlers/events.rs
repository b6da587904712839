//! Exits that no instruction asked for: exceptions, interrupts, NMIs, the end of a time slice.

use core::arch::asm;

use chiton_core::vmx::{VmcsFields, fields};
use x86_64::instructions::{interrupts, nop};

use super::Next;
use crate::inject::{DB, Injection, MC};
use crate::{Error, VmxVcpu, timer};

/// An exception of the exception bitmap, or an NMI.
pub(super) fn exception_or_nmi(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    let Some(event) = Injection::of_exit(&vcpu.vmcs) else {
        return Ok(Next::Resume);
    };
    if event.is_nmi() {
        // The machine's. The exit has blocked NMIs as delivery would have; the handler's `iret` ends that (SDM
        // volume 3C, section 29.1).
        // SAFETY: INT n (SDM volume 2A) goes where the gate leads. The IDT has one for it, as it must, since an NMI may
        // come at any time; its handler returns.
        unsafe { asm!("int 2") }
        return Ok(Next::Resume);
    }
    match event.vector() {
        MC => {
            machine_check();
            return Ok(Next::Resume);
        }
        // The exit came before the processor changed DR6 (SDM volume 3C, section 29.1), and the
        // qualification has the bits.
        DB => vcpu.debug[4] |= vcpu.vmcs.get(fields::EXIT_QUALIFICATION),
        _ => {}
    }
    // The guest's own: it gets it as if nothing had been.
    Ok(vcpu.raise(event))
}

/// A machine check, in the guest or on the way into it: the machine's.
pub(crate) fn machine_check() {
    // SAFETY: INT n (SDM volume 2A) goes where the gate leads, and the IDT has one for it. The machine is broken, whoever
    // ran on it; the hypervisor's own handler says so, and ends the machine.
    unsafe { asm!("int 18") }
}

/// An interrupt of the machine. It was not acknowledged, so it is still there, and the hypervisor's
/// own handler takes it as soon as interrupts are on for an instant. Somebody wants this processor to
/// look at what its guest is to do.
pub(super) fn external_interrupt(vcpu: &VmxVcpu) -> Next {
    let were_on = interrupts::are_enabled();
    interrupts::enable();
    // `sti` takes effect behind the next instruction.
    nop();
    if !were_on {
        interrupts::disable();
    }
    vcpu.processor.apic.end_of_interrupt();
    Next::Interrupted
}

/// The guest has had its time: somebody may want to stop it.
pub(super) fn slice_is_over(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    timer::arm(&mut vcpu.vmcs, &vcpu.processor.capabilities, vcpu.options.slice)?;
    Ok(Next::Interrupted)
}
