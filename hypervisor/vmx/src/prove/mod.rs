//! The entry checker, proven: a VMCS is broken in every way that [`cases`](chiton_core::vmx::check::cases)
//! has, and what the checker says of it is compared with what the processor does.
//!
//! ```text
//!   a good VMCS ── case ──▶ VMCS ──┬─ check ──▶ rules that are broken ──▶ error 7, 8, exit 33, 34, entered
//!                                  └─ VMLAUNCH / VMRESUME ──────────────▶ error 7, 8, exit 33, 34, entered
//! ```
//!
//! A case that the processor takes enters the guest. The VMX-preemption timer is 0, so that the guest
//! is left again before its first instruction (SDM volume 3C, section 27.5.1); EPT maps nothing, so that an event
//! which is injected finds no handler and exits too.

mod known;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use chiton_core::examples::Verdict;
use chiton_core::physical::{GuestRam, Pages};
use chiton_core::say;
use chiton_core::vcpu::{Registers, Segment, SystemRegisters, Table, Vcpu};
use chiton_core::vmx::check::cases::{Case, To, cases, sweep};
use chiton_core::vmx::check::{Outcome, Violation, check, outcome};
use chiton_core::vmx::controls::primary;
use chiton_core::vmx::event::{Event, Kind};
use chiton_core::vmx::exit::{Basic, Reason};
use chiton_core::vmx::field::AnyField;
use chiton_core::vmx::fields::{self, *};
use chiton_core::vmx::{PlainVmcs, VmcsFields, VmcsRead, VmcsWrite};
use x86_64::instructions::interrupts;

use known::{KNOWN, Known};

use crate::{Error, Options, Vmx, VmxVcpu, entry};

/// What the processor made of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// One of the outcomes that a checker can foresee.
    Outcome(Outcome),
    /// VMfailInvalid, or VMfailValid with an error of its own.
    Error(Option<u32>),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outcome(outcome) => f.write_str(short(*outcome)),
            Self::Error(Some(number)) => write!(f, "error {number}"),
            Self::Error(None) => f.write_str("VMfailInvalid"),
        }
    }
}

/// An outcome in a word.
const fn short(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::InvalidControls => "error 7",
        Outcome::InvalidHost => "error 8",
        Outcome::InvalidGuest => "exit 33",
        Outcome::InvalidMsr => "exit 34",
        Outcome::Entered => "entered",
    }
}

/// All outcomes, in the order of the table.
const OUTCOMES: [Outcome; 5] = [
    Outcome::InvalidControls,
    Outcome::InvalidHost,
    Outcome::InvalidGuest,
    Outcome::InvalidMsr,
    Outcome::Entered,
];

/// The VMCS that is broken, with what is needed to mend it.
struct Prover<'a> {
    vcpu: VmxVcpu,
    vmx: &'a Vmx,
    /// The good VMCS.
    good: PlainVmcs,
    /// A page to point to.
    scratch: Pages,
}

/// Tries every case, and says where processor and checker differ.
pub(crate) fn run(vmx: &Vmx, ram: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
    let mut prover = Prover::new(vmx, ram)?;
    let mut all = cases();
    all.extend(sweep(&prover.good));
    let mut matrix = [[0_u32; OUTCOMES.len()]; OUTCOMES.len()];
    let mut explained = [0_u32; KNOWN.len()];
    let (mut without, mut left_out, mut unexplained) = (0, 0, 0_u32);
    for case in &all {
        if prover.hangs(case) {
            left_out += 1;
            continue;
        }
        let Some((violations, seen)) = prover.attempt(case)? else {
            without += 1;
            continue;
        };
        let said = outcome(&violations);
        let row = OUTCOMES.iter().position(|outcome| *outcome == said);
        let column = OUTCOMES.iter().position(|outcome| Seen::Outcome(*outcome) == seen);
        if let (Some(row), Some(column)) = (row, column) {
            matrix[row][column] += 1;
        }
        if Seen::Outcome(said) == seen {
            continue;
        }
        let changed: Vec<AnyField> = case.changes.iter().map(|change| change.field).collect();
        let known = match seen {
            Seen::Outcome(processor) => Known::find(&violations, processor, &changed),
            Seen::Error(_) => None,
        };
        if let Some(count) = known.and_then(|index| explained.get_mut(index)) {
            *count += 1;
        } else {
            unexplained += 1;
            say!(
                words,
                "prove: {}: checker {}, processor {seen}{}",
                case.name,
                short(said),
                rules(&violations)
            );
        }
    }
    // Those too that do not occur here: it is noticed when one occurs nowhere.
    for (known, count) in KNOWN.iter().zip(&explained) {
        say!(words, "prove: {count:>4} differ: {}", known.because);
    }
    say!(
        words,
        "prove: {} cases; {} disagreements are explained, {unexplained} are not; {without} want fields that this \
         processor has not, {left_out} are left out",
        all.len(),
        explained.iter().sum::<u32>()
    );
    table(words, &matrix);
    Ok(Verdict::of(unexplained == 0))
}

