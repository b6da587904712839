//! One virtual processor: its VMCB, everything the VMCB does not hold, and the loop round both.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::ToString;
use core::fmt;

use chiton_core::apic::GuestApic;
use chiton_core::cpuid::GuestCpuid;
use chiton_core::fpu::Fpu;
use chiton_core::paging::{self, Access, Nested, Npt, Rights};
use chiton_core::physical::GuestRam;
use chiton_core::space::{Accessor, Space};
use chiton_core::svm::cases::{Case, cases};
use chiton_core::svm::controls::Controls;
use chiton_core::svm::event::Event;
use chiton_core::svm::exit::Code;
use chiton_core::svm::features::Features;
use chiton_core::svm::information::Summary;
use chiton_core::svm::intercept::vector3;
use chiton_core::svm::{VmcbFields, VmcbRead, VmcbWrite, check, clean, fields, tlb};
use chiton_core::vcpu::{Exit, Registers, SystemRegisters, Vcpu};

use crate::enable::Processor;
use crate::handlers::{self, Next, Pending};
use crate::nmi::Nmis;
use crate::setup::{self, DB, Maps};
use crate::vmcb::Vmcb;
use crate::{Error, Options, Report, Svm, entry, trace};

/// What a processor keeps of a VMCB that this crate knows of; it never writes the others.
const KEPT: u32 = clean::ALL & !clean::CET;

/// A virtual processor on SVM.
pub struct SvmVcpu {
    pub(crate) vmcb: Vmcb,
    /// Where VMSAVE keeps what VMRUN does not save of the host.
    pub(crate) host: Vmcb,
    /// RAX, RSP, RIP and RFLAGS are those of the last exit, and go into the VMCB at the next entry.
    pub(crate) registers: Registers,
    /// Of vector 3, what exits beside a window for interrupts.
    pub(crate) exits: u32,
    /// CR4 as the guest has set it.
    pub(crate) cr4: u64,
    /// DR0 to DR3, which the hypervisor keeps: breakpoints are not offered.
    pub(crate) debug: [u64; 4],
    pub(crate) fpu: Fpu,
    pub(crate) space: Space<Npt>,
    _maps: Maps,
    asid: u32,
    /// The local APIC, if the guest has interrupts; what `cpuid` answers then; whether `hlt` waits for
    /// one; and whether an NMI can be delivered.
    pub(crate) apic: Option<GuestApic>,
    pub(crate) cpuid: Option<GuestCpuid>,
    pub(crate) halted: bool,
    pub(crate) nmis: Nmis,
    /// Whether the processor has to forget the guest's translations before it goes on.
    forget: bool,
    /// What the next entry delivers.
    pub(crate) event: Event,
    /// What the run loop has been asked to do.
    pub(crate) pending: Pending,
    options: Options,
    /// What is broken of the VMCB before each entry.
    broken: Option<Case>,
    counts: Counts,
    /// Before how many entries the rules were checked, and held.
    checked: u64,
    report: Option<Report>,
    pub(crate) processor: Rc<Processor>,
}

impl Svm {
    /// A virtual processor with this memory, of which nothing is mapped yet. Its registers are to
    /// be set before it runs.
    ///
    /// # Errors
    ///
    /// [`Error`] when pages or ASIDs are used up.
    pub fn vcpu(&self, memory: GuestRam, options: Options) -> Result<SvmVcpu, Error> {
        SvmVcpu::new(Rc::clone(&self.processor), memory, options)
    }
}

