use std::path::PathBuf;
use std::process::ExitCode;

use chiton_bench::Result;
use chiton_bench::calls::{Plan, measure};
use chiton_bench::output::Output;
use chiton_bench::run::{Kind, Machine, Run};
use chiton_bench::trial::guest;

/// Measure calls of a guest function, each in pristine state.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The guest `function`; else the one that `cargo xtask guests` built.
    #[arg(long, value_name = "FILE")]
    guest: Option<PathBuf>,
    /// Calls of each repeat.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
    /// Repeats of each case.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Measure too how the pages that a call has written can be found.
    #[arg(long)]
    dirty: bool,
    /// A folder where Hyperlight's program is looked for before PATH.
    #[arg(long, value_name = "FOLDER")]
    peers: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let plan = Plan {
        repeats: args.repeats as usize,
        calls: args.calls as usize,
        dirty: args.dirty,
        peers: args.peers.as_deref(),
    };
    let guest = guest(args.guest.as_deref(), "function")?;
    let mut run = Run::begin(Kind::Calls, Machine::Kvm, 1);
    let mut live = args.output.live(plan.cases())?;
    run.cases = measure(plan, &guest, &mut live)?;
    drop(live);
    args.output.write(&run)?;
    Ok(ExitCode::SUCCESS)
}
