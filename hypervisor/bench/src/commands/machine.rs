use std::{path::PathBuf, process::ExitCode};

use chiton_bench::{
    Result,
    exits::machine::{Setup, run as start},
    run::write,
};

/// One machine of the suite of exits, which `exits` starts.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    setup: Setup,
    /// The guest's file.
    guest: PathBuf,
    /// Its arguments.
    #[arg(last = true)]
    args: Vec<String>,
}

/// Runs it. Whatever is to be said of its end is a line for whoever has started it.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let words = match start(args.setup, &args.guest, args.args.clone()) {
        Ok(None) => return Ok(ExitCode::SUCCESS),
        Ok(Some(words)) => words,
        Err(error) => error.to_string(),
    };
    let line = format!("!{}\n", words.lines().next().unwrap_or_default());
    write("-".as_ref(), &line)?;
    Ok(ExitCode::FAILURE)
}
