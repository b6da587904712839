//! `cargo xtask lint`: clippy, with every warning an error.

use crate::{
    build::cargo,
    command,
    error::Result,
    guests::{self, guest_cargo},
    paths, tools,
    ui::Task,
};

/// Where there is no operating system.
const BARE_TARGET: &str = "x86_64-unknown-none";
/// The crates that must build there.
const BARE: &[&str] = &[
    "chiton-ring",
    "chiton-shared",
    "chiton-core",
    "chiton-guest",
    "chiton-vmx",
    "chiton-svm",
    "chiton-bare",
];

/// Looks at the workspace, at what must run on bare metal there, and at the guests for their own
/// targets.
///
/// # Errors
///
/// If clippy finds anything.
pub(crate) fn run() -> Result<()> {
    let task = Task::start("linting the workspace");
    let mut all = cargo();
    all.args([
        "clippy",
        "--workspace",
        "--all-features",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    command::quietly(&task, &mut all)?;
    task.done();

    tools::target(BARE_TARGET)?;
    let task = Task::start("linting for bare metal");
    let mut bare = cargo();
    bare.args(["clippy", "--target", BARE_TARGET]);
    for package in BARE {
        bare.args(["--package", package]);
    }
    command::quietly(&task, bare.args(["--", "-D", "warnings"]))?;
    task.done();

    let task = Task::start("linting the guests");
    let all = guests::all()?;
    let mut targets: Vec<_> = all.iter().map(|guest| &guest.target).collect();
    targets.sort();
    targets.dedup();
    for target in targets {
        tools::target(target)?;
        let mut clippy = guest_cargo(&paths::apps());
        clippy.args(["clippy", "--release", "--target", target]);
        clippy.env("CARGO_TARGET_DIR", paths::target().join("guest-build"));
        for guest in all.iter().filter(|guest| guest.target == *target) {
            clippy.args(["--bin", &guest.name]);
        }
        command::quietly(&task, clippy.args(["--", "-D", "warnings"]))?;
    }
    task.done();

    let task = Task::start("linting the floor program");
    let mut floor = cargo();
    floor
        .args(["clippy", "--all-targets", "--", "-D", "warnings"])
        .current_dir(paths::root().join("xtask/floor"));
    floor.env("CARGO_TARGET_DIR", paths::target().join("floor"));
    command::quietly(&task, &mut floor)?;
    task.done();
    Ok(())
}
