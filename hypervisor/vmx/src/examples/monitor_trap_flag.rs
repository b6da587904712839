//! The monitor trap flag: an exit after each instruction (SDM volume 3C, section 27.5.2).
//!
//! It is how a debugger steps a guest that must not notice: TF in RFLAGS the guest could see.

use core::fmt::Write;

use chiton_core::examples::Verdict;
use chiton_core::examples::stage::Did;
use chiton_core::physical::GuestRam;
use chiton_core::vmx::controls::primary;
use chiton_core::vmx::exit::Basic;
use chiton_core::{program, say};

use super::stage;
use crate::{Error, Options, Vmx};

/// How many instructions the guest has before its `hlt`.
const INSTRUCTIONS: u64 = 3;

program! {"chiton_mtf", "inc eax", "inc eax", "inc eax", "hlt"
}

pub(super) fn run(vmx: &Vmx, memory: GuestRam, words: &mut dyn Write) -> Result<Verdict, Error> {
    if vmx.capabilities().primary.may & primary::MONITOR_TRAP_FLAG == 0 {
        return Ok(Verdict::Skipped("this processor has no monitor trap flag"));
    }
    let mut stage = stage(vmx, memory, program(), Options::default())?;
    stage.vcpu.step_by_step(true)?;
    let did = stage.go()?;
    let steps = stage.vcpu.counts().of(Basic::MONITOR_TRAP_FLAG);
    say!(
        words,
        "{INSTRUCTIONS} instructions before `hlt`, {steps} exits by the flag"
    );
    if steps == 0 && did == Did::Halt {
        return Ok(Verdict::Skipped(
            "this processor announces the monitor trap flag and never delivers it, as Bochs",
        ));
    }
    Ok(Verdict::of(did == Did::Halt && steps == INSTRUCTIONS))
}