impl SvmVcpu {
    fn new(processor: Rc<Processor>, ram: GuestRam, mut options: Options) -> Result<Self, Error> {
        let physical = processor.physical;
        let mut vmcb = Vmcb::new(physical)?;
        let host = Vmcb::new(physical)?;
        let fpu = Fpu::new(physical, processor.cpuid.avx())?;
        let space = Space::new(physical, processor.npt, ram, options.largest_page)?;
        let space = space.with_given_back(options.given_back.take());
        let maps = Maps::new(physical)?;
        let asid = processor.take_asid()?;
        setup::controls(&mut vmcb, &maps, asid, space.table.pointer());
        let apic = options.apic.take();
        Ok(Self {
            vmcb,
            host,
            registers: Registers::default(),
            exits: setup::VECTOR_3,
            cr4: 0,
            debug: [0; 4],
            fpu,
            space,
            _maps: maps,
            asid,
            cpuid: apic.as_ref().map(|apic| processor.cpuid.of_processor(apic.number())),
            apic,
            halted: false,
            nmis: Nmis::default(),
            forget: true,
            event: Event::default(),
            pending: Pending::Nothing,
            options,
            broken: None,
            counts: Counts::default(),
            checked: 0,
            report: None,
            processor,
        })
    }

    /// All exits so far, by their code: those too that the run loop has never seen.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Why the last run ended in [`Exit::EntryFailed`] or [`Exit::Broken`].
    #[must_use]
    pub const fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    /// Before how many entries the rules were checked, and held.
    #[must_use]
    pub const fn checked(&self) -> u64 {
        self.checked
    }

    /// The VMCB, for a dump.
    #[must_use]
    pub const fn vmcb(&self) -> &dyn VmcbRead {
        &self.vmcb
    }

    /// How the processor comes to a linear address of the guest, load by load, as the tables are now:
    /// for a read in the ring that the guest is in.
    #[must_use]
    pub fn walk(&self, linear: u64) -> Nested<Npt> {
        let Accessor { cr3, ring } = self.accessor();
        let access = Access {
            rights: Rights::READ,
            user: ring == 3,
        };
        paging::walk(&self.space.ram, &self.space.table, cr3, linear, access)
    }

