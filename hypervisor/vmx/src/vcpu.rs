//! One virtual processor: its VMCS, everything the VMCS does not hold, and the loop round both.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use chiton_core::apic::GuestApic;
use chiton_core::cpuid::GuestCpuid;
use chiton_core::fpu::Fpu;
use chiton_core::paging::{self, Access, Ept, Nested, Rights};
use chiton_core::physical::{GuestRam, Pages};
use chiton_core::space::{Accessor, Space};
use chiton_core::vcpu::{Exit, Registers, SystemRegisters, Vcpu};
use chiton_core::vmx::check::{self, Findings, Violation};
use chiton_core::vmx::controls::secondary;
use chiton_core::vmx::exit::{Basic, Reason};
use chiton_core::vmx::report;
use chiton_core::vmx::{Capabilities, VmcsFields, VmcsRead, VmcsWrite, fields};
use x86_64::instructions::interrupts;
use x86_64::registers::control::Cr2;

use crate::broken::Broken;
use crate::enable::Processor;
use crate::handlers::{self, Next, Pending};
use crate::hook::Hook;
use crate::inject::{self, Injection};
use crate::page_log::PageLog;
use crate::setup::bitmaps::Bitmaps;
use crate::setup::guest::RealControlRegisters;
use crate::setup::msr_lists::MsrLists;
use crate::setup::{self, controls::Controls};
use crate::views::Views;
use crate::vmcs::{self, Vmcs};
use crate::{Error, Options, Vmx, entry, instructions, invalidate, memory, timer, trace, virtual_apic};

/// Exceptions that exit. #DB and #AC: a guest whose handler raises them again keeps the processor
/// busy for ever, with no instruction boundary at which anything could interrupt it. #MC: it is the
/// machine's.
const EXCEPTIONS: u32 = 1 << inject::DB | 1 << inject::AC | 1 << inject::MC;

/// A virtual processor on VMX.
pub struct VmxVcpu {
    pub(crate) processor: Rc<Processor>,
    pub(crate) vmcs: Vmcs,
    pub(crate) controls: Controls,
    /// RIP, RSP and RFLAGS are those of the last exit, and go into the VMCS at the next entry.
    pub(crate) registers: Registers,
    pub(crate) cr2: u64,
    /// DR0 to DR3 and DR6, which the hypervisor keeps: breakpoints are not offered.
    pub(crate) debug: [u64; 5],
    pub(crate) fpu: Fpu,
    pub(crate) space: Space<Ept>,
    pub(crate) real: RealControlRegisters,
    pub(crate) msr_lists: MsrLists,
    pub(crate) bitmaps: Bitmaps,
    /// The virtual-APIC page, where the processor keeps CR8 for the guest, or most of its APIC.
    pub(crate) virtual_apic: Option<Pages>,
    /// CR8 where the processor does not.
    pub(crate) cr8: u64,
    /// The local APIC, if the guest has interrupts; what `cpuid` answers then; and whether `hlt` waits
    /// for one.
    pub(crate) apic: Option<GuestApic>,
    pub(crate) cpuid: Option<GuestCpuid>,
    pub(crate) halted: bool,
    vpid: Option<u16>,
    pub(crate) page_log: Option<PageLog>,
    pub(crate) views: Option<Views>,
    pub(crate) hook: Option<Hook>,
    /// What is broken of the VMCS before each entry.
    broken: Option<Broken>,
    /// What the next entry delivers.
    pub(crate) event: Option<Injection>,
    /// What the run loop has been asked to do.
    pub(crate) pending: Pending,
    pub(crate) options: Options,
    counts: Counts,
    /// Before how many entries the rules were checked, and held.
    checked: u64,
    /// Why it cannot go on.
    report: Option<String>,
}

impl Vmx {
    /// A virtual processor with this memory, of which nothing is mapped yet. Its registers are to
    /// be set before it runs.
    ///
    /// # Errors
    ///
    /// [`Error`] when pages are used up, or the processor has not what a guest needs.
    pub fn vcpu(&self, memory: GuestRam, options: Options) -> Result<VmxVcpu, Error> {
        VmxVcpu::new(Rc::clone(&self.processor), memory, options)
    }
}

