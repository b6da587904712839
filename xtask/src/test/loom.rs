//! The ring under Loom, which tries every interleaving that the memory model allows.

use crate::{build::cargo, command, error::Result, paths};

/// Runs the models, optimized: they are searches.
pub(super) fn run() -> Result<String> {
    let mut test = cargo();
    test.args(["test", "--package", "chiton-ring", "--release", "--test", "loom"]);
    test.env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", paths::target().join("loom"));
    // Whole-program optimization would cost more time than it saves.
    test.env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    super::counted(&command::openly(&mut test)?)
}
