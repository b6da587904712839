//! NMIs of the guest's own (SDM volume 3A, section 7.7.1): one that comes while another is handled waits
//! for the handler's `iret`, and the flag that holds interrupts back holds back none.
//!
//! ```text
//!   ICR: NMI to itself ─▶ handler ── ICR: NMI to itself ── waits ── iret ─▶ handler ── iret ─▶ hlt
//! ```

use core::fmt::Write;

use super::Verdict;
use super::stage::{Did, PAGES, Stage};
use crate::physical::GuestRam;
use crate::vcpu::Vcpu;
use crate::{program, say};

/// The vector of NMIs.
const NMI: u8 = 2;
/// Where the handler begins in the program.
const HANDLER: u64 = 0x40;

const _: () = assert!(PAGES == 0x10_0000, "the program has the address in it");

program! {
    "chiton_nmi",
    "mov dword ptr [0x100000], 0",
    "xor edx, edx",
    "mov eax, 0x400", // NMI, to processor 0
    "mov ecx, 0x830",
    "wrmsr",
    "3:",
    "cmp dword ptr [0x100000], 2",
    "jne 3b",
    "mov eax, 0x33",
    "out 0x10, eax",
    "hlt",
    ".balign 0x40, 0x90",
    "inc dword ptr [0x100000]", // the handler
    "mov eax, dword ptr [0x100000]",
    "out 0x10, eax",
    "cmp eax, 1",
    "jne 2f",
    "mov eax, 0x400",
    "wrmsr",
    "mov eax, 0x11",
    "out 0x10, eax", // the second has not come
    "2:",
    "iretd",
}

const EXPECTED: [Did; 5] = [
    Did::Out(0x10, 1),
    Did::Out(0x10, 0x11),
    Did::Out(0x10, 2),
    Did::Out(0x10, 0x33),
    Did::Halt,
];

/// Runs a guest on a processor of this memory that has an APIC.
///
/// # Errors
///
/// When the backend fails.
pub fn run<V: Vcpu>(vcpu: V, ram: GuestRam, words: &mut dyn Write) -> Result<Verdict, V::Error> {
    let mut stage = Stage::new(vcpu, ram, program())?;
    stage.set_gate(NMI, HANDLER);
    let mut found = [Did::Failed; EXPECTED.len()];
    for did in &mut found {
        *did = stage.act()?;
    }
    say!(words, "with interrupts off the guest sends itself two NMIs: {found:x?}");
    Ok(Verdict::of(found == EXPECTED))
}
