//! Checks that read the sources and run nothing of them.

pub(crate) mod book;
pub(crate) mod deny;
pub(crate) mod doc;
pub(crate) mod fmt;
pub(crate) mod lint;
pub(crate) mod musts;

use std::path::PathBuf;

use crate::paths;

/// Every workspace of the repository: the guests, the floor program and the fuzz targets need
/// other targets, flags or toolchains than the rest, and so are their own.
fn workspaces() -> Vec<PathBuf> {
    let root = paths::root();
    let others = ["guest/apps", "xtask/floor", "fuzz"].map(|dir| root.join(dir));
    std::iter::once(root.clone())
        .chain(others)
        .filter(|dir| dir.join("Cargo.toml").exists())
        .collect()
}
