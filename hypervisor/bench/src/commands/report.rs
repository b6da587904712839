use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

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
        let labels = labels(&args.files);
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

/// The names of files without their folders, unless two are the same then.
fn labels(files: &[PathBuf]) -> Vec<String> {
    let names: Vec<_> = files.iter().filter_map(|path| path.file_name()).collect();
    let different: BTreeSet<_> = names.iter().collect();
    if different.len() == files.len() {
        names
            .into_iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    } else {
        files.iter().map(|path| path.display().to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_called_by_the_shortest_name_that_tells_them_apart() {
        let labels = |files: &[&str]| labels(&files.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(labels(&["a/one.json", "two.json"]), ["one.json", "two.json"]);
        assert_eq!(labels(&["a/one.json", "b/one.json"]), ["a/one.json", "b/one.json"]);
    }
}