    /// What was wanted of the processor, what it allows, and what the VMCB asks for.
    #[must_use]
    pub fn controls(&self) -> Controls<'_> {
        setup::wanted(self.processor.features, &self.vmcb)
    }

    /// The rules of VMRUN that the VMCB breaks.
    #[must_use]
    pub fn check(&self) -> alloc::vec::Vec<check::Violation> {
        check::check(&self.vmcb, &self.processor.rules)
    }

    /// Has the processor forget the guest's translations before it goes on.
    pub(crate) const fn forget(&mut self) {
        self.forget = true;
    }

    /// Who accesses memory, when an instruction of the guest is carried out.
    pub(crate) fn accessor(&self) -> Accessor {
        Accessor {
            cr3: self.vmcb.get(fields::CR3),
            ring: self.vmcb.get(fields::CPL),
        }
    }

    /// Whether the guest is in 64-bit mode: L of CS, in long mode (APM volume 2, section 4.8.1).
    pub(crate) fn in_64_bit_mode(&self) -> bool {
        const LMA: u64 = 1 << 10;
        const LONG: u16 = 1 << 9;
        self.vmcb.get(fields::EFER) & LMA != 0 && self.vmcb.get(fields::CS_ATTRIBUTES) & LONG != 0
    }

    /// Puts into the VMCB what goes there at each entry.
    pub(crate) fn prepare(&mut self) {
        let vmcb = &mut self.vmcb;
        vmcb.set(fields::RAX, self.registers.rax);
        vmcb.set(fields::RSP, self.registers.rsp);
        vmcb.set(fields::RIP, self.registers.rip);
        vmcb.set(fields::RFLAGS, self.registers.rflags);
        vmcb.set(fields::EVENTINJ, core::mem::take(&mut self.event).0);
        let control = if self.forget {
            tlb::forget_guest(self.processor.features)
        } else {
            tlb::NOTHING
        };
        vmcb.set(fields::TLB_CONTROL, control);
        if let Some(case) = &self.broken {
            for (field, value) in &case.changes {
                vmcb.write(field.offset, field.bytes, *value);
            }
            vmcb.set(fields::VMCB_CLEAN, 0);
        }
        if !self.processor.features.has(Features::CLEAN_BITS) {
            vmcb.set(fields::VMCB_CLEAN, 0);
        }
    }

    /// Enters the guest as it was [prepared](Self::prepare), and comes back at its next exit.
    fn enter(&mut self) -> Code {
        // SAFETY: XRSTOR and XSETBV (APM volume 4) fault for states that are not opened: `Svm::enable` has opened all
        // of XCR0; this program uses no such register.
        unsafe { self.fpu.load() };
        // SAFETY: VMRUN, VMLOAD and VMSAVE (APM volume 2, sections 15.5.1 and 15.5.2) want SVM on, a host save area,
        // and pages for VMCBs: SVM is on, with such an area. Both VMCBs are pages of this value's own; nested tables
        // map guest memory and nothing else; interrupts, NMIs and machine checks exit. Interrupts are off, as they are
        // always but in `interrupts::take`.
        unsafe { entry::enter(self.vmcb.address(), self.host.address(), &raw mut self.registers) };
        // SAFETY: XSAVE (APM volume 4): as for `load`, which came before.
        unsafe { self.fpu.save() };
        let vmcb = &mut self.vmcb;
        let code = Code::of(vmcb.get(fields::EXITCODE));
        if code.is_refusal() {
            return code;
        }
        self.registers.rax = vmcb.get(fields::RAX);
        self.registers.rsp = vmcb.get(fields::RSP);
        self.registers.rip = vmcb.get(fields::RIP);
        self.registers.rflags = vmcb.get(fields::RFLAGS);
        vmcb.set(fields::VMCB_CLEAN, KEPT);
        self.forget = false;
        // What was being delivered is delivered again, but for what its instruction repeats.
        let event = Event(vmcb.get(fields::EXITINTINFO));
        if event.is_valid() && !event.is_software() {
            self.event = event;
            self.counts.again += 1;
        }
        code
    }

    /// Enters the guest as often as it takes until the run loop has something to do.
    fn go_on(&mut self) -> Result<Next, Error> {
        self.processor.timer.begin_slice(self.options.slice);
        loop {
            if !self.prepare_interrupts() {
                return Ok(Next::Halt);
            }
            let mut stale = false;
            self.space.take_out(|_| stale = true);
            self.forget |= stale;
            self.prepare();
            if self.options.check {
                let broken = self.check();
                if !broken.is_empty() {
                    self.report = Some(Report(format!("VMRUN would refuse this guest:{}", Lines(&broken))));
                    return Ok(Next::EntryFailed(None));
                }
                self.checked += 1;
            }
            let kept = check::Kept::of(&self.vmcb);
            let code = self.enter();
            if code.is_refusal() {
                let broken = check::check(&kept, &self.processor.rules);
                // There was no exit that could be told of.
                self.report = Some(Report(format!("VMRUN refuses this guest: {code}{}", Lines(&broken))));
                return Ok(Next::EntryFailed(Some(code.0)));
            }
            if let Some(trace) = &mut self.options.trace {
                trace(&trace::Trace {
                    number: self.counts.total(),
                    registers: &self.registers,
                    vmcb: &self.vmcb,
                });
            }
            self.counts.count(code);
            match handlers::handle(self, code)? {
                Next::Resume => {}
                next => return Ok(next),
            }
        }
    }

    /// Notes why the guest cannot go on, with the exit.
    pub(crate) fn note(&mut self, words: fmt::Arguments<'_>) {
        let exit = Summary(&self.vmcb).to_string();
        self.report = Some(Report(format!("{words}\nthe last exit was: {exit}")));
    }

    /// Passes an instruction that was carried out for the guest: what it blocked for one
    /// instruction is over, and the trap of a single step is due (APM volume 2, section 13.1.4).
    pub(crate) fn advance(&mut self, rip: u64) -> Next {
        self.registers.rip = rip;
        self.passed()
    }

    /// The same, when RIP is behind it already.
    pub(crate) fn passed(&mut self) -> Next {
        /// RFLAGS.TF.
        const TRAP: u64 = 1 << 8;
        /// DR6.BS.
        const SINGLE_STEP: u64 = 1 << 14;
        self.vmcb.set(fields::INTERRUPT_SHADOW, 0);
        if self.registers.rflags & TRAP == 0 {
            return Next::Resume;
        }
        let status = self.vmcb.get(fields::DR6);
        self.vmcb.set(fields::DR6, status | SINGLE_STEP);
        self.raise(Event::exception(DB, None))
    }

    /// Raises an exception in the guest; the instruction that exited stays undone.
    pub(crate) fn raise(&mut self, event: Event) -> Next {
        match self.event.then(event) {
            Some(event) => {
                self.event = event;
                Next::Resume
            }
            None => Next::Shutdown,
        }
    }
}

