//! Page-modification logging: the guest writes to some pages, and the processor keeps the list.

use core::fmt::Write;

use chiton_core::examples::Verdict;
use chiton_core::examples::stage::{Did, PAGES};
use chiton_core::physical::GuestRam;
use chiton_core::vmx::controls::secondary;
use chiton_core::{program, say};

use super::stage;
use crate::{Error, Options, Vmx};

// Page 5, page 3, page 5 again, page 9; page 4 is read only.
program! {
    "chiton_page_log",
    "mov byte ptr [0x105000], 1",
    "mov byte ptr [0x103000], 1",
    "mov byte ptr [0x105800], 1",
    "mov al, byte ptr [0x104000]",
    "mov byte ptr [0x109fff], 1",
    "hlt",
}

pub(super) fn run(vmx: &Vmx, memory: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
    if vmx.capabilities().secondary.may & secondary::ENABLE_PML == 0 {
        return Ok(Verdict::Skipped("this processor has no page-modification logging"));
    }
    let options = Options {
        page_log: true,
        ..Options::default()
    };
    let mut stage = stage(vmx, memory, program(), options)?;
    let did = stage.go()?;
    let logged = stage.vcpu.written_pages()?;
    say!(
        words,
        "the guest writes to page 5, 3, 5 again and 9, and reads page 4; the log has"
    );
    for page in &logged {
        say!(words, "  {page:#x}");
    }
    let wanted = [5, 3, 9].map(|page| PAGES + page * 0x1000);
    Ok(Verdict::of(did == Did::Halt && logged == wanted))
}
