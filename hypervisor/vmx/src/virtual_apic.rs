//! The virtual APIC, where the processor has all of it: "virtualize x2APIC mode", "APIC-register
//! virtualization" and "virtual-interrupt delivery" (SDM volume 3C, chapter 31).
//!
//! ```text
//!   before each entry: requests of the Bus, and the timer ─▶ IRR of the page, RVI
//!   in the guest, without an exit:
//!       RVI above PPR, and interrupts on  ─▶ IRR ─▶ ISR, through the guest's IDT
//!       WRMSR of EOI, TPR or self-IPI     ─▶ ISR, PPR and RVI change
//!       RDMSR of most registers           ─▶ from the page
//!   with an exit: WRMSR of any other register, RDMSR of the timer's count
//! ```
//!
//! Which registers do not exit stands in the MSR bitmap, and only with these controls may it say so:
//! without them the guest would have the machine's own APIC.

use chiton_core::apic::GuestApic;
use chiton_core::apic::page::{self, RegisterPage, register_at};
use chiton_core::vmx::controls::{primary, secondary};
use chiton_core::vmx::{Capabilities, VmcsFields, VmcsWrite, fields};

use crate::handlers::Next;
use crate::setup::bitmaps::Bitmaps;
use crate::{Error, VmxVcpu};

/// The controls, which come all together or not at all.
const ALL: u64 =
    secondary::VIRTUALIZE_X2APIC_MODE | secondary::APIC_REGISTER_VIRTUALIZATION | secondary::VIRTUAL_INTERRUPT_DELIVERY;

/// The controls, if this processor has them all; else none.
pub(crate) const fn controls(capabilities: &Capabilities) -> u64 {
    let has_page = capabilities.primary.may & primary::USE_TPR_SHADOW != 0;
    if has_page && capabilities.secondary.may & ALL == ALL {
        ALL
    } else {
        0
    }
}

impl VmxVcpu {
    /// Whether the processor delivers interrupts by itself, and has the registers that are about it.
    pub(crate) const fn has_virtual_apic(&self) -> bool {
        self.controls.secondary.has(secondary::VIRTUAL_INTERRUPT_DELIVERY)
    }

    /// Before the first entry.
    pub(crate) fn set_up_virtual_apic(&mut self) -> Result<(), Error> {
        let (Some(apic), Some(page)) = (&self.apic, &self.virtual_apic) else {
            return Ok(());
        };
        let vmcs = &mut self.vmcs;
        vmcs.set(fields::GUEST_INTERRUPT_STATUS, 0)?;
        // Nothing is level-triggered, so nobody else has to hear of the end of an interrupt.
        for bitmap in [
            fields::EOI_EXIT_BITMAP_0,
            fields::EOI_EXIT_BITMAP_1,
            fields::EOI_EXIT_BITMAP_2,
            fields::EOI_EXIT_BITMAP_3,
        ] {
            vmcs.set(bitmap, 0)?;
        }
        for register in apic.in_page() {
            self.bitmaps.set(Bitmaps::READ, register, false);
        }
        for register in page::WRITTEN {
            self.bitmaps.set(Bitmaps::WRITE, register, false);
        }
        apic.write_page(page);
        Ok(())
    }

    /// The guest has written a register: the page follows.
    pub(crate) fn tell_virtual_apic(&self) {
        if let (true, Some(apic), Some(page)) = (self.has_virtual_apic(), &self.apic, &self.virtual_apic) {
            apic.write_page(page);
            self.bitmaps.set(Bitmaps::WRITE, page::SELF_SENT, !apic.is_on());
        }
    }

    /// Hands over what the processor is to deliver. Whether it delivers something now, if the guest
    /// takes interrupts.
    pub(crate) fn hand_over_interrupts(&mut self, now: u64) -> Result<bool, Error> {
        let (Some(apic), Some(page)) = (&mut self.apic, &self.virtual_apic) else {
            return Ok(false);
        };
        let requested = apic.hand_over(page, now).unwrap_or(0);
        let before = self.vmcs.get(fields::GUEST_INTERRUPT_STATUS);
        let status = before & 0xff00 | u16::from(requested);
        if status != before {
            self.vmcs.set(fields::GUEST_INTERRUPT_STATUS, status)?;
        }
        Ok(GuestApic::recognises(status, apic.task_priority()))
    }

    /// An exit behind a write to the page: the guest has sent itself an interrupt that none can have
    /// (SDM volume 3C, section 31.1.5), which is an error that the APIC notes.
    pub(crate) fn wrote_page(&mut self) -> Next {
        let offset = self.vmcs.get(fields::EXIT_QUALIFICATION) as u16 & 0xff0;
        if let (Some(apic), Some(page)) = (&mut self.apic, &self.virtual_apic) {
            // The processor has refused what no register takes.
            let _ = apic.write(register_at(offset), RegisterPage::read(page, offset.into()), 0);
            apic.write_page(page);
        }
        Next::Resume
    }
}
