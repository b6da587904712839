//! Where things are.

use std::path::{Path, PathBuf};

/// The repository's top directory.
#[must_use]
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Cargo's target directory; everything that can be made again lives below it.
#[must_use]
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Packages, kernels and logs of the nested machine.
#[must_use]
pub(crate) fn lab() -> PathBuf {
    target().join("lab")
}

/// Boot images, and what their emulators leave.
#[must_use]
pub(crate) fn images() -> PathBuf {
    target().join("image")
}

/// Tools that we fetch for ourselves.
#[must_use]
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

/// The workspace of the example guests.
#[must_use]
pub(crate) fn apps() -> PathBuf {
    root().join("guest/apps")
}

/// The built guests, one ELF file each, named like their packages.
#[must_use]
pub(crate) fn guests() -> PathBuf {
    target().join("guests")
}
