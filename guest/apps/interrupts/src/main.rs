//! Does one thing with interrupts, good or bad, and says what came of it: `interrupts WHAT`. Without
//! it, lists what there is.
#![no_std]
#![no_main]

extern crate alloc;

mod bad;
mod good;

use chiton_guest::{ExitCode, env, println};

chiton_guest::entry!(main, heap = MIB, needs = &[INTERRUPTS]);

/// Name, description and deed.
const DEEDS: &[(&str, &str, fn())] = &[
    ("idle", "how a processor waits here", good::idle),
    ("timer", "sleep until the timer comes, ten times", good::timer),
    (
        "handler",
        "be interrupted by the timer in an endless loop",
        good::handler,
    ),
    (
        "queue",
        "wait for a line of input, and look for its interrupt",
        good::queue,
    ),
    (
        "spread",
        "read a disk by two queues, each with its interrupt at a processor of its own",
        good::spread,
    ),
    (
        "bound",
        "have the interrupt of a disk at the second processor",
        good::bound,
    ),
    (
        "asked",
        "halt the second processor until the host asks the guest to end",
        good::asked,
    ),
    (
        "pairs",
        "exchange datagrams with ADDRESS by a pair of queues whose interrupts go to the second processor",
        good::pairs,
    ),
    ("call", "call another processor out of its halt", good::call),
    (
        "interrupt",
        "call another processor out of an endless loop",
        good::interrupt,
    ),
    ("wake", "end another processor's wait by the doorbell", good::wake),
    ("nobody", "call processors that do not exist", bad::nobody),
    (
        "elsewhere",
        "send the interrupts of queues to processors that do not exist",
        bad::elsewhere,
    ),
    ("deadlines", "set the timer to times that make no sense", bad::deadlines),
    ("burst", "set the timer to now again and again", bad::burst),
    ("storm", "set the timer to now from its own handler", bad::storm),
    ("address", "set the handler to what is no address", bad::address),
    ("unmapped", "set the handler to where nothing is", bad::unmapped),
    ("kernel", "set the handler to code of ring 0", bad::kernel),
    ("gs", "lose GS, then be interrupted", bad::gs),
    (
        "stack",
        "be interrupted with a stack pointer that leads nowhere",
        bad::stack,
    ),
    ("gate", "raise an interrupt by an instruction", bad::gate),
    ("masked", "mask everything and never end", bad::masked),
    ("cli", "clear the interrupt flag and never end", bad::cli),
    ("halt", "turn everything off and halt", bad::halt),
];

fn main() -> ExitCode {
    let wanted = env::args().nth(1).unwrap_or_default();
    if let Some((.., deed)) = DEEDS.iter().find(|(name, ..)| *name == wanted) {
        deed();
        return ExitCode::SUCCESS;
    }
    println!("usage: interrupts WHAT, where WHAT is one of");
    for (name, description, _) in DEEDS {
        println!("  {name:<12}{description}");
    }
    ExitCode::from(2_u8)
}
