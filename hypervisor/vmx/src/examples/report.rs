//! Exits after which a guest cannot go on, and the report of each: a task switch, which VMX does not do and no control
//! lets pass (SDM volume 3C, section 27.4.2), and an entry of EPT that no processor takes, which nobody mends.

use core::fmt::Write;

use chiton_core::examples::Verdict;
use chiton_core::examples::stage::{Did, GDT, PAGES, Stage};
use chiton_core::physical::GuestRam;
use chiton_core::{program, say};

use super::stage;
use crate::{Error, Options, Vmx, VmxVcpu};

const _: () = assert!(
    GDT == 0x2_1000 && PAGES == 0x10_0000,
    "the programs have the addresses in them"
);

mod task_switch {
    // The data segment's descriptor becomes one of a task, whose state would be at 0x100000 (SDM volume 3A, figure 9-3).
    chiton_core::program! {
        "chiton_task_switch",
        "mov dword ptr [0x21010], 0x67",
        "mov dword ptr [0x21014], 0x8910",
        ".byte 0xea, 0, 0, 0, 0, 0x10, 0", // a far jump to selector 0x10
        "hlt",
    }

    pub(super) fn bytes() -> &'static [u8] {
        program()
    }
}

program! {
    "chiton_misconfigured",
    "mov eax, dword ptr [0x103008]",
    "hlt",
}

/// What has to be in the report of either.
const OF_TASK_SWITCH: [&str; 5] = [
    "the guest cannot go on after this exit: task switch, qualification 0x80000010\n",
    "VM exit 9: task switch\n",
    "  qualification    0x80000010: to task 0x10 by JMP\n",
    "  RIP 0x0000000000010014  RSP 0x0000000000020000  RFLAGS 0x2\n",
    "  activity active, interruptibility 0x",
];
const OF_MISCONFIGURATION: [&str; 4] = [
    "0x103008 leads to a PT entry that the processor refuses, for its bits 0x6: writes are allowed (bit 1) and reads are not",
    "VM exit 49: EPT misconfiguration\n",
    "  guest-physical   0x103008\n",
    "  RIP 0x0000000000010000  RSP 0x0000000000020000  RFLAGS 0x2\n",
];

pub(super) fn run(vmx: &Vmx, memory: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
    let switching = stage(vmx, memory, task_switch::bytes(), Options::default())?;
    let switched = is_told(switching, &OF_TASK_SWITCH, words)?;
    let mut misconfigured = stage(vmx, memory, program(), Options::default())?;
    misconfigured.vcpu.misconfigure(PAGES + 0x3000)?;
    Ok(Verdict::of(
        switched && is_told(misconfigured, &OF_MISCONFIGURATION, words)?,
    ))
}

/// Runs a guest to its end, says its report, and looks whether all of this is in it.
fn is_told(mut stage: Stage<VmxVcpu>, parts: &[&str], words: &mut dyn Write) -> Result<bool, Error> {
    let did = stage.act()?;
    let report = stage.vcpu.report().unwrap_or_default();
    say!(words, "{}", report.trim_end());
    Ok(did == Did::Failed && parts.iter().all(|part| report.contains(part)))
}
