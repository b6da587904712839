//! Floating-point registers of two guests that share a processor (SDM volume 1, section 13.4): each finds
//! its own when it goes on, and none of another's when it begins.
//!
//! Both run the same program in the same memory, one turn each. It takes a number from memory into a
//! register of each kind: SSE, the upper half of one of AVX, x87. The hypervisor writes another number
//! there for each.

use core::arch::x86_64::__cpuid_count;
use core::fmt::Write;

use chiton_shared::memory::GuestMemory;

use super::Verdict;
use super::stage::{Did, PAGES, Stage};
use crate::cpuid::GuestCpuid;
use crate::physical::GuestRam;
use crate::vcpu::Vcpu;
use crate::{program, say};

/// What each takes.
const NUMBERS: [u32; 2] = [0x1111_1111, 0x2222_2222];

const _: () = assert!(PAGES == 0x10_0000, "the program has the address in it");

program! {
    "chiton_fpu",
    "mov eax, cr4",
    "or eax, 0x40600", // OSFXSR, OSXMMEXCPT, OSXSAVE
    "mov cr4, eax",
    "movd eax, xmm0",
    "out 0x10, eax", // what is there at the beginning
    "movd xmm0, dword ptr [0x100000]",
    "vbroadcastss ymm1, dword ptr [0x100000]",
    "fild dword ptr [0x100000]",
    "out 0x11, eax", // the other's turn
    "movd eax, xmm0",
    "out 0x12, eax",
    "vextractf128 xmm2, ymm1, 1",
    "vmovd eax, xmm2",
    "out 0x12, eax",
    "fistp dword ptr [0x100004]",
    "mov eax, dword ptr [0x100004]",
    "out 0x12, eax",
    "hlt",
}

/// Runs two guests in turn, each on a processor that `new` makes of this memory.
///
/// # Errors
///
/// When the backend fails.
pub fn run<V: Vcpu>(
    new: impl Fn() -> Result<V, V::Error>,
    memory: GuestRam,
    words: &mut dyn Write,
) -> Result<Verdict, V::Error> {
    if !GuestCpuid::of(__cpuid_count).avx() {
        return Ok(Verdict::Skipped("this processor has no AVX"));
    }
    let staged = || Stage::new(new()?, memory, program());
    let mut guests = [staged()?, staged()?];
    let mut good = true;
    for (guest, number) in guests.iter_mut().zip(NUMBERS) {
        if let Some(window) = memory.window(PAGES, 4) {
            window.write(0, &number.to_le_bytes());
        }
        let begins = guest.act()?;
        good &= begins == Did::Out(0x10, 0) && matches!(guest.act()?, Did::Out(0x11, _));
        say!(words, "a guest begins with {begins:x?} in XMM0, and takes {number:#x}");
    }
    for (guest, number) in guests.iter_mut().zip(NUMBERS) {
        let found = [guest.act()?, guest.act()?, guest.act()?];
        good &= found == [Did::Out(0x12, number); 3];
        say!(
            words,
            "that with {number:#x} finds in XMM0, YMM1's upper half, ST0: {found:x?}"
        );
    }
    Ok(Verdict::of(good))
}
