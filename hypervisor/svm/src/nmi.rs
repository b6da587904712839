//! NMIs that the guest's processors send each other.
//!
//! An injected NMI blocks none by itself for the guest (APM volume 2, section 15.20), so it is noted here that one is
//! under way, until the guest's `iret`, which exits meanwhile. That exit comes before the instruction: the
//! next NMI is delivered when RIP has moved on. If one waits for that, the slice ends soon.

use core::arch::x86_64::_rdtsc;

use chiton_core::svm::event::{Event, Kind};
use chiton_core::svm::intercept::vector3;
use chiton_core::svm::{VmcbFields, fields};

use crate::SvmVcpu;
use crate::handlers::Next;

/// How long an `iret` may take, in ticks of the TSC.
const SOON: u64 = 2000;

/// What is known of the guest's NMIs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Nmis {
    /// Nothing blocks one.
    #[default]
    Open,
    /// One is handled, and the handler's `iret` exits.
    Blocked,
    /// The `iret` at this RIP has exited, and runs.
    Returning(u64),
}

impl Nmis {
    /// What is known when the guest is at this RIP.
    const fn at(self, rip: u64) -> Self {
        match self {
            Self::Returning(iret) if iret != rip => Self::Open,
            other => other,
        }
    }
}

impl SvmVcpu {
    /// Has the next entry deliver an NMI, if there is one and it can.
    pub(crate) fn prepare_nmi(&mut self) {
        let Some(apic) = &self.apic else { return };
        self.nmis = self.nmis.at(self.registers.rip);
        if !apic.has_nmi() {
            return;
        }
        let shadow = self.vmcb.get(fields::INTERRUPT_SHADOW) & 1 != 0;
        if self.nmis == Nmis::Open && !shadow && !self.event.is_valid() {
            apic.accept_nmi();
            self.event = Event::new(Kind::Nmi, 2, None);
            self.nmis = Nmis::Blocked;
            self.exits |= vector3::IRET;
            self.halted = false;
        } else if self.nmis != Nmis::Blocked {
            // SAFETY: RDTSC (APM volume 3) changes two registers alone, and every processor in 64-bit mode has the
            // counter.
            self.processor.timer.end_by(unsafe { _rdtsc() } + SOON);
        }
    }

    /// IRET, which is yet to run.
    pub(crate) const fn begins_iret(&mut self) -> Next {
        self.exits &= !vector3::IRET;
        self.nmis = Nmis::Returning(self.registers.rip);
        Next::Resume
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nmis_are_blocked_until_iret_has_run() {
        assert_eq!(Nmis::Blocked.at(0x1000), Nmis::Blocked);
        assert_eq!(Nmis::Returning(0x1000).at(0x1000), Nmis::Returning(0x1000));
        assert_eq!(Nmis::Returning(0x1000).at(0x2000), Nmis::Open);
        assert_eq!(Nmis::Open.at(0x1000), Nmis::Open);
    }
}
