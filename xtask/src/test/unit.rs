//! The tests beside the code, and the examples in the documentation.

use crate::{build::cargo, command, error::Result};

/// Runs them all; `chiton-tests` needs guests and a machine and has steps of its own.
pub(super) fn run() -> Result<String> {
    super::counted(&command::openly(cargo().args([
        "test",
        "--workspace",
        "--all-features",
        "--exclude",
        "chiton-tests",
        "--no-fail-fast",
    ]))?)
}
