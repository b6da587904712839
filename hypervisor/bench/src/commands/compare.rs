use std::{path::PathBuf, process::ExitCode};

use chiton_bench::{
    Result,
    run::{Run, write},
    stats::{Change, Comparison, Difference, Rule, compare},
    words::{plain, value},
};

/// Say what changed from one measurement to another, beyond noise.
///
/// A case changed if the intervals of its two medians do not overlap, and the medians differ by the least
/// change. It takes five repeats of a case in both measurements to tell.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What `--json` wrote before.
    before: PathBuf,
    /// What `--json` wrote after.
    after: PathBuf,
    /// The least change of a median that counts, in percent of it.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = percent)]
    least: f64,
    /// End with status 1 if a case changed or vanished.
    #[arg(long)]
    fail_on_change: bool,
    /// Show the cases that are the same, too.
    #[arg(long)]
    all: bool,
}

/// The status that tells of a change; a measurement that cannot be read ends with 125.
const CHANGED: u8 = 1;

/// Compares, and says what changed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let (before, after) = (Run::read(&args.before)?, Run::read(&args.after)?);
    let rule = Rule {
        least: args.least / 100.0,
        ..Rule::default()
    };
    let difference = compare(&before, &after, rule);
    write("-".as_ref(), &words(&difference, args.all))?;
    let failed = args.fail_on_change && difference.is_change();
    Ok(ExitCode::from(if failed { CHANGED } else { 0 }))
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "a number of percent, such as 5")?;
    (0.0..=1000.0)
        .contains(&percent)
        .then_some(percent)
        .ok_or("0 to 1000 percent".into())
}

/// The differences, as a text.
fn words(difference: &Difference, all: bool) -> String {
    let mut text = String::new();
    if !difference.environment.is_empty() {
        text += "not measured under the same conditions, and a change may be due to that:\n";
        for (name, before, after) in &difference.environment {
            text += &format!("  {}: {} → {}\n", plain(name), plain(before), plain(after));
        }
    }
    let shown = difference
        .cases
        .iter()
        .filter(|case| all || case.change != Change::Same);
    let mut last = None;
    for case in shown {
        if last.replace(&case.group) != Some(&case.group) {
            text += &(plain(&case.group) + "\n");
        }
        text += &(line(case) + "\n");
    }
    let count = |change: Change| difference.cases.iter().filter(|case| case.change == change).count();
    let vanished = difference
        .cases
        .iter()
        .filter(|case| matches!(case.change, Change::Vanished { .. }));
    text += &format!(
        "{} more, {} less, {} the same, {} appeared, {} vanished, {} with too few repeats to tell",
        count(Change::More),
        count(Change::Less),
        count(Change::Same),
        count(Change::Appeared),
        vanished.count(),
        count(Change::Undecided),
    );
    match count(Change::Incomparable) {
        0 => text + "\n",
        units => text + &format!(", {units} in another unit\n"),
    }
}

fn line(case: &Comparison) -> String {
    let median = |median: Option<_>| match median {
        Some((median, _)) => value(median, case.unit),
        None => "–".into(),
    };
    let ratio = case.ratio().map_or("–".into(), |ratio| format!("× {ratio:.2}"));
    let (name, before, after) = (plain(&case.name), median(case.before), median(case.after));
    let line = format!(
        "  {name:<34} {before:>9} → {after:>9} {ratio:>8}  {}",
        case.change.word()
    );
    match &case.change {
        Change::Vanished { reason: Some(reason) } => line + ": " + &plain(reason),
        _ => line,
    }
}
