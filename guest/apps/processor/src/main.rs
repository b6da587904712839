//! Does what only ring 0 may, and says what comes of it: the same on every hypervisor of this project.
//!
//! Each line is an instruction and its outcome: the exception it met, or what can be seen of it. The
//! guest has an interrupt descriptor table of its own, whose handlers note the exception and go on
//! behind the instruction. Its exit code is the number of outcomes that are not as they have to be;
//! `processor halt` ends with `hlt` instead, `processor shutdown` with a triple fault, `processor nowhere` with page tables
//! where no memory is.
//!
//! It runs in ring 0, so it needs a hardware KVM or a machine without an operating system.
#![no_std]
#![no_main]

mod exceptions;
mod memory;
mod registers;

use chiton_guest::{ExitCode, console, env, println};

use exceptions::{Outcome, attempt};

chiton_guest::entry!(main, ring = 0);

/// Counts the outcomes that are not as they have to be.
pub struct Checks {
    wrong: u8,
}

impl Checks {
    /// Says an outcome, and what it should have been if it is another.
    pub fn outcome(&mut self, what: &str, is: Outcome, should_be: Outcome) {
        if is == should_be {
            println!("{what}: {is}");
        } else {
            self.wrong += 1;
            println!("{what}: {is}, and not {should_be}");
        }
    }

    /// Says whether something is so.
    pub fn holds(&mut self, what: &str, holds: bool) {
        self.wrong += u8::from(!holds);
        println!("{what}: {}", if holds { "yes" } else { "no" });
    }
}

fn main() -> ExitCode {
    let mut checks = Checks { wrong: 0 };
    exceptions::take_over();
    instructions(&mut checks);
    registers::all(&mut checks);
    memory::all(&mut checks);
    if let Some(end) = env::args().nth(1) {
        if console::flush().is_err() {
            return ExitCode::FAILURE;
        }
        match end {
            // SAFETY: there is nothing left to do.
            "halt" => unsafe { core::arch::asm!("hlt", options(nomem, nostack)) },
            "shutdown" => exceptions::shut_down(),
            // SAFETY: there is nothing left to do, and no next instruction is found.
            "nowhere" => unsafe { core::arch::asm!("mov cr3, {}", in(reg) 1_u64 << 32, options(nostack)) },
            _ => return ExitCode::from(2_u8),
        }
    }
    ExitCode::from(checks.wrong)
}

/// Instructions that a guest here does not have, or that do nothing it could see.
fn instructions(checks: &mut Checks) {
    use Outcome::{Breakpoint, Done, GeneralProtection, Undefined};
    checks.outcome("ud2", attempt!("ud2"), Undefined);
    checks.outcome("int3", attempt!("int3"), Breakpoint);
    checks.outcome("vmcall", attempt!("vmcall"), Undefined);
    checks.outcome("vmmcall", attempt!("vmmcall"), Undefined);
    checks.outcome("vmrun", attempt!("vmrun rax", in("rax") 0_u64), Undefined);
    checks.outcome("vmload", attempt!("vmload rax", in("rax") 0_u64), Undefined);
    checks.outcome("stgi", attempt!("stgi"), Undefined);
    checks.outcome("clgi", attempt!("clgi"), Undefined);
    checks.outcome("invlpga", attempt!("invlpga rax, ecx"), Undefined);
    // Extensions and hints that are not there would be a #GP of their own.
    checks.outcome(
        "monitor",
        attempt!("monitor", in("rax") 0_u64, in("ecx") 0, in("edx") 0),
        Undefined,
    );
    checks.outcome("mwait", attempt!("mwait", in("eax") 0, in("ecx") 0), Undefined);
    checks.outcome("rsm", attempt!("rsm"), Undefined);
    checks.outcome(
        "rdpmc",
        attempt!("rdpmc", in("ecx") 0, out("eax") _, out("edx") _),
        GeneralProtection,
    );
    checks.outcome("wbinvd", attempt!("wbinvd"), Done);
    checks.outcome("invd", attempt!("invd"), Done);
    checks.outcome("invlpg", attempt!("invlpg [rsp]"), Done);
    checks.outcome(
        "a load from no canonical address",
        attempt!("mov rax, [rax]", inout("rax") 1_u64 << 63 => _),
        GeneralProtection,
    );
    // The trap of a single step comes behind an instruction, whether the processor or the
    // hypervisor has carried it out.
    for (what, seen) in [
        ("nop", exceptions::single_step_nop()),
        ("cpuid", exceptions::single_step_cpuid()),
    ] {
        println!("a single step over {what}: {} instruction", seen);
        checks.wrong += u8::from(seen != 1);
    }
}