/// The names of the rules that are broken.
fn rules(violations: &[Violation]) -> String {
    let mut names: Vec<&str> = violations.iter().map(|violation| violation.rule.name).collect();
    names.dedup();
    if names.is_empty() {
        String::new()
    } else {
        alloc::format!(" ({})", names.join(", "))
    }
}

/// How often the checker said what, and the processor did what.
fn table(words: &mut dyn Write, matrix: &[[u32; OUTCOMES.len()]; OUTCOMES.len()]) {
    let head: Vec<String> = OUTCOMES
        .iter()
        .map(|outcome| alloc::format!("{:>9}", short(*outcome)))
        .collect();
    say!(words, "prove: {:<20}{}", "checker \\ processor", head.concat());
    for (outcome, row) in OUTCOMES.iter().zip(matrix) {
        let cells: Vec<String> = row.iter().map(|count| alloc::format!("{count:>9}")).collect();
        say!(words, "prove: {:<20}{}", short(*outcome), cells.concat());
    }
}

impl<'a> Prover<'a> {
    /// A good VMCS of a guest in 64-bit mode.
    fn new(vmx: &'a Vmx, ram: GuestRam) -> Result<Self, Error> {
        let mut vcpu = vmx.vcpu(ram, Options::default())?;
        let (registers, system) = world();
        vcpu.set_registers(&registers, &system)?;
        vcpu.vmcs.make_current()?;
        let vmcs = &mut vcpu.vmcs;
        vmcs.set(GUEST_RIP, registers.rip)?;
        vmcs.set(GUEST_RSP, registers.rsp)?;
        vmcs.set(GUEST_RFLAGS, registers.rflags)?;
        vmcs.set(PREEMPTION_TIMER_VALUE, 0)?;
        // What an exit may leave as the guest had it is as the hypervisor has it.
        let (efer, pat) = (vmcs.get(HOST_EFER), vmcs.get(HOST_PAT));
        vmcs.set(GUEST_EFER, efer)?;
        vmcs.set(GUEST_PAT, pat)?;
        // So that the rules about what memory holds have something to look at.
        let scratch = Pages::one(vmx.processor.physical, "the scratch page")?;
        if vmcs.read(VIRTUAL_APIC_ADDRESS.encoding()).is_some() {
            vmcs.set(VIRTUAL_APIC_ADDRESS, scratch.address())?;
        }
        let good = PlainVmcs::copy(vmcs);
        Ok(Self {
            vcpu,
            vmx,
            good,
            scratch,
        })
    }

    /// Whether a case is left out: the injection of a pending monitor trap, on a processor without "monitor
    /// trap flag". It has to be refused; Bochs 2.7 takes it, and stops with a panic of its own.
    fn hangs(&self, case: &Case) -> bool {
        let injects = case.changes.iter().any(|change| {
            change.field == ENTRY_INTERRUPTION_INFORMATION.any()
                && matches!(change.to, To::Value(event) if Event(event as u32).kind() == Kind::Other)
        });
        injects && self.vmx.capabilities().primary.may & primary::MONITOR_TRAP_FLAG == 0
    }

    /// Makes the VMCS good again.
    fn mend(&mut self) -> Result<(), Error> {
        for field in fields::all().filter(|field| field.is_writable()) {
            let encoding = field.encoding;
            if let Some(now) = self.vcpu.vmcs.read(encoding) {
                let good = self.good.read(encoding).unwrap_or(0);
                if now != good {
                    self.vcpu.vmcs.write(encoding, good)?;
                }
            }
        }
        Ok(())
    }

