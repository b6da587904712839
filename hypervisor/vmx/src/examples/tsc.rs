//! TSC offset and scaling (SDM volume 3C, sections 26.6.5 and 27.3, "RDTSC").
//!
//! ```text
//!   what the guest reads = (TSC * multiplier >> 48) + offset
//! ```
//!
//! The guest reads its counter, by RDTSC and then by RDMSR, which exits, while the hypervisor reads its own before and
//! behind that. What the guest reads lies between what these two come to.

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
    "mov esi, eax",
    "mov edi, edx",
    "mov ecx, 0x10", // IA32_TIME_STAMP_COUNTER
    "rdmsr",
    "mov ebx, eax",
    "mov ebp, edx",
    "mov eax, esi",
    "out 0x10, eax",
    "mov eax, edi",
    "out 0x11, eax",
    "mov eax, ebx",
    "out 0x12, eax",
    "mov eax, ebp",
    "out 0x13, eax",
    "jmp 2b",
}

/// What was read.
struct Read {
    /// The machine's counter, before the guest and behind it.
    machine: [u64; 2],
    /// The guest's, by RDTSC and by RDMSR.
    guest: [u64; 2],
}

impl Read {
    /// Has the guest read with this multiplier and offset.
    fn with(stage: &mut Stage<VmxVcpu>, multiplier: u64, offset: u64) -> Result<Self, Error> {
        stage.vcpu.set_tsc(multiplier, offset)?;
        // SAFETY: RDTSC (SDM volume 2B) changes two registers alone, and every processor with VMX has the counter.
        let now = || unsafe { _rdtsc() };
        let before = now();
        let mut words = [0; 4];
        for (word, from) in words.iter_mut().zip(0x10..) {
            *word = match stage.act()? {
                Did::Out(port, value) if port == from => u64::from(value),
                _ => return Ok(Self::NOTHING),
            };
        }
        let [low, high, msr_low, msr_high] = words;
        Ok(Self {
            machine: [before, now()],
            guest: [high << 32 | low, msr_high << 32 | msr_low],
        })
    }

    /// What lies between nothing.
    const NOTHING: Self = Self {
        machine: [1, 0],
        guest: [0, 0],
    };

    /// Whether the guest has read what it should have, one after the other.
    fn lies_between(&self, multiplier: u64, offset: u64) -> bool {
        let [from, to] = self.machine.map(|ticks| {
            let product = u128::from(ticks) * u128::from(multiplier);
            ((product >> 48) as u64).wrapping_add(offset)
        });
        let [first, second] = self.guest;
        from <= first && first < second && second <= to
    }
}

pub(super) fn run(vmx: &Vmx, memory: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
    let mut stage = stage(vmx, memory, program(), Options::default())?;
    let plain = Read::with(&mut stage, ONE, 0)?;
    let Read { machine, guest } = plain;
    say!(
        words,
        "without offset the guest reads the machine's counter: {guest:?}, and the machine is at {machine:?}"
    );

    let offset = 0_u64.wrapping_sub(machine[0]);
    let moved = Read::with(&mut stage, ONE, offset)?;
    say!(
        words,
        "with the offset -{} its time began just now: {:?}",
        machine[0],
        moved.guest
    );

    let good = plain.lies_between(ONE, 0) && moved.lies_between(ONE, offset);
    if vmx.capabilities().secondary.may & secondary::USE_TSC_SCALING == 0 {
        say!(
            words,
            "this processor has no TSC scaling, so the guest's time cannot be slowed"
        );
        return Ok(Verdict::of(good));
    }
    let slow = Read::with(&mut stage, ONE / 2, 0)?;
    let Read { machine, guest } = slow;
    say!(
        words,
        "with the multiplier 1/2 it reads {guest:?}, where the machine is at {machine:?}"
    );
    // Without it, it would have read more.
    let slowed = slow.lies_between(ONE / 2, 0) && guest[1] < machine[0];
    Ok(Verdict::of(good && slowed))
}
