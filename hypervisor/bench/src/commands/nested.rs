use std::path::PathBuf;
use std::process::ExitCode;

use chiton_bench::Result;
use chiton_bench::exits::nested::{Pair, WORK, table};
use chiton_bench::exits::suite::Follow;
use chiton_bench::exits::{catalogue, native};
use chiton_bench::run::{Case, Kind, Machine, Outcome, Run, check_place, write};

use super::exits::Measure;

/// Compare the same work natively, in a guest, and in a guest of a guest.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    measure: Measure,
    /// Write what was measured natively.
    #[arg(long, value_name = "FILE")]
    native: Option<PathBuf>,
    /// Write what was measured in the guest.
    #[arg(long, value_name = "FILE")]
    guest: Option<PathBuf>,
    /// The same two of a machine inside, where this command has run: what it took for native …
    #[arg(long, value_name = "FILE", requires = "inner_guest")]
    inner_native: Option<PathBuf>,
    /// … and its guest.
    #[arg(long, value_name = "FILE", requires = "inner_native")]
    inner_guest: Option<PathBuf>,
}

/// Measures both levels that there are here, and prints the table.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let cases: Vec<_> = WORK.iter().filter_map(|(_, case, _)| catalogue::find(case)).collect();
    let plan = args.measure.plan(cases)?;
    [&args.native, &args.guest]
        .into_iter()
        .flatten()
        .try_for_each(|path| check_place(path))?;
    let inner = match (&args.inner_native, &args.inner_guest) {
        (Some(without), Some(with)) => Some((Run::read(without)?, Run::read(with)?)),
        _ => None,
    };
    let mut without = Run::begin(Kind::Exits, Machine::Native, 0);
    let (calibration, measured) = native::measure(&plan, &mut Silent)?;
    (without.calibration, without.cases) = (Some(calibration), measured);
    let mut with = Run::begin(Kind::Exits, Machine::Kvm, 1);
    let (calibration, measured) = plan.run(&mut Silent)?;
    (with.calibration, with.cases) = (Some(calibration), measured);
    for (run, path) in [(&without, &args.native), (&with, &args.guest)] {
        if let Some(path) = path {
            run.write(path)?;
        }
    }
    let outer = Pair {
        without: &without,
        with: &with,
    };
    let inner = inner.as_ref().map(|(without, with)| Pair { without, with });
    let mut text = table(outer, inner);
    let inside = inner.iter().flat_map(|pair| [pair.without, pair.with]);
    let runs = [("here", &without), ("here", &with)]
        .into_iter()
        .chain(inside.map(|run| ("inside", run)));
    for (place, run) in runs {
        for case in &run.cases {
            if let Outcome::Skipped { reason } = &case.outcome {
                text += &format!("{}, {place}: {reason}\n", case.name);
            }
        }
    }
    write("-".as_ref(), &text)?;
    Ok(ExitCode::SUCCESS)
}

/// The table in the end is what is shown.
struct Silent;

impl Follow for Silent {
    fn begin(&mut self, _name: &str) {}

    fn done(&mut self, _case: &Case) {}
}