impl VmxVcpu {
    fn new(processor: Rc<Processor>, ram: GuestRam, mut options: Options) -> Result<Self, Error> {
        let physical = processor.physical;
        let capabilities = &processor.capabilities;
        let controls = Controls::choose(capabilities, extras(&options, capabilities), options.apic.is_some())?;
        let vpid = if controls.secondary.has(secondary::ENABLE_VPID) {
            processor.vpid()
        } else {
            None
        };
        let page_log = controls.secondary.has(secondary::ENABLE_PML);
        let tpr_shadow = controls.has_tpr_shadow();
        let apic = options.apic.take();
        let broken = options.broken.take().map(|name| Broken::of(&name, physical));
        let broken = broken.transpose()?;
        let mut vcpu = Self {
            vmcs: Vmcs::new(Rc::clone(&processor))?,
            controls,
            registers: Registers::default(),
            cr2: 0,
            debug: [0, 0, 0, 0, DR6_AT_RESET],
            fpu: Fpu::new(physical, processor.cpuid.avx())?,
            space: memory::new(&processor, ram, &options)?,
            real: RealControlRegisters::new(capabilities),
            msr_lists: MsrLists::new(physical)?,
            bitmaps: Bitmaps::new(physical)?,
            virtual_apic: tpr_shadow
                .then(|| Pages::one(physical, "the virtual-APIC page"))
                .transpose()?,
            cr8: 0,
            cpuid: apic.as_ref().map(|apic| processor.cpuid.of_processor(apic.number())),
            apic,
            halted: false,
            vpid,
            page_log: page_log.then(|| PageLog::new(physical)).transpose()?,
            views: None,
            hook: None,
            broken,
            event: None,
            pending: Pending::Nothing,
            options,
            counts: Counts::default(),
            checked: 0,
            report: None,
            processor,
        };
        vcpu.set_up()?;
        Ok(vcpu)
    }

    /// Everything in the VMCS but the registers of the guest.
    fn set_up(&mut self) -> Result<(), Error> {
        let vmcs = &mut self.vmcs;
        self.controls.write(vmcs)?;
        setup::host::write(vmcs)?;
        setup::guest::write_rest(vmcs)?;
        self.bitmaps.write(vmcs)?;
        self.msr_lists.write(vmcs)?;
        vmcs.set(fields::EXCEPTION_BITMAP, EXCEPTIONS)?;
        vmcs.set(fields::PAGE_FAULT_ERROR_CODE_MASK, 0)?;
        vmcs.set(fields::PAGE_FAULT_ERROR_CODE_MATCH, 0)?;
        vmcs.set(fields::CR3_TARGET_COUNT, 0)?;
        vmcs.set(fields::ENTRY_INTERRUPTION_INFORMATION, 0)?;
        vmcs.set(fields::TSC_OFFSET, 0)?;
        vmcs.set(fields::EPT_POINTER, self.space.table.pointer())?;
        if let Some(vpid) = self.vpid {
            vmcs.set(fields::VIRTUAL_PROCESSOR_ID, vpid)?;
        }
        if let Some(page) = &self.virtual_apic {
            vmcs.set(fields::VIRTUAL_APIC_ADDRESS, page.address())?;
            vmcs.set(fields::TPR_THRESHOLD, 0)?;
        }
        if let Some(log) = &self.page_log {
            log.write(vmcs)?;
        }
        if let Some(area) = self.options.virtualization_exceptions
            && let Some(host) = self.space.host(area)
        {
            vmcs.set(fields::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS, host)?;
        }
        timer::arm(vmcs, &self.processor.capabilities, self.options.slice)?;
        if self.has_virtual_apic() {
            self.set_up_virtual_apic()?;
        }
        self.forget_linear()
    }

    /// Forgets the guest's linear translations: after a change of a register that decides them.
    pub(crate) fn forget_linear(&self) -> Result<(), Error> {
        invalidate::vpid(&self.processor.capabilities, self.vpid)
    }

    /// The controls, as they were chosen.
    #[must_use]
    pub const fn controls(&self) -> &Controls {
        &self.controls
    }

    /// All exits so far, by reason: those too that the run loop has never seen.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Why the last run ended in [`Exit::EntryFailed`] or [`Exit::Broken`], in words, in several
    /// lines.
    #[must_use]
    pub fn report(&self) -> Option<&str> {
        self.report.as_deref()
    }

    /// Before how many entries the rules were checked, and held.
    #[must_use]
    pub const fn checked(&self) -> u64 {
        self.checked
    }

