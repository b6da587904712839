//! The rules of VMRUN, proven: a VMCB is changed in every way that [`cases`](chiton_core::svm::cases) has, and what
//! the checker says of it is compared with what the processor does.
//!
//! ```text
//!   a good VMCB ── case ──▶ VMCB ──┬─ check ─▶ rules that are broken ─▶ refused, entered
//!                                  └─ VMRUN ─▶ exit code -1 or another ▶ refused, entered
//! ```
//!
//! A case that the processor takes enters the guest. Nested tables map nothing, so that it exits again at the
//! fetch of its first instruction, or at the delivery of an event that is injected.

mod known;

use alloc::vec::Vec;
use core::fmt::{self, Write};

use chiton_core::physical::GuestRam;
use chiton_core::svm::cases::{Case, cases};
use chiton_core::svm::check::Violation;
use chiton_core::svm::exit::Code;
use chiton_core::svm::{PlainVmcb, VmcbFields, VmcbRead, VmcbWrite, fields};
use chiton_core::vcpu::{Registers, Segment, SystemRegisters, Table, Vcpu};

use known::{KNOWN, Known};

use crate::{Error, Options, Svm, SvmVcpu, entry};

/// No exit code at all: what an exit does not overwrite.
const NO_CODE: u64 = 0x7fff_ffff;

/// Tries every case, and says where processor and checker differ; returns whether each difference is a known one.
///
/// # Errors
///
/// When pages or ASIDs are used up.
pub fn prove(svm: &Svm, ram: GuestRam, words: &mut dyn Write) -> Result<bool, Error> {
    let mut prover = Prover::new(svm, ram)?;
    let all = cases(&prover.good, svm.processor.rules.physical_bits);
    let mut matrix = [[0_u32; 2]; 2];
    let mut explained = [0_u32; KNOWN.len()];
    let mut unexplained = 0_u32;
    for case in &all {
        let (violations, code) = prover.attempt(case);
        let refused = code.is_refusal();
        matrix[usize::from(violations.is_empty())][usize::from(!refused)] += 1;
        if violations.is_empty() != refused {
            continue;
        }
        let known = Known::find(&violations, refused, case);
        if let Some(count) = known.and_then(|index| explained.get_mut(index)) {
            *count += 1;
        } else {
            unexplained += 1;
            say(
                words,
                format_args!("{}: processor: {code}; checker: {}", case.name, Rules(&violations)),
            );
        }
    }
    // Those too that do not occur here: it is noticed when one occurs nowhere.
    for (known, count) in KNOWN.iter().zip(&explained) {
        say(words, format_args!("{count:>4} differ: {}", known.because));
    }
    say(
        words,
        format_args!(
            "{} cases; {} disagreements are explained, {unexplained} are not",
            all.len(),
            explained.iter().sum::<u32>()
        ),
    );
    say(
        words,
        format_args!("{:<20}{:>9}{:>9}", "checker \\ processor", "refused", "entered"),
    );
    for (row, [refused, entered]) in ["refused", "entered"].into_iter().zip(matrix) {
        say(words, format_args!("{row:<20}{refused:>9}{entered:>9}"));
    }
    Ok(unexplained == 0)
}

/// Says a line. Whoever listens does not fail.
fn say(words: &mut dyn Write, line: fmt::Arguments<'_>) {
    let _ = writeln!(words, "prove: {line}");
}

/// Broken rules, in a line.
struct Rules<'a>(&'a [Violation]);

impl fmt::Display for Rules<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("every rule is kept");
        }
        let mut before = "";
        self.0.iter().try_for_each(|violation| {
            write!(f, "{before}{violation}")?;
            before = "; ";
            Ok(())
        })
    }
}

/// The VMCB that is broken, with what is needed to mend it.
struct Prover {
    vcpu: SvmVcpu,
    good: PlainVmcb,
}

impl Prover {
    /// A good VMCB of a guest in 64-bit mode.
    fn new(svm: &Svm, ram: GuestRam) -> Result<Self, Error> {
        let mut vcpu = svm.vcpu(ram, Options::default())?;
        let (registers, system) = world();
        vcpu.set_registers(&registers, &system)?;
        vcpu.prepare();
        // Nothing of a VMCB may be kept from one case to the next.
        vcpu.vmcb.set(fields::VMCB_CLEAN, 0);
        let good = PlainVmcb::copy(&vcpu.vmcb);
        Ok(Self { vcpu, good })
    }

    /// Changes the good VMCB as a case says, and asks the checker and the processor.
    fn attempt(&mut self, case: &Case) -> (Vec<Violation>, Code) {
        let vmcb = &mut self.vcpu.vmcb;
        for field in fields::all() {
            vmcb.write(field.offset, field.bytes, self.good.read(field.offset, field.bytes));
        }
        for (field, value) in &case.changes {
            vmcb.write(field.offset, field.bytes, *value);
        }
        let exit_code = fields::EXITCODE.any();
        vmcb.write(exit_code.offset, exit_code.bytes, NO_CODE);
        let violations = self.vcpu.check();
        let mut registers = Registers::default();
        // SAFETY: SVM is on, with a host save area, from which each exit takes the host's state (APM volume 2, section
        // 15.30.4), whatever the guest's is. Nested paging stays on with tables that map nothing: no case changes the
        // one, and of the pointer to the others only bits that are none of the address of memory. All interrupts of the
        // machine are masked, and they are off.
        unsafe { entry::enter(self.vcpu.vmcb.address(), self.vcpu.host.address(), &raw mut registers) };
        (violations, Code::of(self.vcpu.vmcb.get(fields::EXITCODE)))
    }
}

/// A guest in 64-bit mode, of which nothing is in memory.
fn world() -> (Registers, SystemRegisters) {
    let flat = |selector, access| Segment {
        selector,
        base: 0,
        limit: u32::MAX,
        access,
    };
    let system = SystemRegisters {
        cr0: 0x8001_0031,
        cr3: 0x1000,
        cr4: 0x20,
        efer: 0xd00,
        cs: flat(8, 0xa09b),
        ss: flat(16, 0xc093),
        ds: flat(16, 0xc093),
        es: flat(16, 0xc093),
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
    let registers = Registers {
        rip: 0x1_0000,
        rsp: 0x2_0000,
        rflags: 2,
        ..Registers::default()
    };
    (registers, system)
}
