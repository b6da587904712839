//! TSC offset and scaling (SDM volume 3C, sections 26.6.5 and 27.3, "RDTSC").
//!
//! ```text
//!   what the guest reads = (TSC * multiplier >> 48) + offset
//! ```
//!
//! The guest reads its counter, waits for what it takes the hypervisor to note its own, and reads it
//! again. With half the speed, its difference is half of the machine's.

use core::arch::x86_64::_rdtsc;
use core::fmt::Write;

use chiton_core::examples::Verdict;
use chiton_core::examples::stage::{Did, Stage};
use chiton_core::physical::GuestRam;
use chiton_core::vmx::controls::secondary;
use chiton_core::{program, say};

use super::stage;
use crate::{Error, Options, Vmx, VmxVcpu};

/// The multiplier that changes nothing: 1, with 48 bits behind the point.
const ONE: u64 = 1 << 48;

program! {
    "chiton_tsc",
    "2:",
    "rdtsc",
    "out 0x10, eax",
    "mov eax, edx",
    "out 0x11, eax",
    "jmp 2b",
}

pub(super) fn run(vmx: &Vmx, memory: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
    let mut stage = stage(vmx, memory, program(), Options::default())?;
    let read = |stage: &mut Stage<VmxVcpu>| -> Result<(u64, u64), Error> {
        // SAFETY: every processor with VMX has the counter.
        let host = unsafe { _rdtsc() };
        let (Did::Out(0x10, low), Did::Out(0x11, high)) = (stage.go()?, stage.go()?) else {
            return Ok((0, 0));
        };
        Ok((host, u64::from(high) << 32 | u64::from(low)))
    };

    stage.vcpu.set_tsc(ONE, 0)?;
    let (host, guest) = read(&mut stage)?;
    let same = guest >= host && guest - host < 1 << 32;
    say!(
        words,
        "without offset the guest reads the machine's counter: {guest}, a little more than {host}"
    );

    let offset = 0_u64.wrapping_sub(host);
    stage.vcpu.set_tsc(ONE, offset)?;
    let (_, moved) = read(&mut stage)?;
    let began = moved < 1 << 32;
    say!(words, "with the offset -{host} its time began just now: {moved}");

    if vmx.capabilities().secondary.may & secondary::USE_TSC_SCALING == 0 {
        say!(
            words,
            "this processor has no TSC scaling, so the guest's time cannot be slowed"
        );
        return Ok(Verdict::of(same && began));
    }
    stage.vcpu.set_tsc(ONE / 2, 0)?;
    let (host, half) = read(&mut stage)?;
    let slow = half >= host / 2 && half - host / 2 < 1 << 32;
    say!(
        words,
        "with the multiplier 1/2 it reads {half}, where the machine is at {host}"
    );
    Ok(Verdict::of(same && began && slow))
}
