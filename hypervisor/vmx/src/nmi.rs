//! NMIs that the guest's processors send each other.
//!
//! With "virtual NMIs" the processor keeps for the guest whether one is blocked, from its delivery to
//! the guest's `iret`, apart from whether the machine's are (SDM volume 3C, table 26-3). One that has to wait
//! is delivered when "NMI-window exiting" says that it can be (section 28.7.6).

use chiton_core::vmx::controls::{pin, primary};
use chiton_core::vmx::event::Event;
use chiton_core::vmx::exit::Basic;
use chiton_core::vmx::{VmcsFields, VmcsWrite, fields};

use crate::inject::Injection;
use crate::{Error, VmxVcpu};

/// Of the interruptibility state: blocking by STI, by MOV SS and by NMI (SDM volume 3C, table 26-3).
const BLOCKED: u32 = 0b11 | BY_NMI;
const BY_NMI: u32 = 1 << 3;
/// Of the qualification of an EPT violation or a full log: IRET had unblocked NMIs (SDM volume 3C, table
/// 29-7).
const UNBLOCKED: u64 = 1 << 12;

impl VmxVcpu {
    /// Has the next entry deliver an NMI if there is one, or the guest exit when it can take it.
    pub(crate) fn prepare_nmi(&mut self) -> Result<(), Error> {
        let Some(apic) = &self.apic else { return Ok(()) };
        let mut waits = apic.has_nmi();
        if waits && self.event.is_none() && self.vmcs.get(fields::GUEST_INTERRUPTIBILITY_STATE) & BLOCKED == 0 {
            apic.accept_nmi();
            self.event = Some(Injection::nmi());
            self.halted = false;
            waits = false;
        }
        self.set_primary(primary::NMI_WINDOW_EXITING, waits)
    }

    /// An exit has stopped the delivery of an NMI, which the next entry does again: it cannot deliver
    /// into its own blocking (SDM volume 3C, section 28.3.1.5).
    pub(crate) fn unblock_nmi(&mut self) -> Result<(), Error> {
        let blocked = self.vmcs.get(fields::GUEST_INTERRUPTIBILITY_STATE);
        if blocked & BY_NMI != 0 {
            self.vmcs.set(fields::GUEST_INTERRUPTIBILITY_STATE, blocked & !BY_NMI)?;
        }
        Ok(())
    }

    /// If `iret` has exited, which begins by unblocking NMIs, they are blocked again until it has run
    /// (SDM volume 3C, section 29.2.3).
    pub(crate) fn keep_nmis_blocked(&mut self, reason: Basic) -> Result<(), Error> {
        if self.event.is_some() || !self.controls.pin.has(pin::VIRTUAL_NMIS) {
            return Ok(());
        }
        let unblocked = match reason {
            Basic::EPT_VIOLATION | Basic::PML_FULL => self.vmcs.get(fields::EXIT_QUALIFICATION) & UNBLOCKED != 0,
            Basic::EXCEPTION_OR_NMI => Event(self.vmcs.get(fields::EXIT_INTERRUPTION_INFORMATION)).unblocked_nmi(),
            _ => false,
        };
        if unblocked {
            let blocked = self.vmcs.get(fields::GUEST_INTERRUPTIBILITY_STATE);
            self.vmcs.set(fields::GUEST_INTERRUPTIBILITY_STATE, blocked | BY_NMI)?;
        }
        Ok(())
    }
}
