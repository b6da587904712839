//! Time: the time-stamp counter, measured once, and the date of the PC's clock.

use core::arch::x86_64::{__cpuid, _rdtsc};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use chiton_bare::calendar::Reading;
use chiton_bare::frequency;
use spin::Once;
use x86_64::instructions::port::Port;

/// The 8254's clock, in Hz.
const PIT_HZ: u64 = 1_193_182;
/// How long the measurement takes, in ticks of that clock: 10 ms.
const MEASURED: u16 = 11_932;
/// After how many ticks of the time-stamp counter the 8254 is taken for absent: a second or so. Newer machines switch its
/// clock off, and there each look at a port takes a microsecond.
const PATIENCE: u64 = 1 << 32;

/// The time-stamp counter when the hypervisor began, behind the sum of its own file.
static BEGAN: AtomicU64 = AtomicU64::new(0);
/// The same when the first guest was about to be entered; 0 before.
static GUEST_BEGAN: AtomicU64 = AtomicU64::new(0);

/// Frequency of the time-stamp counter, in kHz.
static TSC_KHZ: Once<u64> = Once::new();

/// The machine has no clock that the time-stamp counter could be measured against.
#[derive(Debug, thiserror::Error)]
#[error(
    "this machine tells no frequency of its time-stamp counter: no 8254 timer answers, CPUID leaf 0x15 is empty, and the date stands still"
)]
pub(super) struct NoClock;

/// The time-stamp counter.
pub(super) fn ticks() -> u64 {
    // SAFETY: RDTSC (SDM volume 2B; APM volume 3) changes two registers alone, and every processor with VMX or SVM has
    // the counter.
    unsafe { _rdtsc() }
}

/// Notes that the hypervisor begins.
pub(super) fn note_begin() {
    BEGAN.store(ticks(), Ordering::Relaxed);
}

/// Notes that a guest is about to be entered.
pub(super) fn note_guest() {
    let _ = GUEST_BEGAN.compare_exchange(0, ticks(), Ordering::Relaxed, Ordering::Relaxed);
}

/// Whether a guest has been.
pub(super) fn guest_began() -> bool {
    GUEST_BEGAN.load(Ordering::Relaxed) != 0
}

/// Ticks since the hypervisor began, and since the first guest did; 0 if none has.
pub(super) fn passed() -> [u64; 2] {
    [&BEGAN, &GUEST_BEGAN].map(|from| match from.load(Ordering::Relaxed) {
        0 => 0,
        from => ticks().saturating_sub(from),
    })
}

/// Finds out how fast the time-stamp counter is. A machine is asked first, and measured if it does not tell; an emulator
/// is measured first, since it tells what the processor has that it shows.
///
/// # Errors
///
/// If there is nothing to measure it by.
pub(super) fn init(emulated: bool) -> Result<(), NoClock> {
    let khz = if emulated {
        measured().or_else(told)
    } else {
        told().or_else(measured)
    };
    let khz = khz.or_else(by_seconds).ok_or(NoClock)?;
    TSC_KHZ.call_once(|| khz);
    Ok(())
}

/// The counter's frequency, in kHz.
pub(super) fn tsc_khz() -> u64 {
    TSC_KHZ.get().copied().unwrap_or(1)
}

/// Nanoseconds since the machine was switched on, or so.
pub(super) fn now_ns() -> u64 {
    let ns = u128::from(ticks()) * 1_000_000 / u128::from(tsc_khz());
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// So long in ticks of the counter.
pub(super) fn in_ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() * u128::from(tsc_khz()) / 1_000_000).unwrap_or(u64::MAX)
}

/// Lets so much time pass.
pub(super) fn sleep(time: Duration) {
    let until = ticks().saturating_add(in_ticks(time));
    while ticks() < until {
        core::hint::spin_loop();
    }
}

/// By channel 2 of the 8254, whose output can be read and which interrupts nobody.
fn measured() -> Option<u64> {
    let (mut control, mut mode, mut count) = (Port::<u8>::new(0x61), Port::<u8>::new(0x43), Port::<u8>::new(0x42));
    let [low, high] = MEASURED.to_le_bytes();
    // SAFETY: IN and OUT (SDM volumes 2A and 2B; APM volume 3) touch no memory; nobody else uses the ports of the
    // timer, and the speaker stays off.
    unsafe {
        let gate = control.read() & !0b11;
        control.write(gate);
        // Channel 2, both bytes, mode 0: the output rises when the count is over.
        mode.write(0b1011_0000);
        count.write(low);
        count.write(high);
        let start = ticks();
        control.write(gate | 1);
        let mut over = false;
        while !over && ticks() - start < PATIENCE {
            over = control.read() & 1 << 5 != 0;
        }
        let taken = ticks() - start;
        control.write(gate);
        over.then(|| frequency::measured(taken, MEASURED.into(), PIT_HZ))?
    }
}

/// By a second of the PC's clock, which takes two of them.
fn by_seconds() -> Option<u64> {
    let next_second = || {
        let (began, from) = (ticks(), register(SECONDS));
        while register(SECONDS) == from {
            if ticks() - began > 4 * PATIENCE {
                return None;
            }
        }
        Some(ticks())
    };
    let start = next_second()?;
    frequency::measured(next_second()? - start, 1, 1)
}

/// By CPUID leaf 0x15.
fn told() -> Option<u64> {
    const LEAF: u32 = 0x15;
    if __cpuid(0).eax < LEAF {
        return None;
    }
    let leaf = __cpuid(LEAF);
    frequency::told([leaf.eax, leaf.ebx, leaf.ecx])
}

/// The time, in seconds since 1970 and nanoseconds: by the PC's clock when this was asked first, then by the counter.
pub(super) fn date() -> [u64; 2] {
    static SWITCHED_ON: Once<u64> = Once::new();
    let on = SWITCHED_ON.call_once(|| wall_clock_ns().saturating_sub(now_ns()));
    let now = on.saturating_add(now_ns());
    [now / 1_000_000_000, now % 1_000_000_000]
}

/// Nanoseconds since 1970, by the PC's clock, which is taken to show UTC; 0 if it shows no date.
pub(super) fn wall_clock_ns() -> u64 {
    // The clock may go on between two registers: what was read twice alike is right.
    let mut last = reading();
    for _ in 0..1000 {
        let next = reading();
        if next == last {
            break;
        }
        last = next;
    }
    last.unix().unwrap_or(0).saturating_mul(1_000_000_000)
}

/// Where the clock has the seconds.
const SECONDS: u8 = 0;

/// A register of the clock.
fn register(number: u8) -> u8 {
    // SAFETY: IN and OUT (SDM volumes 2A and 2B; APM volume 3) touch no memory of this program. These ports are
    // index and data of the clock's memory; reading changes nothing. Bit 7 keeps the NMI as it is on a PC after its
    // start: enabled.
    unsafe {
        Port::new(0x70).write(number);
        Port::new(0x71).read()
    }
}

fn reading() -> Reading {
    Reading {
        seconds: register(SECONDS),
        minutes: register(2),
        hours: register(4),
        day: register(7),
        month: register(8),
        year: register(9),
        format: register(0xb),
    }
}
