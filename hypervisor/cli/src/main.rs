//! The `chiton` command line: a thin layer over the `chiton-kvm` library.

mod ahead;
mod arena;
mod bench;
mod call;
mod control;
mod doctor;
#[cfg(own_entry)]
mod entry;
mod home;
mod image;
mod inspect;
mod instance;
mod jailed;
#[cfg(feature = "manual")]
mod manual;
mod net;
mod options;
mod phases;
mod run;

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chiton_kvm::host::stderr;
use options::{Command, Options, Run};

#[global_allocator]
static ARENA: arena::Arena = arena::Arena::new();

/// The status of a chiton that could not do what it was asked, as with `docker run`.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let start = Instant::now();
    let options = match Options::read() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(FAILED)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let verbose = options.verbose;
    let result = match (phases::begin(start, verbose), options.command) {
        (Err(error), _) => Err(error.into()),
        (Ok(()), Command::Run(Run::Run(run))) if run.without_jail() => {
            run::run(&run, verbose, start).map(|never| match never {})
        }
        (Ok(()), command) => others(command, verbose, start),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            report(error.as_ref(), verbose);
            ExitCode::from(FAILED)
        }
    }
}

/// All commands but the one that has to be quick, and needs no room on the stack for what these do.
#[inline(never)]
fn others(command: Command, verbose: u8, start: Instant) -> Result<u8, Box<dyn Error>> {
    match command {
        Command::Run(Run::Run(run)) => jailed::run(*run, verbose, start).map(|()| 0),
        Command::Call(options) => call::run(&options, verbose),
        Command::Create(run) => jailed::create_only(&run).map(|()| 0),
        Command::Start(options) => jailed::start(&options, verbose, start),
        Command::Restart(options) => jailed::restart(&options, verbose, start),
        Command::Inspect(inspect) => inspect::run(&inspect).map(|()| 0),
        Command::Instance(command) => command.run(),
        Command::Update(update) => instance::update(*update).map(|()| 0),
        Command::Stats(stats) => instance::stats(&stats).map(|()| 0),
        Command::Stop(stop) => instance::stop(&stop),
        Command::Pause(targets) => instance::pause(&targets),
        Command::Resume(targets) => instance::resume(&targets),
        Command::Snapshot(options) => instance::snapshot(&options).map(|()| 0),
        Command::Doctor(options) if options.store => doctor::store::run().map(|whole| u8::from(!whole)),
        Command::Doctor(_) => doctor::run().map(|usable| u8::from(!usable)),
        #[cfg(feature = "manual")]
        Command::Completions(options) => manual::completions(&options).map(|()| 0),
        #[cfg(feature = "manual")]
        Command::Man(options) => manual::man(&options).map(|()| 0),
        Command::Image(options) => image::run(options).map(|()| 0),
        Command::Bench(options) => bench::run(&options).map(|never| match never {}),
    }
}

/// Writes to standard output; a reader that has seen enough is no error.
fn say(text: &str) -> std::io::Result<()> {
    say_bytes(text.as_bytes())
}

/// Writes bytes as they are.
fn say_bytes(bytes: &[u8]) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a line to standard error, which may be closed, or full and read by nobody.
fn complain(line: &str) {
    stderr::write_line(line, Duration::from_secs(2));
}

/// An error and what caused it, in one line each.
fn words(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!("\n  because: {error}");
        cause = error.source();
    }
    text
}

/// One sentence; with `-v` what caused it too.
fn report(error: &(dyn Error + 'static), verbose: u8) {
    complain(&format!("chiton: {error}"));
    let mut cause = error.source();
    while let Some(error) = cause.filter(|_| verbose > 0) {
        complain(&format!("  because: {error}"));
        cause = error.source();
    }
}
