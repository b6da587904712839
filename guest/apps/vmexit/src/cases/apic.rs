//! The local APIC: interrupts that a processor sends to itself, and its timer.
//!
//! The ten forms of vmexit.c: by the registers in memory (xAPIC) or by MSRs (x2APIC); taken with interrupts on
//! again at once (`sti_nop`), or by a halt (`sti_hlt`); held back by the task priority before (`tpr`), which CR8 is.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, _rdtsc};

use vmexit_cases::{Clock, Done, Meter};

use super::msr::{value_of, wrmsr};
use super::ports::seconds;
use super::{Case, try_once};
use crate::options::Options;
use crate::ring0::{self, VECTOR};

// SDM volume 3A, section 12.12: the registers by MSR; in memory they are at sixteen times the last two digits.
const APIC_BASE: u32 = 0x1b;
const SPURIOUS: u32 = 0x80f;
const ICR: u32 = 0x830;
const LVT_TIMER: u32 = 0x832;
const SELF_IPI: u32 = 0x83f;
const TSC_DEADLINE: u32 = 0x6e0;

/// Bits of IA32_APIC_BASE (SDM volume 3A, figure 12-26).
const ENABLED: u64 = 1 << 11;
const X2APIC: u64 = 1 << 10;
/// The spurious vector, and the bit that switches the APIC on.
const SOFTWARE_ENABLED: u32 = 0x1ff;
/// Fixed, edge-triggered, with the level that this takes, to the sender (SDM volume 3A, figure 12-12).
const TO_SELF: u32 = 1 << 18 | 1 << 14 | VECTOR as u32;
/// The task priority that holds [`VECTOR`] back.
const HIGH: u64 = 0xf;

/// How an interrupt is let in.
#[derive(Clone, Copy)]
enum Let {
    /// Interrupts are on; the task priority held it back.
    Priority,
    /// `sti` and one more instruction.
    Nop,
    /// `sti` and `hlt`.
    Halt,
}

/// What the timer is set to.
#[derive(Clone, Copy)]
enum Due {
    /// A time that has come.
    Now,
    /// One that comes soon, which the processor waits for awake.
    Soon,
    /// The same, which it waits for in a halt.
    Halted,
}

pub fn all<C: Clock>() -> [Case; 14] {
    [
        Case::ring0("self_ipi_sti_nop", |m, o| self_ipi::<C>(m, Some(o), false, Let::Nop)),
        Case::ring0("self_ipi_sti_hlt", |m, o| self_ipi::<C>(m, Some(o), false, Let::Halt)),
        Case::ring0("self_ipi_tpr", |m, o| self_ipi::<C>(m, Some(o), true, Let::Priority)),
        Case::ring0("self_ipi_tpr_sti_nop", |m, o| self_ipi::<C>(m, Some(o), true, Let::Nop)),
        Case::ring0("self_ipi_tpr_sti_hlt", |m, o| {
            self_ipi::<C>(m, Some(o), true, Let::Halt)
        }),
        Case::ring0("x2apic_self_ipi_sti_nop", |m, _| {
            self_ipi::<C>(m, None, false, Let::Nop)
        }),
        Case::ring0("x2apic_self_ipi_sti_hlt", |m, _| {
            self_ipi::<C>(m, None, false, Let::Halt)
        }),
        Case::ring0("x2apic_self_ipi_tpr", |m, _| {
            self_ipi::<C>(m, None, true, Let::Priority)
        }),
        Case::ring0("x2apic_self_ipi_tpr_sti_nop", |m, _| {
            self_ipi::<C>(m, None, true, Let::Nop)
        }),
        Case::ring0("x2apic_self_ipi_tpr_sti_hlt", |m, _| {
            self_ipi::<C>(m, None, true, Let::Halt)
        }),
        Case::ring0("tscdeadline_immed", |m, _| deadline::<C>(m, Due::Now)),
        Case::ring0("tscdeadline", |m, _| deadline::<C>(m, Due::Soon)),
        Case::ring0("hlt_wake", |m, _| deadline::<C>(m, Due::Halted)),
        Case::ring0("irqfd_injection", |m, _| injection::<C>(m)),
    ]
}

/// Sends one to itself; with `memory` by the registers there. A sample ends when the handler has run.
fn self_ipi<C: Clock>(meter: &mut Meter<'_>, memory: Option<&Options>, priority: bool, way: Let) -> Done {
    let registers = match memory {
        Some(Options { apic: 0, .. }) => return Err("the host of this machine maps no registers of a local APIC"),
        Some(options) => Some(options.apic),
        None => None,
    };
    switch_on(registers)?;
    let send = || match registers {
        // SAFETY: the host has said that the registers are there.
        Some(registers) => unsafe { ((registers + 0x300) as *mut u32).write_volatile(TO_SELF) },
        None => wrmsr(SELF_IPI, VECTOR.into()),
    };
    let mut lost = false;
    meter.at_most(2000, 50);
    meter.each::<C>(|| {
        let before = ring0::interrupts();
        if let Let::Priority = way {
            // SAFETY: the table has a handler; nothing else may come.
            unsafe { asm!("sti", options(nostack)) };
        }
        if priority {
            set_priority(HIGH);
        }
        send();
        if priority {
            set_priority(0);
        }
        // SAFETY: as above.
        unsafe {
            match way {
                Let::Priority => asm!("nop", "cli", options(nostack)),
                Let::Nop => asm!("sti", "nop", "cli", options(nostack)),
                Let::Halt => asm!("sti", "hlt", "cli", options(nostack)),
            }
        }
        lost |= ring0::interrupts() == before;
    })?;
    if lost {
        return Err("an interrupt that the processor sent to itself did not come at once");
    }
    Ok(())
}

