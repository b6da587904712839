//! What becomes of each exit: a file for each family of codes.
//!
//! A handler deals with its exit and has the guest go on ([`Next::Resume`]), or says what the run
//! loop has to do. Of that, accesses to ports and device registers come back here once the board has
//! answered: see [`complete`].

mod control_registers;
mod events;
mod instructions;
mod model_specific;
mod nested;
mod ports;

use chiton_core::decode::Access;
use chiton_core::port::PortAccess;
use chiton_core::svm::event::Event;
use chiton_core::svm::exit::{Code, Range};
use chiton_core::vcpu::{Broken, Exit};

use crate::setup::{GP, UD};
use crate::{Error, SvmVcpu};

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
    /// A port is read or written; RIP is this behind the instruction.
    Port(PortAccess, u64),
    /// A device register is read or written.
    Register(Access),
}

/// Deals with an exit.
pub(crate) fn handle(vcpu: &mut SvmVcpu, code: Code) -> Result<Next, Error> {
    control_registers::watch(vcpu);
    Ok(match code.range() {
        Some(Range::Exception(vector)) => events::exception(vcpu, vector),
        Some(Range::CrRead(4)) => control_registers::read_cr4(vcpu),
        Some(Range::CrWrite(4)) => control_registers::write_cr4(vcpu),
        Some(Range::DrRead(number)) => instructions::debug_register(vcpu, number, false),
        Some(Range::DrWrite(number)) => instructions::debug_register(vcpu, number, true),
        Some(_) => unexpected(vcpu, code),
        None => match code {
            Code::CR0_SELECTIVE => control_registers::write_cr0(vcpu),
            Code::INTR => events::interrupt(vcpu),
            // It was pending still, and STGI has let it through to the host's own handler, which returns.
            Code::NMI => Next::Resume,
            // The next entry delivers what there is.
            Code::VINTR => Next::Resume,
            Code::IRET => vcpu.begins_iret(),
            Code::SHUTDOWN => Next::Shutdown,
            Code::CPUID => instructions::cpuid(vcpu),
            Code::HLT => instructions::hlt(vcpu),
            Code::IOIO => ports::begin(vcpu),
            Code::MSR => model_specific::access(vcpu),
            Code::NPF => return nested::fault(vcpu),
            Code::XSETBV => instructions::xsetbv(vcpu),
            // Caches are coherent, and the machine's; a guest that cleans them has done so. (QEMU 7.2
            // reports the first as the second.)
            Code::INVD | Code::WBINVD => instructions::skip(vcpu, &[&[0x0f, 0x08], &[0x0f, 0x09]]),
            // No counter of events is offered.
            Code::RDPMC => vcpu.raise(Event::exception(GP, Some(0))),
            // CPUID announces none of these, and a processor that has them exits even so.
            Code::VMRUN
            | Code::VMMCALL
            | Code::VMLOAD
            | Code::VMSAVE
            | Code::STGI
            | Code::CLGI
            | Code::SKINIT
            | Code::INVLPGA
            | Code::RSM
            | Code::RDTSCP
            | Code::MONITOR
            | Code::MWAIT
            | Code::MWAIT_CONDITIONAL
            | Code::RDPRU
            | Code::INVLPGB
            | Code::INVLPGB_ILLEGAL
            | Code::INVPCID
            | Code::MCOMMIT
            | Code::TLBSYNC => vcpu.raise(Event::exception(UD, None)),
            code => unexpected(vcpu, code),
        },
    })
}

/// An exit that no guest can cause as the intercepts are, or that nothing can be done about.
fn unexpected(vcpu: &mut SvmVcpu, code: Code) -> Next {
    vcpu.note(format_args!("the guest cannot go on after this exit: {code}"));
    Next::Broken(Broken::Unknown(code.0 as u32))
}

/// Ends what the run loop has been asked to do: its answer goes into registers or memory, and the
/// instruction is passed.
pub(crate) fn complete(vcpu: &mut SvmVcpu) -> Next {
    match core::mem::replace(&mut vcpu.pending, Pending::Nothing) {
        Pending::Nothing => Next::Resume,
        Pending::Port(access, next) => ports::complete(vcpu, access, next),
        Pending::Register(access) => nested::complete(vcpu, access),
    }
}

/// What the run loop is told.
pub(crate) fn exit(vcpu: &mut SvmVcpu, next: Next) -> Exit<'_> {
    match next {
        Next::Answer => match &mut vcpu.pending {
            Pending::Port(access, _) => access.exit(),
            Pending::Register(access) => access.exit(),
            Pending::Nothing => Exit::Interrupted,
        },
        Next::Resume | Next::Interrupted => Exit::Interrupted,
        Next::Halt => Exit::Halt,
        Next::Shutdown => Exit::Shutdown,
        Next::EntryFailed(reason) => Exit::EntryFailed { reason },
        Next::Broken(broken) => Exit::Broken(broken),
    }
}