    /// Breaks the VMCS as a case says, and asks the checker and the processor; `None` when the
    /// processor has none of the fields. What is broken of the host state is what the checker finds
    /// invalid, so that it is never loaded.
    fn attempt(&mut self, case: &Case) -> Result<Option<(Vec<Violation>, Seen)>, Error> {
        self.mend()?;
        for offset in (0..0x1000).step_by(8) {
            self.scratch.write_u64(offset, 0);
        }
        for (offset, bytes) in case.memory {
            self.scratch.write_u64(*offset as usize, *bytes);
        }
        let at = self.scratch.address();
        if case.apply(&mut self.vcpu.vmcs, at).is_err() {
            return Ok(None);
        }
        let scratch = &self.scratch;
        let memory = |address: u64| {
            let offset = address.checked_sub(at).filter(|offset| *offset < 0x1000)?;
            Some(scratch.read_u64(offset as usize))
        };
        let violations = check(&self.vcpu.vmcs, self.vmx.capabilities(), &memory);
        let seen = self.enter();
        Ok(Some((violations, seen)))
    }

    /// VMLAUNCH or VMRESUME, and back.
    fn enter(&mut self) -> Seen {
        let vcpu = &mut self.vcpu;
        let interrupts_on = interrupts::are_enabled();
        interrupts::disable();
        let mut registers = Registers::default();
        // SAFETY: the VMCS is current. Its host state is that of this program or one that no
        // processor loads, since VM entry checks it first (SDM volume 3C, sections 28.2.2 to 28.2.4); the
        // guest comes back before its first instruction, and EPT, where it is on, maps nothing for it.
        let entered = unsafe { entry::enter(&raw mut registers, vcpu.vmcs.launched) };
        let seen = match entered {
            entry::EXITED => {
                let reason = Reason(vcpu.vmcs.get(EXIT_REASON));
                match (reason.is_entry_failure(), reason.basic()) {
                    (true, Basic::ENTRY_FAILURE_GUEST_STATE) => Seen::Outcome(Outcome::InvalidGuest),
                    (true, Basic::ENTRY_FAILURE_MSR_LOADING) => Seen::Outcome(Outcome::InvalidMsr),
                    (true, _) => Seen::Error(None),
                    (false, _) => {
                        vcpu.vmcs.launched = true;
                        Seen::Outcome(Outcome::Entered)
                    }
                }
            }
            entry::FAILED_VALID => match vcpu.vmcs.get(VM_INSTRUCTION_ERROR) {
                7 => Seen::Outcome(Outcome::InvalidControls),
                8 => Seen::Outcome(Outcome::InvalidHost),
                number => Seen::Error(Some(number)),
            },
            _ => Seen::Error(None),
        };
        if interrupts_on {
            interrupts::enable();
        }
        seen
    }
}

/// A guest in 64-bit mode, of which nothing is in memory.
fn world() -> (Registers, SystemRegisters) {
    const UNUSED: Segment = Segment {
        selector: 0,
        base: 0,
        limit: 0,
        access: 0,
    };
    let system = SystemRegisters {
        cr0: 0x8001_0031,
        cr3: 0x1000,
        cr4: 0x20,
        efer: 0xd00,
        cs: Segment {
            selector: 8,
            base: 0,
            limit: u32::MAX,
            access: 0xa09b,
        },
        ss: UNUSED,
        ds: UNUSED,
        es: UNUSED,
        fs: UNUSED,
        gs: UNUSED,
        ldt: UNUSED,
        tr: Segment {
            selector: 0x18,
            base: 0,
            limit: 0x67,
            access: 0x8b,
        },
        gdt: Table {
            base: 0x2000,
            limit: 0x27,
        },
        idt: Table {
            base: 0x3000,
            limit: 0xfff,
        },
        ..SystemRegisters::default()
    };
    (
        Registers {
            rip: 0x1_0000,
            rsp: 0x2_0000,
            rflags: 2,
            ..Registers::default()
        },
        system,
    )
}