/// The timer, set to a time that has come already, or to one that has not: then a sample is how much too late the
/// handler ran.
fn deadline<C: Clock>(meter: &mut Meter<'_>, way: Due) -> Done {
    if __cpuid(1).ecx >> 24 & 1 == 0 {
        return Err("this processor's CPUID has no TSC-deadline timer");
    }
    switch_on(None)?;
    try_once("a timer in deadline mode", || {
        wrmsr(LVT_TIMER, 0b10 << 17 | u64::from(VECTOR));
    })?;
    meter.at_most(if matches!(way, Due::Now) { 2000 } else { 500 }, 20);
    // Twenty microseconds: longer than setting it takes anywhere.
    let ahead = seconds(1) / 50_000;
    meter.record::<C>(|| {
        let before = ring0::interrupts();
        let begin = C::now();
        let due = if matches!(way, Due::Now) { begin } else { begin + ahead };
        wrmsr(TSC_DEADLINE, due);
        wait_for(before, matches!(way, Due::Halted))?;
        let end = if matches!(way, Due::Now) {
            C::now()
        } else {
            ring0::last_stamp()
        };
        Ok(end.saturating_sub(due))
    })
}

/// From an exit, on the way out of which the host raises an interrupt by an eventfd, to its handler.
fn injection<C: Clock>(meter: &mut Meter<'_>) -> Done {
    use chiton_guest::host;
    use chiton_guest::shared::measure::place;
    switch_on(None)?;
    meter.at_most(1000, 20);
    meter.record::<C>(|| {
        let before = ring0::interrupts();
        let begin = C::now();
        host::ring(place::port(place::INTERRUPT), 0);
        wait_for(before, false)?;
        Ok(ring0::last_stamp().saturating_sub(begin))
    })
}

/// Waits with interrupts on until one more has come, or with the processor halted.
fn wait_for(before: u64, halted: bool) -> Done {
    // SAFETY: it reads a counter.
    let limit = unsafe { _rdtsc() } + seconds(1);
    while ring0::interrupts() == before {
        // SAFETY: the table has a handler; nothing else may come.
        unsafe {
            if halted {
                asm!("sti", "hlt", "cli", options(nostack));
            } else {
                asm!("sti", "nop", "cli", options(nostack));
            }
        }
        // SAFETY: as above.
        if unsafe { _rdtsc() } > limit {
            return Err("the interrupt did not come within a second");
        }
    }
    Ok(())
}

/// Switches the local APIC on: in x2APIC mode, or with its registers in memory there.
pub fn switch_on(registers: Option<u64>) -> Done {
    let identity = __cpuid(1);
    if identity.edx >> 9 & 1 == 0 {
        return Err("this machine's guest has no local APIC (CPUID.1:EDX[9])");
    }
    if registers.is_none() && identity.ecx >> 21 & 1 == 0 {
        return Err("this processor's CPUID has no x2APIC");
    }
    ring0::end_interrupts_at(registers.unwrap_or(0));
    try_once("IA32_APIC_BASE", || {
        let off = value_of(APIC_BASE) & !(ENABLED | X2APIC);
        // Between the modes it has to be off (SDM volume 3A, section 12.12.5).
        wrmsr(APIC_BASE, off);
        wrmsr(APIC_BASE, off | ENABLED);
        if registers.is_none() {
            wrmsr(APIC_BASE, off | ENABLED | X2APIC);
        }
    })?;
    match registers {
        // SAFETY: the host has said that the registers are there.
        Some(registers) => unsafe { ((registers + 0xf0) as *mut u32).write_volatile(SOFTWARE_ENABLED) },
        None => wrmsr(SPURIOUS, SOFTWARE_ENABLED.into()),
    }
    set_priority(0);
    Ok(())
}

/// Interrupts the processor with this number.
pub fn interrupt(processor: u32) {
    wrmsr(ICR, u64::from(processor) << 32 | 1 << 14 | u64::from(VECTOR));
}

/// The task priority: interrupts of this class and below are held back (SDM volume 3A, section 12.8.6).
fn set_priority(class: u64) {
    // SAFETY: it is put back to 0.
    unsafe { asm!("mov cr8, {}", in(reg) class, options(nostack)) };
}
