//! Interrupts on their way from the guest's local APIC into the guest (APM volume 2, sections 15.20 and
//! 15.21).
//!
//! ```text
//!   before each entry: what is pending?
//!     nothing                               ─▶ a processor that halts goes on halting
//!     one that the guest takes now          ─▶ EVENTINJ
//!     one, but interrupts are off, or blocked, or another event goes first, or CR8 holds it back
//!                                           ─▶ V_IRQ with its priority: an exit when it could be taken
//!   the timer is due in a while             ─▶ the machine's own timer: an exit then
//! ```
//!
//! V_IRQ would have the processor deliver the interrupt by itself. It is intercepted instead: the APIC
//! has to know that it was taken, and a more important one may have come.

use core::arch::x86_64::_rdtsc;

use chiton_core::apic::Pending;
use chiton_core::svm::event::{Event, Kind};
use chiton_core::svm::intercept::vector3;
use chiton_core::svm::{VmcbFields, VmcbWrite, fields};
use x86_64::registers::rflags::RFlags;

use crate::SvmVcpu;
use crate::setup::V_INTR_MASKING;

/// Of the virtual interrupt control: the guest's CR8.
const V_TPR: u32 = 0xf;
/// A virtual interrupt is pending.
const V_IRQ: u32 = 1 << 8;
/// Where its priority is, which CR8 is compared with.
const V_INTR_PRIO: u32 = 16;

impl SvmVcpu {
    /// Has the next entry deliver what is pending, or the guest exit when it can take it. False if the
    /// processor halts, and nothing ends that.
    pub(crate) fn prepare_interrupts(&mut self) -> bool {
        self.hear_task_priority();
        self.prepare_nmi();
        let Some(apic) = &mut self.apic else { return true };
        // SAFETY: RDTSC (APM volume 3) changes two registers alone, and every processor in 64-bit mode has the counter.
        let pending = apic.pending(unsafe { _rdtsc() });
        let takes = self.registers.rflags & RFlags::INTERRUPT_FLAG.bits() != 0;
        let blocked = self.vmcb.get(fields::INTERRUPT_SHADOW) & 1 != 0;
        let mut waits = None;
        match pending {
            Pending::Deliver(vector) if takes && !blocked && !self.event.is_valid() => {
                apic.accept(vector);
                self.event = Event::new(Kind::Interrupt, vector, None);
                self.halted = false;
            }
            Pending::Deliver(vector) | Pending::Held(vector) => waits = Some(vector),
            Pending::Nothing => {}
        }
        if self.halted {
            return false;
        }
        if let Some(due) = apic.due() {
            self.processor.timer.end_by(due);
        }
        self.set_window(waits);
        true
    }

    /// Whether the guest exits as soon as it could take this one.
    fn set_window(&mut self, vector: Option<u8>) {
        let cr8 = self.vmcb.get(fields::VIRTUAL_INTERRUPT) & V_TPR;
        let (control, intercepts) = match vector {
            Some(vector) => (
                V_IRQ | u32::from(vector >> 4) << V_INTR_PRIO,
                self.exits | vector3::VINTR,
            ),
            None => (0, self.exits),
        };
        let control = V_INTR_MASKING | cr8 | control;
        if self.vmcb.get(fields::VIRTUAL_INTERRUPT) != control {
            self.vmcb.set(fields::VIRTUAL_INTERRUPT, control);
        }
        if self.vmcb.get(fields::INTERCEPT_3) != intercepts {
            self.vmcb.set(fields::INTERCEPT_3, intercepts);
        }
    }

    /// The APIC hears of the task priority that the guest has set by CR8, bits 7 to 4 of it.
    pub(crate) fn hear_task_priority(&mut self) {
        let cr8 = (self.vmcb.get(fields::VIRTUAL_INTERRUPT) & V_TPR) as u8;
        if let Some(apic) = &mut self.apic
            && apic.task_priority() >> 4 != cr8
        {
            apic.set_task_priority(cr8 << 4);
        }
    }

    /// CR8 follows the task priority that the guest has set by a register of the APIC.
    pub(crate) fn tell_task_priority(&mut self) {
        if let Some(apic) = &self.apic {
            let control = self.vmcb.get(fields::VIRTUAL_INTERRUPT) & !V_TPR;
            let cr8 = u32::from(apic.task_priority() >> 4);
            self.vmcb.set(fields::VIRTUAL_INTERRUPT, control | cr8);
        }
    }
}
