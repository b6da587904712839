use std::path::PathBuf;
use std::process::ExitCode;

use chiton_bench::Result;
use chiton_bench::calls::{Plan, measure};
use chiton_bench::output::Output;
use chiton_bench::run::{Kind, Machine, Run};

/// Measure calls of a guest function, each in pristine state.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The guest `function`, as `cargo xtask guests` builds it.
    #[arg(long, value_name = "PATH", default_value = "target/guests/function")]
    guest: PathBuf,
    /// Calls of each repeat.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    calls: usize,
    /// Repeats of each case.
    #[arg(long, value_name = "N", default_value_t = 6)]
    repeats: usize,
    /// Measure too how the pages that a call has written can be found.
    #[arg(long)]
    dirty: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let plan = Plan {
        repeats: args.repeats.max(1),
        calls: args.calls.max(1),
        dirty: args.dirty,
    };
    let mut run = Run::begin(Kind::Calls, Machine::Kvm, 1);
    let mut live = args.output.live(plan.cases());
    run.cases = measure(plan, &args.guest, &mut live)?;
    drop(live);
    args.output.write(&run)?;
    Ok(ExitCode::SUCCESS)
}
