//! EPTP switching: two views of the same memory, in which one page differs.

use core::fmt::Write;

use chiton_core::examples::Verdict;
use chiton_core::examples::stage::{Did, PAGES};
use chiton_core::paging::{Page, Rights, Size};
use chiton_core::physical::GuestRam;
use chiton_core::vmx::controls::secondary;
use chiton_core::{program, say};
use chiton_shared::memory::GuestMemory;

use super::stage;
use crate::views::EPTP_SWITCHING;
use crate::{Error, Options, Vmx};

/// How much both views map.
const MAPPED: u64 = 2 << 20;

program! {
    "chiton_eptp_switching",
    "mov eax, dword ptr [0x100000]",
    "out 0x10, eax",
    "xor eax, eax",
    "mov ecx, 1",
    "vmfunc",
    "mov eax, dword ptr [0x100000]",
    "out 0x11, eax",
    "xor eax, eax",
    "xor ecx, ecx",
    "vmfunc",
    "mov eax, dword ptr [0x100000]",
    "out 0x12, eax",
    "hlt",
}

pub(super) fn run(vmx: &Vmx, memory: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
    let capabilities = vmx.capabilities();
    if capabilities.secondary.may & secondary::ENABLE_VM_FUNCTIONS == 0
        || capabilities.vm_functions & EPTP_SWITCHING == 0
    {
        return Ok(Verdict::Skipped("this processor has no EPTP switching"));
    }
    let options = Options {
        views: true,
        ..Options::default()
    };
    let mut stage = stage(vmx, memory, program(), options)?;
    // What the guest knows as its page is another one in the second view: the one behind it.
    for (address, value) in [(PAGES, 0x1111_u32), (PAGES + 0x1000, 0x2222)] {
        if let Some(window) = memory.window(address, 4) {
            window.write(0, &value.to_le_bytes());
        }
    }
    let mut second = stage.vcpu.view(MAPPED)?;
    let Some(behind) = stage.vcpu.space.host(PAGES + 0x1000) else {
        return Ok(Verdict::Otherwise);
    };
    let page = Page {
        host: behind,
        size: Size::Small,
        rights: Rights::ALL,
        memory_type: stage.vcpu.space.memory_type(behind),
    };
    // No processor has this root in mind yet.
    second.remap(PAGES, 0x1000, page).settle(|_| ())?;
    stage.vcpu.map_all(MAPPED)?;
    stage
        .vcpu
        .offer_views(&[stage.vcpu.space.table.pointer(), second.pointer()])?;

    let mut seen = [Did::Failed; 4];
    for did in &mut seen {
        *did = stage.go()?;
    }
    let exits = stage.vcpu.counts().total();
    say!(
        words,
        "the same address holds 0x1111 in one view and 0x2222 in the other; the guest reads,"
    );
    say!(words, "switches, reads, switches back, reads: {seen:x?}");
    say!(words, "{exits} exits, none of them by a switch");
    let wanted = [
        Did::Out(0x10, 0x1111),
        Did::Out(0x11, 0x2222),
        Did::Out(0x12, 0x1111),
        Did::Halt,
    ];
    Ok(Verdict::of(seen == wanted && exits == 4))
}
