use std::{path::PathBuf, process::ExitCode};

use chiton_bench::{
    Result, csv,
    html::{self, Column},
    run::{Run, write},
    table,
};

/// Show measurements that were kept: as tables, as a page, as comma-separated values.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files that `--json` wrote; the page compares each with the first.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write one page of all, `-` for standard output.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a line a case of all, `-` for standard output.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

/// Writes what was asked for; tables, if nothing was.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let runs = args
        .files
        .iter()
        .map(|path| Run::read(path))
        .collect::<Result<Vec<_>>>()?;
    if let Some(path) = &args.html {
        let labels: Vec<_> = args.files.iter().map(|path| path.display().to_string()).collect();
        let columns: Vec<_> = labels
            .iter()
            .zip(&runs)
            .map(|(label, run)| Column::new(label, run))
            .collect();
        write(path, &html::page(&columns))?;
    }
    if let Some(path) = &args.csv {
        write(path, &csv::csv(&runs))?;
    }
    if args.html.is_none() && args.csv.is_none() {
        let tables: Vec<_> = runs.iter().map(table::table).collect();
        write("-".as_ref(), &tables.join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
