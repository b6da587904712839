//! `chiton bench`: another program, so that this one stays as small and quick as it is.

use std::convert::Infallible;
use std::error::Error;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Its name.
const PROGRAM: &str = "chiton-bench";

/// Everything after `bench` belongs to the other program.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct BenchOptions {
    /// What chiton-bench is asked for; `chiton bench --help` says what it knows.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

/// Becomes `chiton-bench`: the one beside this program, or the first in `PATH`.
pub(crate) fn run(options: &BenchOptions) -> Result<Infallible, Box<dyn Error>> {
    let here = std::env::current_exe().map(|chiton| chiton.with_file_name(PROGRAM));
    let beside = here.as_ref().ok().filter(|program| program.is_file());
    let program = beside.map_or_else(|| PROGRAM.into(), |program| program.clone().into_os_string());
    let error = Command::new(&program).args(&options.arguments).exec();
    if beside.is_none() && error.kind() == ErrorKind::NotFound {
        let missing = "the program chiton-bench is neither beside this chiton nor in PATH; \
                       `cargo build --release --package chiton-bench` builds it";
        return Err(missing.into());
    }
    Err(format!("cannot run {}: {error}", program.to_string_lossy()).into())
}
