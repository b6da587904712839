//! The timer of a guest's local APIC as it counts (SDM volume 3A, section 12.5.4): once, and again and
//! again.
//!
//! ```text
//!   one-shot: initial count ─▶ handler, one interrupt; the count is 0
//!   periodic: initial count ─▶ handler ─▶ handler ─▶ handler; stopped by a count of 0
//! ```

use core::fmt::Write;

use super::Verdict;
use super::stage::{Did, PAGES, Stage};
use crate::physical::GuestRam;
use crate::vcpu::Vcpu;
use crate::{program, say};

/// The vector of the timer.
const VECTOR: u8 = 0x44;
/// Where the handler begins in the program.
const HANDLER: u64 = 0x100;

const _: () = assert!(PAGES == 0x10_0000, "the program has the address in it");

program! {
    "chiton_timer",
    "mov dword ptr [0x100000], 0",
    "xor edx, edx",
    "mov eax, 0x44", // one-shot
    "mov ecx, 0x832",
    "wrmsr",
    "mov eax, 0xb", // divided by 1
    "mov ecx, 0x83e",
    "wrmsr",
    "mov eax, 2000000",
    "mov ecx, 0x838",
    "wrmsr",
    "sti",
    "2:",
    "cmp dword ptr [0x100000], 1",
    "jne 2b",
    "mov ecx, 0x839",
    "rdmsr",
    "out 0x10, eax",
    "mov eax, 0x20044", // periodic
    "mov ecx, 0x832",
    "wrmsr",
    "mov eax, 2000000",
    "mov ecx, 0x838",
    "wrmsr",
    "2:",
    "hlt",
    "cmp dword ptr [0x100000], 4",
    "jb 2b",
    "xor eax, eax",
    "mov ecx, 0x838",
    "wrmsr",
    "mov ecx, 0x839",
    "rdmsr",
    "out 0x10, eax",
    "mov eax, dword ptr [0x100000]",
    "out 0x10, eax",
    "cli",
    "hlt",
    ".balign 0x100, 0x90",
    "push eax", // the handler
    "push ecx",
    "push edx",
    "inc dword ptr [0x100000]",
    "xor eax, eax",
    "xor edx, edx",
    "mov ecx, 0x80b",
    "wrmsr",
    "pop edx",
    "pop ecx",
    "pop eax",
    "iretd",
}

/// Runs a guest on a processor of this memory that has an APIC.
///
/// # Errors
///
/// When the backend fails.
pub fn run<V: Vcpu>(vcpu: V, ram: GuestRam, words: &mut dyn Write) -> Result<Verdict, V::Error> {
    let mut stage = Stage::new(vcpu, ram, program())?;
    stage.set_gate(VECTOR, HANDLER);
    let mut found = [Did::Failed; 3];
    for did in &mut found {
        // It waits by `hlt`, too.
        *did = loop {
            match stage.act()? {
                Did::Halt => {}
                did => break did,
            }
        };
    }
    let [once, stopped, times] = found;
    say!(
        words,
        "the timer's count is {once:x?} when it has come, {stopped:x?} when it was stopped"
    );
    say!(
        words,
        "it came {times:x?} times, four at least: once, and then again and again"
    );
    let nothing = Did::Out(0x10, 0);
    // An emulator may be slower than the timer is quick.
    let enough = matches!(times, Did::Out(0x10, 4..));
    Ok(Verdict::of(once == nothing && stopped == nothing && enough))
}
