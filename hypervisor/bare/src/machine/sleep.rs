//! A processor that waits sleeps: `hlt`, which an interrupt of another processor ends, or the timer of its own local
//! APIC.
//!
//! SVM has its time slices by that timer. Where one is under way it gets the timer back behind the sleep: with what is
//! left of its time, and at once if that is over.

use core::sync::atomic::{AtomicU64, Ordering};

use chiton_core::local_apic::{LocalApic, Register};
use spin::Once;
use x86_64::instructions::interrupts;

use super::fault::{ALARM, SPURIOUS};
use super::memory::Memory;
use super::time;

/// The timer counts each tick of its clock.
const DIVIDE_BY_ONE: u32 = 0b1011;
/// Of an entry of the local vector table: no interrupt.
const MASKED: u32 = 1 << 16;
/// For how many ticks of the time-stamp counter the two clocks are compared.
const COMPARED: u64 = 1 << 16;
/// How many milliseconds a processor stays awake after a byte has come by a serial line: more of them follow, and an
/// emulator keeps none for later.
const AFTER_BYTE: u64 = 1;

/// The local APIC of whoever asks: on every processor the registers are at the same place.
static APIC: Once<LocalApic> = Once::new();
/// Ticks of the timer in [`COMPARED`] ticks of the time-stamp counter.
static RATE: AtomicU64 = AtomicU64::new(0);
/// Until when nobody sleeps, in ticks of the time-stamp counter.
static AWAKE: AtomicU64 = AtomicU64::new(0);

/// Switches the APIC of the processor that calls this on: each has to, once. The first also finds out how fast timers
/// count; its own is not under way yet.
pub(super) fn switch_on(memory: &Memory) -> &'static LocalApic {
    let apic = LocalApic::switch_on(memory, SPURIOUS);
    APIC.call_once(|| {
        RATE.store(rate(&apic), Ordering::Relaxed);
        apic
    })
}

/// Ticks of the timer in [`COMPARED`] ticks of the time-stamp counter, or so.
fn rate(apic: &LocalApic) -> u64 {
    let entry = apic.read(Register::Timer);
    apic.write(Register::Timer, MASKED | u32::from(ALARM));
    apic.write(Register::Divide, DIVIDE_BY_ONE);
    apic.write(Register::InitialCount, u32::MAX);
    let start = time::ticks();
    while time::ticks() - start < COMPARED {
        core::hint::spin_loop();
    }
    let counted = u64::from(u32::MAX - apic.read(Register::CurrentCount));
    // Whoever is below us may have let more time pass.
    let passed = time::ticks() - start;
    apic.write(Register::InitialCount, 0);
    apic.write(Register::Timer, entry);
    counted * COMPARED / passed
}

/// So many ticks of the time-stamp counter in ticks of the timer: one at least, as zero would stop it.
fn count(ticks: u64) -> u32 {
    let count = u128::from(ticks) * u128::from(RATE.load(Ordering::Relaxed)) / u128::from(COMPARED);
    count.clamp(1, u32::MAX.into()) as u32
}

/// A byte has come by a serial line.
pub(super) fn heard_byte() {
    let until = time::ticks().saturating_add(time::tsc_khz() * AFTER_BYTE);
    AWAKE.store(until, Ordering::Relaxed);
}

/// Sleeps until this processor is told to [look up](super::smp::Team::look_up). Interrupts are off, so that one
/// which came since the caller has looked is taken behind `hlt`, and ends it.
pub(super) fn doze() {
    interrupts::enable_and_hlt();
    interrupts::disable();
    if let Some(apic) = APIC.get() {
        apic.end_of_interrupt();
    }
}

/// The same, but until a time at the latest, in ticks of the time-stamp counter. It may be sooner; and where there is
/// no timer, or the next byte may come on a serial line, the processor does not sleep at all.
pub(super) fn doze_until(time: u64) {
    let now = time::ticks();
    let may_sleep = now < time && now >= AWAKE.load(Ordering::Relaxed) && RATE.load(Ordering::Relaxed) != 0;
    let Some(apic) = APIC.get().filter(|_| may_sleep) else {
        core::hint::spin_loop();
        return;
    };
    let count_to_time = count(time - now);
    let (entry, left) = (apic.read(Register::Timer), apic.read(Register::CurrentCount));
    if left != 0 && left <= count_to_time && entry & MASKED == 0 {
        // What is under way comes before, and is taken with its own vector.
        return doze();
    }
    apic.write(Register::Divide, DIVIDE_BY_ONE);
    apic.write(Register::Timer, ALARM.into());
    apic.write(Register::InitialCount, count_to_time);
    doze();
    let passed = count(time::ticks() - now);
    apic.write(Register::Timer, entry);
    apic.write(
        Register::InitialCount,
        if left == 0 {
            0
        } else {
            left.saturating_sub(passed).max(1)
        },
    );
}
