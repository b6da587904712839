//! Measures what each kind of exit costs: the guest of `chiton-bench exits`.
//!
//! `vmexit [KEY=VALUE…] [CASE…]` runs these cases, or all, and prints [records](chiton_guest::shared::measure).
//! A case that cannot run here is skipped with the reason. The same file runs on KVM and on the bare machines.
//!
//! | key | what |
//! |---|---|
//! | `repeats`, `samples`, `warmup` | how often, and how many samples each time |
//! | `budget` | how many milliseconds a repeat may take: then it has fewer samples |
//! | `clock=plain` | readings without fences, for a ring that is interpreted |
//! | `walk4k`, `walk2m`, `walk1g` | where the host has mapped the region for page walks, by pages of this size; 0 if there are none |
//! | `walklen` | its length in bytes |
//! | `places` | not 0 if the host has eventfds and zones for the cases |
//! | `readonly` | where the host has mapped a page that nobody may write |
//! | `variant` | what sets this machine apart, such as `without_ad`: names of cases end in `_` and this, but for `null` |
//! | `apic` | where the host has mapped the registers of the local APIC |
#![no_std]
#![no_main]

extern crate alloc;

mod cases;
mod options;
mod report;
mod ring0;

use alloc::borrow::Cow;
use alloc::vec;

use chiton_guest::shared::measure::{Record, Start};
use chiton_guest::{boot, env, processors};
use vmexit_cases::clock::{Fenced, Plain};
use vmexit_cases::{Clock, Meter};

use cases::Case;
use options::Options;

chiton_guest::entry!(
    main,
    ring = 0,
    stack = 64 * KIB,
    heap = 8 * MIB,
    uses = &[CONSOLE, ENTROPY]
);

fn main() -> Result<(), &'static str> {
    let options = Options::read(env::args().skip(1))?;
    if env::ring() == 0 {
        ring0::take_over();
    }
    report::say(&Record::Start(Start {
        tsc_khz: boot::page().tsc_khz,
        ring: env::ring(),
        processors: processors::count(),
    }));
    if options.plain {
        run_all::<Plain>(&options);
    } else {
        run_all::<Fenced>(&options);
    }
    report::say(&Record::Done);
    Ok(())
}

fn run_all<C: Clock>(options: &Options) {
    let mut room = vec![0; options.samples];
    for case in cases::all::<C>().iter().filter(|case| options.wants(case.name)) {
        run(case, options, &mut room);
    }
}

/// One case, as often as it is to be repeated, unless something is in its way.
fn run(case: &Case, options: &Options, room: &mut [u64]) {
    let name = match options.variant {
        Some(variant) if case.name != "null" => Cow::Owned(alloc::format!("{}_{variant}", case.name)),
        _ => Cow::Borrowed(case.name),
    };
    let skip = |reason| {
        report::say(&Record::Skip { case: &name, reason });
    };
    if let Err(reason) = case.possible() {
        return skip(reason);
    }
    for repeat in 0..options.repeats {
        let mut meter = Meter::new(room, options.warm_up).within(options.budget * boot::page().tsc_khz);
        // Said before, so that whoever reads knows which case did not come to its end.
        report::begin(&name, repeat);
        if let Err(reason) = (case.run)(&mut meter, options) {
            return skip(reason);
        }
        report::finish(&name, meter);
    }
}
