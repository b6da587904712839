//! An EPT hook: the guest calls a function, which does something else than what it reads there.

use core::fmt::Write;

use chiton_core::examples::Verdict;
use chiton_core::examples::stage::{Did, PAGES};
use chiton_core::physical::GuestRam;
use chiton_core::vmx::exit::Basic;
use chiton_core::{program, say};
use chiton_shared::memory::GuestMemory;

use super::stage;
use crate::{Error, Options, Vmx};

/// `mov eax, 1; ret`, which the guest believes to call.
const ORIGINAL: [u8; 6] = [0xb8, 1, 0, 0, 0, 0xc3];
/// `mov eax, 2; ret`, which it calls.
const HOOKED: [u8; 6] = [0xb8, 2, 0, 0, 0, 0xc3];

program! {
    "chiton_hook",
    "mov eax, dword ptr [0x100001]",
    "out 0x10, eax",
    "mov ecx, 0x100000",
    "call ecx",
    "out 0x11, eax",
    "mov eax, dword ptr [0x100001]",
    "out 0x12, eax",
    "hlt",
}

pub(super) fn run(vmx: &Vmx, memory: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
    if !vmx.capabilities().ept_vpid.execute_only() {
        return Ok(Verdict::Skipped("this processor has no execute-only pages"));
    }
    let mut stage = stage(vmx, memory, program(), Options::default())?;
    if let Some(window) = memory.window(PAGES, ORIGINAL.len()) {
        window.write(0, &ORIGINAL);
    }
    stage.vcpu.hook(PAGES, &HOOKED)?;
    let mut seen = [Did::Failed; 4];
    for did in &mut seen {
        *did = stage.go()?;
    }
    say!(
        words,
        "the guest reads a function that returns 1, calls it, reads it again: {seen:x?}"
    );
    let violations = stage.vcpu.counts().of(Basic::EPT_VIOLATION);
    say!(
        words,
        "the page turned its other side when it was fetched from, and back when it was read; {violations} violations in all"
    );
    let wanted = [Did::Out(0x10, 1), Did::Out(0x11, 2), Did::Out(0x12, 1), Did::Halt];
    Ok(Verdict::of(seen == wanted))
}
