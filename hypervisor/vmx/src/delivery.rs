//! Interrupts on their way from the guest's local APIC into the guest (SDM volume 3C, sections 28.6,
//! 28.7.5 and 28.7.7).
//!
//! ```text
//!   before each entry: what is pending?
//!     nothing                               ─▶ a processor that halts goes on halting
//!     one that the guest takes now          ─▶ injected
//!     one, but interrupts are off, or blocked, or another event goes first
//!                                           ─▶ interrupt-window exiting: exit as soon as it can
//!     one that the task priority holds back ─▶ TPR threshold: exit when it is lowered
//!   the timer is due in a while             ─▶ the preemption timer: exit then
//! ```
//!
//! Where the processor has a virtual APIC it is told what is pending, and does the rest (`virtual_apic`).
//! Where it has no TPR shadow each write of CR8 is an exit, which is looked at as all are.

use core::arch::x86_64::_rdtsc;

use chiton_core::apic::{GuestApic, Pending};
use chiton_core::vmx::controls::primary;
use chiton_core::vmx::{VmcsFields, VmcsWrite, fields};
use x86_64::registers::rflags::RFlags;

use crate::inject::Injection;
use crate::{Error, VmxVcpu, timer};

/// Where the virtual-APIC page has the task priority (SDM volume 3C, section 31.1.1).
const TASK_PRIORITY: usize = 0x80;
/// Blocking by STI and by MOV SS (SDM volume 3C, table 26-3).
const BLOCKED: u32 = 0b11;

impl VmxVcpu {
    /// Has the next entry deliver what is pending, or the guest exit when it can take it. False if the
    /// processor halts, and nothing ends that.
    pub(crate) fn prepare_interrupts(&mut self) -> Result<bool, Error> {
        self.hear_task_priority();
        self.prepare_nmi()?;
        let virtual_apic = self.has_virtual_apic();
        let Some(apic) = &mut self.apic else { return Ok(true) };
        // SAFETY: RDTSC (SDM volume 2B) changes two registers alone, and every processor in 64-bit mode has the
        // counter.
        let now = unsafe { _rdtsc() };
        if virtual_apic {
            return self.prepare_virtual_interrupts(now);
        }
        let pending = apic.pending(now);
        let takes = self.registers.rflags & RFlags::INTERRUPT_FLAG.bits() != 0;
        let blocked = self.vmcs.get(fields::GUEST_INTERRUPTIBILITY_STATE) & BLOCKED != 0;
        let (mut window, mut threshold) = (false, 0);
        match pending {
            Pending::Deliver(vector) if takes && !blocked && self.event.is_none() => {
                apic.accept(vector);
                self.event = Some(Injection::interrupt(vector));
                self.halted = false;
            }
            Pending::Deliver(_) => window = true,
            Pending::Held(vector) => threshold = u32::from(vector >> 4),
            Pending::Nothing => {}
        }
        if self.halted {
            return Ok(false);
        }
        self.end_slice_by_timer(now)?;
        self.set_primary(primary::INTERRUPT_WINDOW_EXITING, window)?;
        if self.virtual_apic.is_some() && self.vmcs.get(fields::TPR_THRESHOLD) != threshold {
            self.vmcs.set(fields::TPR_THRESHOLD, threshold)?;
        }
        Ok(true)
    }

    /// The same, where the processor delivers: it is told what there is, and looks by itself when the
    /// guest takes it.
    fn prepare_virtual_interrupts(&mut self, now: u64) -> Result<bool, Error> {
        let recognised = self.hand_over_interrupts(now)?;
        if self.halted {
            // What ends the halt is what would be delivered behind it.
            let takes = self.registers.rflags & RFlags::INTERRUPT_FLAG.bits() != 0;
            if !(recognised && takes) {
                return Ok(false);
            }
            self.halted = false;
        }
        self.end_slice_by_timer(now)?;
        Ok(true)
    }

    /// When the guest's timer is due the slice ends.
    fn end_slice_by_timer(&mut self, now: u64) -> Result<(), Error> {
        if let Some(due) = self.apic.as_ref().and_then(GuestApic::due) {
            let capabilities = &self.processor.capabilities;
            timer::arm_at_most(&mut self.vmcs, capabilities, due.saturating_sub(now))?;
        }
        Ok(())
    }

    /// Switches one of the primary controls on or off.
    pub(crate) fn set_primary(&mut self, control: u64, on: bool) -> Result<(), Error> {
        let bit = control as u32;
        let before = self.vmcs.get(fields::PRIMARY_CONTROLS);
        let after = if on { before | bit } else { before & !bit };
        if after != before {
            self.vmcs.set(fields::PRIMARY_CONTROLS, after)?;
        }
        Ok(())
    }

    /// The APIC hears of the task priority that the guest has set by CR8, bits 7 to 4 of it.
    pub(crate) fn hear_task_priority(&mut self) {
        let Some(apic) = &mut self.apic else { return };
        match &self.virtual_apic {
            Some(page) => apic.set_task_priority(page.read_u64(TASK_PRIORITY) as u8),
            None if u64::from(apic.task_priority() >> 4) != self.cr8 => {
                apic.set_task_priority((self.cr8 << 4) as u8);
            }
            None => {}
        }
    }

    /// CR8 follows the task priority that the guest has set by a register of the APIC.
    pub(crate) fn tell_task_priority(&mut self) {
        let Some(apic) = &self.apic else { return };
        let priority = u64::from(apic.task_priority());
        match &self.virtual_apic {
            Some(page) => page.write_u64(TASK_PRIORITY, priority),
            None => self.cr8 = priority >> 4,
        }
        self.tell_virtual_apic();
    }
}
