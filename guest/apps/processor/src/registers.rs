//! Control, debug and model-specific registers, and what `cpuid` says.

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;

use crate::Checks;
use crate::exceptions::{Outcome, attempt};

/// EFER (SDM volume 4, table 2-2).
const EFER: u32 = 0xc000_0080;
const PAT: u32 = 0x277;
const LSTAR: u32 = 0xc000_0082;
const KERNEL_GS_BASE: u32 = 0xc000_0102;

/// A register that no guest here has: the machine-check status of bank 0.
const MISSING: u32 = 0x401;

pub fn all(checks: &mut Checks) {
    identity(checks);
    control(checks);
    debug(checks);
    model_specific(checks);
}

fn identity(checks: &mut Checks) {
    checks.holds(
        "cpuid says that a hypervisor is there",
        __cpuid_count(1, 0).ecx >> 31 == 1,
    );
    checks.holds("cpuid has no VMX", __cpuid_count(1, 0).ecx >> 5 & 1 == 0);
    checks.holds("cpuid has no SVM", __cpuid_count(0x8000_0001, 0).ecx >> 2 & 1 == 0);
    let far = __cpuid_count(0x4000_0000, 0);
    checks.holds(
        "cpuid has no leaf of a hypervisor",
        far.eax | far.ebx | far.ecx | far.edx == 0,
    );
}

fn control(checks: &mut Checks) {
    let (cr0, cr4): (u64, u64);
    // SAFETY: they are read.
    unsafe { asm!("mov {}, cr0", "mov {}, cr4", out(reg) cr0, out(reg) cr4, options(nomem, nostack)) };
    checks.holds("CR0 is as the host has built it", cr0 == 0x8001_0033);
    checks.holds("CR4 has neither VMXE nor SMXE", cr4 >> 13 & 0b11 == 0);
    checks.outcome(
        "writing CR0 as it is",
        attempt!("mov cr0, {v}", v = in(reg) cr0),
        Outcome::Done,
    );
    checks.outcome(
        "writing CR4 as it is",
        attempt!("mov cr4, {v}", v = in(reg) cr4),
        Outcome::Done,
    );
    checks.outcome("clts", attempt!("clts"), Outcome::Done);
    refused_values(checks, cr0, cr4);
    features(checks, cr4);
    let cr8: u64;
    // SAFETY: no interrupt is waited for; it is put back.
    unsafe {
        asm!("mov cr8, {}", "mov {}, cr8", "mov cr8, {}", in(reg) 5_u64, out(reg) cr8, in(reg) 0_u64, options(nomem, nostack))
    };
    checks.holds("CR8 holds what is written", cr8 == 5);
}

/// What CR0 and CR4 do not take.
fn refused_values(checks: &mut Checks, cr0: u64, cr4: u64) {
    for (what, value) in [
        ("CR0.PG without PE", cr0 & !1),
        ("CR0 without PG, in 64-bit mode", cr0 & !(1 << 31)),
        ("CR0.NW without CD", cr0 | 1 << 29),
    ] {
        checks.outcome(
            what,
            attempt!("mov cr0, {v}", v = in(reg) value),
            Outcome::GeneralProtection,
        );
    }
    for (what, value) in [
        ("CR4 without PAE", cr4 & !(1 << 5)),
        ("CR4.VMXE", cr4 | 1 << 13),
        ("CR4.SMXE", cr4 | 1 << 14),
        ("CR4.PCIDE", cr4 | 1 << 17),
        ("CR4.PKE", cr4 | 1 << 22),
        ("CR4.CET", cr4 | 1 << 23),
        ("a bit of CR4 beyond 32", cr4 | 1 << 40),
    ] {
        checks.outcome(
            what,
            attempt!("mov cr4, {v}", v = in(reg) value),
            Outcome::GeneralProtection,
        );
    }
    let (now0, now4): (u64, u64);
    // SAFETY: they are read.
    unsafe { asm!("mov {}, cr0", "mov {}, cr4", out(reg) now0, out(reg) now4, options(nomem, nostack)) };
    checks.holds("neither has changed", (now0, now4) == (cr0, cr4));
}

