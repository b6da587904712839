//! `cargo xtask peers`: peers that are libraries, as programs that `chiton bench vs` can run.

use std::{fs, path::Path};

use crate::{
    build::cargo,
    command,
    error::{Error, Result},
    paths, tools,
    ui::Task,
};

/// The target of the guest, which has no floating-point unit. Hyperlight's own target has one; but a KVM that
/// interprets ring 0 knows no SSE there.
const GUEST_TARGET: &str = "x86_64-unknown-none";
/// What Hyperlight's own build tool gives to the compiler.
const GUEST_FLAGS: &str = "--cfg=hyperlight --check-cfg=cfg(hyperlight) -Clink-args=-eentrypoint -Clink-args=-znostart-stop-gc -Ccode-model=small";

/// Builds Hyperlight's into `target/peers`.
///
/// # Errors
///
/// If it does not build.
pub(crate) fn run() -> Result<()> {
    tools::target(GUEST_TARGET)?;
    let task = Task::start("building a program with Hyperlight, and its guest");
    let sources = paths::root().join("xtask/peers/hyperlight");
    let built = paths::target().join("peers-build");
    let build = |what: &str| {
        let mut build = cargo();
        build.args(["build", "--release", "--locked"]);
        build
            .current_dir(sources.join(what))
            .env("CARGO_TARGET_DIR", built.join(what));
        build
    };
    command::quietly(&task, &mut build("host"))?;
    let mut guest = build("guest");
    command::quietly(
        &task,
        guest.args(["--target", GUEST_TARGET]).env("RUSTFLAGS", GUEST_FLAGS),
    )?;
    let place = paths::target().join("peers");
    fs::create_dir_all(&place).map_err(Error::file("create", &place))?;
    let guest = format!("guest/{GUEST_TARGET}/release/chiton-peer-hyperlight-guest");
    for from in ["host/release/chiton-peer-hyperlight", &guest] {
        let from = built.join(from);
        let to = place.join(from.file_name().unwrap_or_default());
        copy(&from, &to)?;
    }
    task.done();
    println!("in {}: chiton bench vs --peers {0}", place.display());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    // Another may run just now, and then it cannot be written.
    match fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::file("remove", to)(error)),
        _ => {}
    }
    fs::copy(from, to).map(drop).map_err(Error::file("write", to))
}