    /// The VMCS, for a dump.
    ///
    /// # Errors
    ///
    /// When the processor does not take it as the current one.
    pub fn vmcs(&self) -> Result<&dyn VmcsRead, Error> {
        self.vmcs.make_current()?;
        Ok(&self.vmcs)
    }

    /// How the processor comes to a linear address of the guest, load by load, as the tables are now:
    /// for a read in the ring that the guest is in.
    ///
    /// # Errors
    ///
    /// As [`vmcs`](Self::vmcs).
    pub fn walk(&self, linear: u64) -> Result<Nested<Ept>, Error> {
        self.vmcs.make_current()?;
        let access = Access {
            rights: Rights::READ,
            user: setup::guest::ring(&self.vmcs) == 3,
        };
        let cr3 = self.vmcs.get(fields::GUEST_CR3);
        Ok(paging::walk(&self.space.ram, &self.space.table, cr3, linear, access))
    }

    /// Enters the guest, and comes back at its next exit.
    fn enter(&mut self) -> Result<Entered, Error> {
        let vmcs = &mut self.vmcs;
        vmcs.set(fields::GUEST_RIP, self.registers.rip)?;
        vmcs.set(fields::GUEST_RSP, self.registers.rsp)?;
        vmcs.set(fields::GUEST_RFLAGS, self.registers.rflags)?;
        if let Some(event) = self.event.take() {
            event.write(vmcs)?;
        }
        if let Some(broken) = &self.broken {
            broken.apply(vmcs)?;
        }
        if self.options.check {
            let broken = self.check();
            if !broken.is_empty() {
                return Ok(Entered::Foreseen(broken));
            }
            self.checked += 1;
        }
        let vmcs = &mut self.vmcs;
        // No interrupt of the machine may come between the guest's registers and the guest. It ends
        // the guest's turn and is taken when they are on again.
        let interrupts_on = interrupts::are_enabled();
        interrupts::disable();
        // SAFETY: XRSTOR and XSETBV (SDM volume 2D) fault for states that are not opened: `Vmx::enable` has opened all
        // of XCR0; this program uses no such register.
        unsafe { self.fpu.load() };
        // SAFETY: MOV to CR2 takes any value, and changes no mode (SDM volume 3A, section 2.5); VM entry does not do
        // it. The hypervisor's own page faults are its end.
        unsafe { write_cr2(self.cr2) };
        // SAFETY: VMLAUNCH and VMRESUME (SDM volume 3C, section 28.1) take the current VMCS, which this is, and a VM
        // exit goes on by its host state (section 29.5), which is this program's, written by `setup::host` on this
        // processor; EPT maps guest memory and nothing else.
        let outcome = unsafe { entry::enter(&raw mut self.registers, vmcs.launched) };
        self.cr2 = Cr2::read_raw();
        // SAFETY: XSAVE (SDM volume 2D): as for `load`, which came before.
        unsafe { self.fpu.save() };
        if interrupts_on {
            interrupts::enable();
        }
        match outcome {
            entry::EXITED => {}
            failed => {
                return Ok(Entered::Refused(if failed == entry::FAILED_VALID {
                    instructions::Failed::Valid
                } else {
                    instructions::Failed::Invalid
                }));
            }
        }
        let reason = Reason(vmcs.get(fields::EXIT_REASON));
        if reason.is_entry_failure() {
            return Ok(Entered::Failed(reason));
        }
        vmcs.launched = true;
        self.registers.rip = vmcs.get(fields::GUEST_RIP);
        self.registers.rsp = vmcs.get(fields::GUEST_RSP);
        self.registers.rflags = vmcs.get(fields::GUEST_RFLAGS);
        self.event = Injection::under_way(vmcs);
        self.counts.again += u64::from(self.event.is_some());
        if self.event.is_some_and(Injection::is_nmi) {
            self.unblock_nmi()?;
        }
        Ok(Entered::Exited(reason.basic()))
    }

