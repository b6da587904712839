//! EPT violations as #VE: the guest deals with them itself (SDM volume 3C, section 27.5.7).
//!
//! ```text
//!   write ─▶ entry not present, bit 63 clear ─▶ information area, #VE (no exit)
//!     ▲                                           handler: asks for the page by `out`
//!     └────────────── iret ◀── area free again ◀──┘
//! ```

use core::fmt::Write;

use chiton_core::examples::Verdict;
use chiton_core::examples::stage::{Did, PAGES};
use chiton_core::physical::GuestRam;
use chiton_core::vmx::controls::secondary;
use chiton_core::vmx::exit::Basic;
use chiton_core::{program, say};
use chiton_shared::memory::GuestMemory;

use super::stage;
use crate::{Error, Options, Vmx, memory};

/// The vector of #VE.
const VE: u8 = 20;
/// Where the handler begins in the program.
const HANDLER: u64 = 0x40;
/// The information area, a page of the guest's (SDM volume 3C, table 27-1).
const AREA: u64 = PAGES + 0x1000;
/// The page that is not there.
const MISSING: u64 = PAGES + 0x5000;

program! {
    "chiton_ve",
    "mov dword ptr [0x105008], 0x77",
    "mov eax, dword ptr [0x105008]",
    "out 0x11, eax",
    "hlt",
    ".balign 0x40, 0x90",
    // The handler: the guest-physical address is in the area, and the area is busy.
    "mov eax, dword ptr [0x101018]",
    "out 0x10, eax",
    "mov dword ptr [0x101004], 0",
    "iretd",
}

pub(super) fn run(vmx: &Vmx, ram: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
    if vmx.capabilities().secondary.may & secondary::EPT_VIOLATION_VE == 0 {
        return Ok(Verdict::Skipped("this processor does not turn EPT violations into #VE"));
    }
    let options = Options {
        virtualization_exceptions: Some(AREA),
        ..Options::default()
    };
    let mut stage = stage(vmx, ram, program(), options)?;
    stage.set_gate(VE, HANDLER);
    if let Some(window) = ram.window(AREA, 8) {
        window.write(0, &[0; 8]);
    }
    stage.vcpu.map_all(2 << 20)?;
    stage.vcpu.give_violations_to_guest(MISSING, 0x1000)?;

    let asked = stage.go()?;
    let reason = stage.read(AREA);
    say!(
        words,
        "the guest writes where nothing is mapped, has #VE, and asks for the page: {asked:x?}"
    );
    say!(
        words,
        "its information area says: exit reason {reason}, guest-physical {:#x}",
        stage.read(AREA + 24)
    );
    memory::demand(&mut stage.vcpu.space, &stage.vcpu.processor, MISSING)?;
    let wrote = stage.go()?;
    let did = stage.go()?;
    let violations = stage.vcpu.counts().of(Basic::EPT_VIOLATION);
    say!(
        words,
        "it writes again, and reads {wrote:x?}; exits by EPT violations: {violations}"
    );
    let good = asked == Did::Out(0x10, MISSING as u32 + 8)
        && reason == u32::from(Basic::EPT_VIOLATION.0)
        && wrote == Did::Out(0x11, 0x77)
        && did == Did::Halt
        && violations == 0;
    Ok(Verdict::of(good))
}
