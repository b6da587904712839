use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chiton_bench::Result;
use chiton_bench::exits::catalogue::{self, CASES, Entry};
use chiton_bench::exits::suite::{Follow, Plan, find_guest};
use chiton_bench::exits::{ExitsError, bare};
use chiton_bench::output::{Live, Output};
use chiton_bench::run::{Case, Kind, Machine, Run, write};

/// Measure what each kind of exit costs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cases, by name or group; all, if none is named.
    cases: Vec<String>,
    /// List the cases, and measure nothing.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    measure: Measure,
    /// Read the records of a machine that has printed them, instead of measuring here. May be given several times,
    /// for several guests of the machine: the first is what the others are laid over.
    #[arg(long, value_name = "FILE", requires = "machine")]
    records: Vec<PathBuf>,
    /// What ran the guest of the records.
    #[arg(long, value_name = "MACHINE", requires = "records")]
    machine: Option<Machine>,
    /// How many hypervisors lie below the guest.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(..=2))]
    level: u8,
    /// What a reader has to know of the records, such as which emulator it was.
    #[arg(long, value_name = "TEXT", requires = "records")]
    note: Vec<String>,
    #[command(flatten)]
    output: Output,
}

/// How to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Measure {
    /// How often each case is repeated.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// How many samples each repeat has.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    samples: u32,
    /// How many samples come first that are thrown away.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=100_000))]
    warm_up: u32,
    /// How many seconds a guest may say nothing before it is ended.
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
    /// The guest `vmexit`, if it is not found beside this program.
    #[arg(long, value_name = "FILE")]
    vmexit: Option<PathBuf>,
}

impl Measure {
    /// These cases, measured so.
    pub(crate) fn plan(&self, cases: Vec<&'static Entry>) -> Result<Plan> {
        let guest = self.vmexit.clone().or_else(find_guest);
        let guest = guest.ok_or_else(|| ExitsError::Guest {
            path: "vmexit".into(),
            why: "it is not beside this program: build it with `cargo xtask guests`, or name it with --vmexit".into(),
        })?;
        Ok(Plan {
            guest,
            repeats: self.repeats,
            samples: self.samples,
            warm_up: self.warm_up,
            patience: Duration::from_secs(self.patience),
            cases,
        })
    }
}

/// Measures, and shows.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let cases = wanted(&args.cases)?;
    if args.list {
        let line = |entry: &&Entry| format!("{:<30} {:<14} {}\n", entry.name, entry.group, entry.what);
        write("-".as_ref(), &cases.iter().map(line).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(machine) = args.machine {
        let mut run = Run::begin(Kind::Exits, machine, args.level);
        let (calibration, recorded) = bare::read(&args.records, &cases, &args.note)?;
        let mut shown = args.output.live(recorded.len())?;
        recorded.iter().for_each(|case| shown.done(case));
        drop(shown);
        run.calibration = Some(calibration);
        run.cases = recorded;
        args.output.write(&run)?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = args.measure.plan(cases)?;
    let mut run = Run::begin(Kind::Exits, Machine::Kvm, args.level);
    let mut shown = Shown(args.output.live(plan.cases.len())?);
    let (calibration, measured) = plan.run(&mut shown)?;
    drop(shown);
    run.calibration = Some(calibration);
    run.cases = measured;
    args.output.write(&run)?;
    Ok(ExitCode::SUCCESS)
}

/// The cases of these names and groups; all, if there are none.
fn wanted(words: &[String]) -> Result<Vec<&'static Entry>> {
    if words.is_empty() {
        return Ok(CASES.iter().collect());
    }
    let unknown = words
        .iter()
        .find(|word| catalogue::find(word).is_none() && !CASES.iter().any(|entry| entry.group == **word));
    if let Some(word) = unknown {
        return Err(ExitsError::NoCase(word.clone()).into());
    }
    let named = |entry: &&Entry| words.iter().any(|word| word == entry.name || word == entry.group);
    Ok(CASES.iter().filter(named).collect())
}

/// On a terminal.
struct Shown(Live);

impl Follow for Shown {
    fn begin(&mut self, name: &str) {
        self.0.begin(name);
    }

    fn done(&mut self, case: &Case) {
        self.0.done(case);
    }
}
