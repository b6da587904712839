//! Makes disk images: builds the kernel, and calls the builder in `xtask/image`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    build, command,
    error::{Error, Result},
    paths, tools,
    ui::Task,
};

/// Where there is no operating system.
const TARGET: &str = "x86_64-unknown-none";

/// The firmware that boots an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A PC's BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }

    /// For people.
    pub(super) const fn named(self) -> &'static str {
        match self {
            Self::Bios => "BIOS",
            Self::Uefi => "UEFI",
        }
    }
}

/// Makes the image `target/image/NAME-KIND.img` with this ramdisk, or without one.
///
/// # Errors
///
/// If kernel or builder do not build, or the image cannot be made.
pub(crate) fn make(kind: Kind, ramdisk: Option<&[u8]>, name: &str) -> Result<PathBuf> {
    make_of(kernel()?, kind, ramdisk, name)
}

/// The same of this kernel.
///
/// # Errors
///
/// As [`make`].
pub(crate) fn make_of(kernel: &Path, kind: Kind, ramdisk: Option<&[u8]>, name: &str) -> Result<PathBuf> {
    let builder = builder()?;
    let dir = paths::images();
    fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
    let image = dir.join(format!("{name}-{}.img", kind.word()));
    // An emulator that still has the one before open keeps it as it was, and so does whoever shares it by a hard link.
    drop(fs::remove_file(&image));
    let mut make = Command::new(builder);
    make.arg(kind.word()).args([kernel, &image]);
    if let Some(ramdisk) = ramdisk {
        let archive = image.with_extension("tar");
        drop(fs::remove_file(&archive));
        fs::write(&archive, ramdisk).map_err(Error::file("write", &archive))?;
        make.arg(archive);
    }
    command::quietly(&Task::silent(), &mut make)?;
    Ok(image)
}

/// The kernel, built: once, for nobody changes it while this runs.
pub(crate) fn kernel() -> Result<&'static Path> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(kernel) = BUILT.get() {
        return Ok(kernel);
    }
    let kernel = build_kernel()?;
    Ok(BUILT.get_or_init(|| kernel))
}

/// The bytes of the kernel, built.
pub(crate) fn kernel_bytes() -> Result<Vec<u8>> {
    let kernel = kernel()?;
    fs::read(kernel).map_err(Error::file("read", kernel))
}

fn build_kernel() -> Result<PathBuf> {
    tools::target(TARGET)?;
    let task = Task::start("building the boot image's kernel");
    let mut cargo = build::cargo();
    cargo.args([
        "build",
        "--profile",
        "bare",
        "--package",
        "chiton-bare",
        "--target",
        TARGET,
    ]);
    command::quietly(&task, &mut cargo)?;
    task.done();
    Ok(paths::target().join(TARGET).join("bare/chiton-bare"))
}

/// The builder of images, built: once, for it takes minutes.
fn builder() -> Result<PathBuf> {
    let (source, target) = (paths::root().join("xtask/image"), paths::target().join("image-builder"));
    let built = target.join("release/chiton-image");
    let of = target.join("built-from");
    let files = ["Cargo.toml", "Cargo.lock", "src/main.rs"].map(|name| source.join(name));
    let mut sources = Vec::new();
    for file in &files {
        sources.extend(fs::read(file).map_err(Error::file("read", file))?);
    }
    if built.exists() && fs::read(&of).is_ok_and(|old| old == sources) {
        return Ok(built);
    }
    let toolchain = tools::boot_loader()?;
    let task = Task::start("building the builder of boot images (once: it takes minutes)");
    let mut cargo = tools::nightly_cargo(toolchain);
    cargo
        .current_dir(&source)
        .args(["build", "--release", "--locked", "--target-dir"])
        .arg(&target)
        // The boot loader's stages are built by a cargo inside this one, which would wait for ever for
        // the lock of a directory that both are told of.
        .env_remove("CARGO_TARGET_DIR");
    // Flags for programs of this machine are wrong for the stages of a boot loader.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command::quietly(&task, &mut cargo)?;
    fs::write(&of, sources).map_err(Error::file("write", &of))?;
    task.done();
    Ok(built)
}