impl Drop for SvmVcpu {
    fn drop(&mut self) {
        self.processor.return_asid(self.asid);
    }
}

impl Vcpu for SvmVcpu {
    type Error = Error;

    fn run(&mut self) -> Result<Exit<'_>, Error> {
        let next = match handlers::complete(self) {
            Next::Resume => self.go_on()?,
            next => next,
        };
        Ok(handlers::exit(self, next))
    }

    fn registers(&mut self) -> Result<Registers, Error> {
        Ok(self.registers)
    }

    fn system_registers(&mut self) -> Result<SystemRegisters, Error> {
        Ok(setup::read(&self.vmcb, self.cr4))
    }

    fn set_registers(&mut self, registers: &Registers, system: &SystemRegisters) -> Result<(), Error> {
        self.registers = *registers;
        self.event = Event::default();
        self.halted = false;
        self.nmis = Nmis::Open;
        self.exits &= !vector3::IRET;
        self.pending = Pending::Nothing;
        self.cr4 = system.cr4;
        setup::write(&mut self.vmcb, system);
        // Bits are flipped of what the registers are.
        self.broken = case(&self.options, &self.vmcb, &self.processor)?;
        self.forget();
        Ok(())
    }
}

/// The case by which the VMCB is to be broken, if there is to be one.
fn case(options: &Options, vmcb: &Vmcb, processor: &Processor) -> Result<Option<Case>, Error> {
    let Some(name) = &options.broken else { return Ok(None) };
    let mut all = cases(vmcb, processor.rules.physical_bits).into_iter();
    let case = all.find(|case| case.name == *name);
    case.map(Some).ok_or_else(|| Error::NoCase(name.clone()))
}

/// Broken rules, one a line.
struct Lines<'a>(&'a [check::Violation]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("\n  every rule that this program knows is kept");
        }
        self.0.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// Exits by their code, and how many of them have cut the delivery of an event.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    exits: BTreeMap<Code, u64>,
    again: u64,
}

impl Counts {
    fn count(&mut self, code: Code) {
        *self.exits.entry(code).or_default() += 1;
    }

    /// All exits together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.exits.values().sum()
    }

    /// The codes that occurred, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Code, u64)> {
        self.exits.iter().map(|(code, count)| (*code, *count))
    }

    /// How many exits came while an event was delivered, which the next entry delivers again.
    #[must_use]
    pub const fn again(&self) -> u64 {
        self.again
    }
}

impl fmt::Display for Counts {
    /// The codes that occurred, most frequent first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: alloc::vec::Vec<_> = self.iter().collect();
        lines.sort_by_key(|(_, count)| core::cmp::Reverse(*count));
        writeln!(f, "{:<40} {:>9}", "#VMEXIT", "count")?;
        for (code, count) in lines {
            writeln!(f, "{code:<40} {count:>9}")?;
        }
        write!(f, "{:<40} {:>9}", "all", self.total())?;
        if self.again > 0 {
            write!(f, "\n{:<40} {:>9}", "events delivered again", self.again)?;
        }
        Ok(())
    }
}
