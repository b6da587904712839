//! `cargo xtask`: builds, runs, tests and measures Chiton.
//!
//! The only place that knows QEMU and Bochs.

mod bare;
mod bench;
mod build;
mod check;
mod command;
mod error;
mod failures;
mod fetch;
mod guests;
mod kvm;
mod lab;
mod manual;
mod new;
mod order;
mod paths;
mod peers;
mod qemu;
mod run;
mod test;
mod tools;
mod ui;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, runs, tests and measures Chiton.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run a guest, here or in QEMU.
    ///
    /// `cargo xtask run sha256 --disk image:ro -- --verbose` runs the guest sha256 with a disk and
    /// the argument --verbose.
    Run(run::Args),
    /// Make the boot images, for BIOS and UEFI, of a guest on bare metal.
    #[command(override_usage = "cargo xtask image [APP] [OPTIONS] [-- ARGUMENTS]...")]
    Image(bare::ImageArgs),
    /// Run a guest on bare VMX, in an emulator.
    #[command(override_usage = "cargo xtask vmx [APP] [OPTIONS] [-- ARGUMENTS]...")]
    Vmx(bare::RunArgs),
    /// Run a guest on bare SVM, in an emulator.
    #[command(override_usage = "cargo xtask svm [APP] [OPTIONS] [-- ARGUMENTS]...")]
    Svm(bare::RunArgs),
    /// Be the other end of a machine's line: its sockets and its network.
    Relay(bare::RelayArgs),
    /// Run all tests and checks, or some of them.
    Test(test::Args),
    /// Kill at random moments, a thousand times, and look whether anything is left.
    Soak(test::SoakArgs),
    /// Print the system calls of jailed machines, thread by thread, as strace sees them in the end-to-end tests.
    Calls,
    /// Format all sources.
    Fmt,
    /// Run clippy on everything, for every target.
    Lint,
    /// Make the reference and check the book.
    Doc,
    /// Run all tests and checks as CI does: nothing may be missing.
    Ci,
    /// Write the skeleton of a new guest.
    New(new::Args),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Write manual pages and shell completions of `chiton`.
    Manual(manual::Args),
    /// List the functions of `chiton` that run when a guest does, for the linker to put together.
    Order,
    /// Build peers for `chiton bench vs` that are libraries, into target/peers.
    Peers,
    /// Build all example guests into target/guests.
    Guests,
    /// Run a command in the nested machine; a shell without one; `chiton` and /guests are there.
    #[command(override_usage = "cargo xtask lab [-- COMMAND...]")]
    Lab,
}

fn main() -> ExitCode {
    // What follows `--` belongs to the guest or to a command; clap would mix it with the rest.
    let mut ours: Vec<String> = std::env::args().collect();
    let at = ours.iter().position(|word| word == "--").unwrap_or(ours.len());
    let theirs: Vec<String> = ours.drain(at..).skip(1).collect();
    let result = match Cli::parse_from(ours).task {
        Task::Run(args) => run::run(&args, &theirs),
        Task::Image(args) => bare::image(&args, &theirs).map(|()| 0),
        Task::Vmx(args) => bare::vmx(&args, &theirs),
        Task::Svm(args) => bare::svm(&args, &theirs),
        Task::Relay(args) => bare::relay(&args),
        Task::Test(args) => Ok(test::run(&args)),
        Task::Soak(args) => test::soak(&args).map(|()| 0),
        Task::Calls => test::calls::run().map(|()| 0),
        Task::Fmt => check::fmt::run(false).map(|()| 0),
        Task::Lint => check::lint::run().map(|()| 0),
        Task::Doc => check::doc::run().map(|()| 0),
        Task::Ci => Ok(test::run(&test::Args::ci())),
        Task::New(args) => new::run(&args).map(|()| 0),
        Task::Bench(bench) => bench::run(bench, &theirs),
        Task::Peers => peers::run().map(|()| 0),
        Task::Guests => guests::all().and_then(|guests| guests::build(&guests)).map(|()| 0),
        Task::Order => order::run().map(|()| 0),
        Task::Manual(args) => manual::run(&args).map(|()| 0),
        Task::Lab => lab::run(&theirs),
    };
    match result {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error::Error::Said(code)) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
