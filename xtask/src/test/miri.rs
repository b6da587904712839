//! The crates that read what a guest wrote, under Miri.

use crate::{command, error::Result, tools};

/// Packages, and what Miri is told for them besides not to mind files.
const RUNS: [(&[&str], &str); 2] = [
    (&["chiton-shared"], ""),
    // Hostile rings read a place in one width and write it in another, which the processor defines
    // and Miri's model of weak memory does not know. Addresses that guests hold are integers.
    (
        &["chiton-core", "chiton-guest"],
        " -Zmiri-disable-weak-memory-emulation -Zmiri-permissive-provenance",
    ),
];

/// Runs the unit tests of the ABI crate, the core and the guest library.
pub(super) fn run() -> Result<String> {
    let nightly = tools::nightly()?;
    eprintln!("  with {nightly}");
    let mut counts = Vec::new();
    for (packages, flags) in RUNS {
        let mut test = tools::nightly_cargo(nightly);
        test.args(["miri", "test", "--lib"]);
        for package in packages {
            test.args(["--package", package]);
        }
        // Property tests look for files of earlier failures.
        test.env("MIRIFLAGS", format!("-Zmiri-disable-isolation{flags}"));
        counts.push(super::counted(&command::openly(&mut test)?)?);
    }
    Ok(counts.join(", "))
}
