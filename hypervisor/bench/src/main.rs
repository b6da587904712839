//! `chiton-bench`: measures, and shows what was measured.

mod commands;

use std::process::ExitCode;

use chiton_bench::Result;
use clap::{Parser, Subcommand};
use commands::{calls, compare, density, exits, jail, machine, nested, report, start, virtio, vs};

/// Measures what Chiton costs, and shows what was measured.
#[derive(Debug, Parser)]
#[command(name = "chiton bench", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Calls(calls::Args),
    Compare(compare::Args),
    Report(report::Args),
    Start(start::Args),
    Density(density::Args),
    Vs(vs::Args),
    Virtio(virtio::Args),
    #[command(hide = true)]
    Jail(jail::Args),
    #[command(hide = true)]
    DensityKeeper(density::KeeperArgs),
    Exits(exits::Args),
    Nested(nested::Args),
    #[command(hide = true)]
    Machine(machine::Args),
}

/// The status of a measurement that failed or was not understood, as with the other commands of `chiton`.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { FAILED } else { 0 });
        }
    };
    match run(cli.command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("chiton bench: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Calls(args) => calls::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Start(args) => start::run(&args),
        Command::Density(args) => density::run(&args),
        Command::Vs(args) => vs::run(&args),
        Command::Virtio(args) => virtio::run(&args),
        Command::Jail(args) => jail::run(&args),
        Command::DensityKeeper(args) => density::keep(&args),
        Command::Exits(args) => exits::run(&args),
        Command::Nested(args) => nested::run(&args),
        Command::Machine(args) => machine::run(&args),
    }
}