    /// Enters the guest as often as it takes until the run loop has something to do.
    fn go_on(&mut self) -> Result<Next, Error> {
        loop {
            if !self.prepare_interrupts()? {
                return Ok(Next::Halt);
            }
            memory::take_out(&mut self.space, &self.processor)?;
            let reason = match self.enter()? {
                Entered::Exited(reason) => reason,
                Entered::Foreseen(broken) => {
                    self.report = Some(format!("{}", Findings(&broken)));
                    return Ok(Next::EntryFailed(None));
                }
                Entered::Failed(reason) => {
                    if reason.basic() == Basic::ENTRY_FAILURE_MACHINE_CHECK {
                        handlers::machine_check();
                    }
                    let findings = format!("{}", Findings(&self.check()));
                    self.note(format_args!("{}", findings.trim_end()));
                    return Ok(Next::EntryFailed(Some(reason.0.into())));
                }
                Entered::Refused(failed) => {
                    let instruction = if self.vmcs.launched { "VMRESUME" } else { "VMLAUNCH" };
                    let error = vmcs::failure(instruction, failed);
                    match error {
                        // Errors 7 and 8 are about fields; any other is about the use of the
                        // instruction (SDM volume 3C, section 32.4).
                        Error::Instruction {
                            number: Some(number @ 7..=8),
                            ..
                        } => {
                            // There was no exit that a report could speak of.
                            self.report = Some(format!("{}", Findings(&self.check())));
                            return Ok(Next::EntryFailed(Some(number.into())));
                        }
                        error => return Err(error),
                    }
                }
            };
            if let Some(trace) = &mut self.options.trace {
                trace(&trace::Trace {
                    number: self.counts.total(),
                    registers: &self.registers,
                    vmcs: &self.vmcs,
                });
            }
            self.counts.count(reason);
            match handlers::handle(self, reason)? {
                Next::Resume => {}
                next => return Ok(next),
            }
        }
    }

    /// Which rules of VM entries the VMCS breaks as it is.
    fn check(&self) -> Vec<Violation> {
        let physical = self.processor.physical;
        let read = |address: u64| {
            // SAFETY: only addresses that the VMCS leads to are asked for: pages of this guest's own,
            // which are mapped, at multiples of 8.
            Some(unsafe { physical.pointer(address).cast::<u64>().read_volatile() })
        };
        check::check(&self.vmcs, &self.processor.capabilities, &read)
    }

    /// The guest, as it accesses its own memory.
    pub(crate) fn accessor(&self) -> Accessor {
        Accessor {
            cr3: self.vmcs.get(fields::GUEST_CR3),
            ring: setup::guest::ring(&self.vmcs),
        }
    }

    /// Notes why the guest cannot go on.
    pub(crate) fn note(&mut self, words: fmt::Arguments<'_>) {
        self.report = Some(format!("{words}\n{}", report::Report(&self.vmcs)));
    }

    /// Passes the instruction that exited: it has been carried out for the guest.
    pub(crate) fn advance(&mut self) -> Result<(), Error> {
        let length = self.vmcs.get(fields::EXIT_INSTRUCTION_LENGTH);
        self.registers.rip = self.registers.rip.wrapping_add(length.into());
        self.passed()
    }

    /// What else comes with an instruction that was carried out for the guest: what the one before
    /// had blocked for its time is over, and the trap of a single step is due, if the guest wants it.
    pub(crate) fn passed(&mut self) -> Result<(), Error> {
        /// Blocking by STI and by MOV SS (SDM volume 3C, table 26-3).
        const FOR_ONE_INSTRUCTION: u32 = 0b11;
        /// RFLAGS.TF.
        const TRAP: u64 = 1 << 8;
        /// BS of the pending debug exceptions (SDM volume 3C, table 26-4).
        const BS: u64 = 1 << 14;
        let blocked = self.vmcs.get(fields::GUEST_INTERRUPTIBILITY_STATE);
        if blocked & FOR_ONE_INSTRUCTION != 0 {
            self.vmcs
                .set(fields::GUEST_INTERRUPTIBILITY_STATE, blocked & !FOR_ONE_INSTRUCTION)?;
        }
        if self.registers.rflags & TRAP != 0 {
            let pending = self.vmcs.get(fields::GUEST_PENDING_DEBUG_EXCEPTIONS);
            self.vmcs.set(fields::GUEST_PENDING_DEBUG_EXCEPTIONS, pending | BS)?;
        }
        Ok(())
    }

    /// Raises an exception in the guest; the instruction that exited stays undone.
    pub(crate) fn raise(&mut self, injection: Injection) -> Next {
        let combined = match self.event.take() {
            Some(under_way) => under_way.then(injection),
            None => Some(injection),
        };
        match combined {
            Some(injection) => {
                self.event = Some(injection);
                Next::Resume
            }
            None => Next::Shutdown,
        }
    }
}