/// What they do take.
fn features(checks: &mut Checks, cr4: u64) {
    // TSD, PGE, MCE: the last is set for real all the time, on bare metal.
    for (what, bit) in [("CR4.TSD", 2), ("CR4.MCE", 6), ("CR4.PGE", 7)] {
        let (set, cleared): (u64, u64);
        // SAFETY: nobody reads the time-stamp counter in ring 3 meanwhile; the bits are put back.
        unsafe {
            asm!(
                "mov cr4, {set_to}", "mov {set}, cr4", "mov cr4, {old}", "mov {cleared}, cr4",
                set_to = in(reg) cr4 | 1 << bit, old = in(reg) cr4 & !(1 << bit), set = out(reg) set, cleared = out(reg) cleared,
                options(nomem, nostack)
            );
        }
        checks.holds(what, set == cr4 | 1 << bit && cleared == cr4 & !(1 << bit));
    }
    let machine_status: u64;
    // SAFETY: MP and TS are as they were, NE and EM are not touched.
    unsafe { asm!("smsw {s}", "lmsw {s:x}", s = out(reg) machine_status, options(nomem, nostack)) };
    checks.holds("LMSW takes what SMSW gives", machine_status & 1 == 1);
}

fn debug(checks: &mut Checks) {
    let (dr0, dr3): (u64, u64);
    // SAFETY: no breakpoint is switched on.
    unsafe {
        asm!("mov dr0, {}", "mov dr3, {}", in(reg) 0x1234_u64, in(reg) 0x5678_u64, options(nomem, nostack));
        asm!("mov {}, dr0", "mov {}, dr3", out(reg) dr0, out(reg) dr3, options(nomem, nostack));
    }
    checks.holds("debug registers hold what is written", (dr0, dr3) == (0x1234, 0x5678));
}

fn model_specific(checks: &mut Checks) {
    let efer = read(EFER);
    checks.holds("EFER is LME, LMA and NXE", efer == 0xd00);
    checks.outcome("writing EFER as it is", write(EFER, efer), Outcome::Done);
    checks.outcome("EFER.SVME", write(EFER, efer | 1 << 12), Outcome::GeneralProtection);
    checks.outcome(
        "EFER without LME",
        write(EFER, efer & !(1 << 8)),
        Outcome::GeneralProtection,
    );
    checks.outcome("EFER.SCE", write(EFER, efer | 1), Outcome::Done);
    checks.holds("EFER.SCE is there", read(EFER) == efer | 1);
    checks.holds("PAT is as after a reset", read(PAT) == 0x0007_0406_0007_0406);
    checks.outcome(
        "a reserved type in PAT",
        write(PAT, 0x0207_0406_0007_0406),
        Outcome::GeneralProtection,
    );
    for (name, register) in [("LSTAR", LSTAR), ("KernelGsBase", KERNEL_GS_BASE)] {
        checks.outcome(name, write(register, 0xffff_8000_1234_5678), Outcome::Done);
        checks.holds("it holds what is written", read(register) == 0xffff_8000_1234_5678);
    }
    checks.outcome(
        "reading a register that is not there",
        try_read(MISSING),
        Outcome::GeneralProtection,
    );
    checks.outcome("writing it", write(MISSING, 0), Outcome::GeneralProtection);
    checks.outcome("reading VM_HSAVE_PA", try_read(0xc001_0117), Outcome::GeneralProtection);
    checks.outcome("reading IA32_VMX_BASIC", try_read(0x480), Outcome::GeneralProtection);
}

fn read(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the registers that are read so are there.
    unsafe { asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

fn try_read(register: u32) -> Outcome {
    attempt!("rdmsr", in("ecx") register, out("eax") _, out("edx") _)
}

fn write(register: u32, value: u64) -> Outcome {
    attempt!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32)
}
