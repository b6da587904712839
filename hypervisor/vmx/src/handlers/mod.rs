//! What becomes of each exit: a file for each family of reasons.
//!
//! A handler deals with its exit and has the guest go on ([`Next::Resume`]), or says what the run
//! loop has to do. Of that, reads and writes of ports and device registers come back here once the
//! board has answered: see [`complete`].

mod control_registers;
mod cpuid;
mod ept;
mod events;
mod io;
mod model_specific;
mod other;

use chiton_core::decode::Access;
use chiton_core::port::PortAccess;
use chiton_core::vcpu::{Broken, Exit};
use chiton_core::vmx::exit::Basic;
pub(crate) use events::machine_check;

use crate::inject::Injection;
use crate::{Error, VmxVcpu, inject};

/// What comes after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The guest goes on.
    Resume,
    /// The run loop answers what is [`Pending`].
    Answer,
    /// The guest executed `hlt`.
    Halt,
    /// A triple fault.
    Shutdown,
    /// The time slice is over.
    Interrupted,
    /// The guest could not be entered, for this reason.
    EntryFailed(Option<u64>),
    /// It cannot go on.
    Broken(Broken),
}

impl Next {
    /// The instruction with these bytes cannot be carried out.
    fn emulation(bytes: &[u8]) -> Self {
        Self::Broken(Broken::emulation(bytes))
    }
}

/// What the run loop has been asked to do.
pub(crate) enum Pending {
    /// Nothing.
    Nothing,
    /// A port is read or written.
    Port(PortAccess),
    /// A device register is read or written.
    Mmio(Access),
}

/// Deals with an exit.
pub(crate) fn handle(vcpu: &mut VmxVcpu, reason: Basic) -> Result<Next, Error> {
    vcpu.keep_nmis_blocked(reason)?;
    match reason {
        Basic::EXCEPTION_OR_NMI => events::exception_or_nmi(vcpu),
        Basic::EXTERNAL_INTERRUPT => Ok(events::external_interrupt(vcpu)),
        // The next entry looks what there is to deliver.
        Basic::INTERRUPT_WINDOW | Basic::NMI_WINDOW | Basic::TPR_BELOW_THRESHOLD => Ok(Next::Resume),
        Basic::APIC_WRITE => Ok(vcpu.wrote_page()),
        Basic::PREEMPTION_TIMER_EXPIRED => events::slice_is_over(vcpu),
        Basic::TRIPLE_FAULT => Ok(Next::Shutdown),
        Basic::CPUID => cpuid::cpuid(vcpu),
        Basic::HLT => other::hlt(vcpu),
        Basic::IO_INSTRUCTION => io::begin(vcpu),
        Basic::EPT_VIOLATION => ept::violation(vcpu),
        Basic::EPT_MISCONFIGURATION => ept::misconfiguration(vcpu),
        Basic::PML_FULL => other::page_log_is_full(vcpu),
        Basic::MONITOR_TRAP_FLAG => Ok(Next::Resume),
        Basic::RDMSR => model_specific::rdmsr(vcpu),
        Basic::WRMSR => model_specific::wrmsr(vcpu),
        Basic::CONTROL_REGISTER => control_registers::access(vcpu),
        Basic::MOV_DR => other::mov_dr(vcpu),
        Basic::XSETBV => other::xsetbv(vcpu),
        // Caches are coherent, and the machine's; a guest that cleans them has done so.
        Basic::WBINVD | Basic::INVD => {
            vcpu.advance()?;
            Ok(Next::Resume)
        }
        // No counter of events is offered.
        Basic::RDPMC => Ok(vcpu.raise(Injection::general_protection())),
        // CPUID announces none of these, and a processor that has them exits even so.
        Basic::VMCALL
        | Basic::VMCLEAR
        | Basic::VMLAUNCH
        | Basic::VMPTRLD
        | Basic::VMPTRST
        | Basic::VMREAD
        | Basic::VMRESUME
        | Basic::VMWRITE
        | Basic::VMXOFF
        | Basic::VMXON
        | Basic::INVEPT
        | Basic::INVVPID
        | Basic::VMFUNC
        | Basic::GETSEC
        | Basic::MONITOR
        | Basic::MWAIT
        | Basic::RDTSCP
        | Basic::INVPCID
        | Basic::XSAVES
        | Basic::XRSTORS
        | Basic::SEAMCALL
        | Basic::TDCALL => Ok(vcpu.raise(Injection::exception(inject::UD))),
        reason => Ok(other::unexpected(vcpu, reason)),
    }
}

/// Ends what the run loop has been asked to do: its answer goes into registers or memory, and the
/// instruction is passed.
pub(crate) fn complete(vcpu: &mut VmxVcpu) -> Result<Next, Error> {
    match core::mem::replace(&mut vcpu.pending, Pending::Nothing) {
        Pending::Nothing => Ok(Next::Resume),
        Pending::Port(access) => io::complete(vcpu, access),
        Pending::Mmio(access) => ept::complete(vcpu, access),
    }
}

/// What the run loop is told.
pub(crate) fn exit(vcpu: &mut VmxVcpu, next: Next) -> Result<Exit<'_>, Error> {
    Ok(match next {
        Next::Answer => match &mut vcpu.pending {
            Pending::Port(access) => access.exit(),
            Pending::Mmio(access) => access.exit(),
            Pending::Nothing => Exit::Interrupted,
        },
        Next::Resume | Next::Interrupted => Exit::Interrupted,
        Next::Halt => Exit::Halt,
        Next::Shutdown => Exit::Shutdown,
        Next::EntryFailed(reason) => Exit::EntryFailed { reason },
        Next::Broken(broken) => Exit::Broken(broken),
    })
}