impl Vcpu for VmxVcpu {
    type Error = Error;

    fn run(&mut self) -> Result<Exit<'_>, Error> {
        self.vmcs.make_current()?;
        let next = match handlers::complete(self)? {
            Next::Resume => self.go_on()?,
            next => next,
        };
        handlers::exit(self, next)
    }

    fn registers(&mut self) -> Result<Registers, Error> {
        Ok(self.registers)
    }

    fn system_registers(&mut self) -> Result<SystemRegisters, Error> {
        self.vmcs.make_current()?;
        Ok(setup::guest::read(&self.vmcs, self.cr2))
    }

    fn set_registers(&mut self, registers: &Registers, system: &SystemRegisters) -> Result<(), Error> {
        self.vmcs.make_current()?;
        self.registers = *registers;
        self.cr2 = system.cr2;
        self.event = None;
        self.halted = false;
        self.pending = Pending::Nothing;
        setup::guest::write(&mut self.vmcs, system, self.real)?;
        self.forget_linear()
    }
}

/// The secondary controls that options ask for, where the processor has them.
const fn extras(options: &Options, capabilities: &Capabilities) -> u64 {
    let mut extras = 0;
    if options.page_log {
        extras |= secondary::ENABLE_PML;
    }
    if options.views {
        extras |= secondary::ENABLE_VM_FUNCTIONS;
    }
    if options.virtualization_exceptions.is_some() {
        extras |= secondary::EPT_VIOLATION_VE;
    }
    if options.virtual_apic && options.apic.is_some() {
        extras |= virtual_apic::controls(capabilities);
    }
    extras
}

/// DR6 after a reset (SDM volume 3B, section 19.2.3).
const DR6_AT_RESET: u64 = 0xffff_0ff0;

/// How an attempt to enter the guest went.
enum Entered {
    /// It was not tried: these rules are broken, and [`Options::check`] is on.
    Foreseen(Vec<Violation>),
    /// It has run, and exited.
    Exited(Basic),
    /// The entry ended in an exit before the first instruction.
    Failed(Reason),
    /// The instruction failed.
    Refused(instructions::Failed),
}

/// Sets CR2.
///
/// # Safety
///
/// Nobody waits for what was in it.
unsafe fn write_cr2(value: u64) {
    // SAFETY: MOV to control registers (SDM volume 2B) wants ring 0, which this is, and changes nothing but CR2, which
    // nobody waits for: the caller's promise.
    unsafe { core::arch::asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) }
}

/// Exits by their basic reason, and how many of them have cut the delivery of an event.
#[derive(Clone, Debug)]
pub struct Counts {
    exits: [u64; REASONS],
    again: u64,
}

/// One more than the highest reason that appendix C has.
const REASONS: usize = 86;

impl Default for Counts {
    fn default() -> Self {
        Self {
            exits: [0; REASONS],
            again: 0,
        }
    }
}

impl Counts {
    fn count(&mut self, reason: Basic) {
        if let Some(count) = self.exits.get_mut(usize::from(reason.0)) {
            *count += 1;
        }
    }

    /// All exits together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.exits.iter().sum()
    }

    /// How often a reason occurred.
    #[must_use]
    pub fn of(&self, reason: Basic) -> u64 {
        self.exits.get(usize::from(reason.0)).copied().unwrap_or(0)
    }

    /// The reasons that occurred, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Basic, u64)> {
        let reasons = (0..).map(Basic).zip(self.exits);
        reasons.filter(|(_, count)| *count > 0)
    }

    /// How many exits came while an event was delivered, which the next entry delivers again.
    #[must_use]
    pub const fn again(&self) -> u64 {
        self.again
    }
}

impl fmt::Display for Counts {
    /// The reasons that occurred, most frequent first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<_> = self.iter().collect();
        lines.sort_by_key(|(_, count)| core::cmp::Reverse(*count));
        writeln!(f, "{:<40} {:>9}", "VM exit", "count")?;
        for (reason, count) in lines {
            writeln!(f, "{:<40} {count:>9}", format!("{reason}"))?;
        }
        write!(f, "{:<40} {:>9}", "all", self.total())?;
        if self.again > 0 {
            write!(f, "\n{:<40} {:>9}", "events delivered again", self.again)?;
        }
        Ok(())
    }
}
