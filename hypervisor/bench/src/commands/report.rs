use std::{path::PathBuf, process::ExitCode};

use chiton_bench::{Result, run::Run, table};

/// Show measurements that were kept.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files that `--json` wrote.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Shows each file.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    for path in &args.files {
        print!("{}", table::table(&Run::read(path)?));
    }
    Ok(ExitCode::SUCCESS)
}
