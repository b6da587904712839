//! Brings what the nested machine is made of: QEMU, a kernel with KVM modules, a shell.
//!
//! QEMU is installed with apt, which needs root. The kernel and busybox are only unpacked below
//! `target/lab`, which needs no rights at all.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command,
    error::{Error, Result},
    fetch, paths, tools,
    ui::Task,
};

const QEMU: &str = "qemu-system-x86_64";
const QEMU_PACKAGE: &str = "qemu-system-x86";

/// What the nested machine is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The emulator.
    pub(crate) qemu: PathBuf,
    /// The kernel image.
    pub(crate) kernel: PathBuf,
    /// The directory of the kernel's modules.
    pub(crate) modules: PathBuf,
    /// The static busybox.
    pub(crate) busybox: PathBuf,
}

/// Finds all parts, and brings those that are missing.
///
/// # Errors
///
/// If a part is missing and cannot be had here; the error says what to type.
pub(crate) fn parts() -> Result<Parts> {
    let lab = paths::lab();
    fs::create_dir_all(&lab).map_err(Error::file("create", &lab))?;
    let qemu = qemu()?;
    let ((kernel, modules), busybox) = fetch::alone(|| {
        let kernel = kernel(&lab)?;
        Ok((kernel, unpacked(&lab, "busybox-static", "busybox-static")?))
    })?;
    let busybox = busybox.join("bin/busybox");
    let busybox = if busybox.exists() {
        busybox
    } else {
        lab.join("busybox-static/usr/bin/busybox")
    };
    Ok(Parts {
        qemu,
        kernel,
        modules,
        busybox,
    })
}

fn qemu() -> Result<PathBuf> {
    if let Some(path) = command::find(QEMU) {
        return Ok(path);
    }
    if command::find("apt-get").is_none() {
        return Err(Error::Missing(format!(
            "{QEMU} is not installed, and this is no Debian system: install QEMU for x86 with your package manager"
        )));
    }
    tools::debian(QEMU, QEMU_PACKAGE)
}

/// The newest cloud kernel this Debian offers, or the one that was fetched before.
fn kernel(lab: &Path) -> Result<(PathBuf, PathBuf)> {
    let dir = match fetched(lab, "linux-image-") {
        Some(dir) => dir,
        None => {
            let package = newest_kernel().map_or_else(
                || {
                    apt_update_or_say()?;
                    newest_kernel().ok_or_else(|| {
                        Error::Missing(
                            "apt knows no package linux-image-cloud-amd64: the nested machine needs Debian's cloud \
                             kernel, so run this on Debian, or use a machine with /dev/kvm"
                                .into(),
                        )
                    })
                },
                Ok,
            )?;
            unpacked(lab, &package, &package)?
        }
    };
    let kernel = only_child(&dir.join("boot"), "vmlinuz-")?;
    let libs = [dir.join("lib/modules"), dir.join("usr/lib/modules")];
    let libs = libs.iter().find(|libs| libs.exists()).unwrap_or(&libs[0]);
    Ok((kernel, only_child(libs, "")?))
}

fn newest_kernel() -> Option<String> {
    let answer = command::answer(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?;
    kernel_in(&answer)
}

/// The package that the answer of `apt-cache depends linux-image-cloud-amd64` names.
fn kernel_in(answer: &str) -> Option<String> {
    let names = answer.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names
        .map(str::trim)
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
}

/// The content of a Debian package, unpacked once into `lab/name`.
fn unpacked(lab: &Path, name: &str, package: &str) -> Result<PathBuf> {
    let dir = lab.join(name);
    if dir.exists() {
        return Ok(dir);
    }
    if command::find("apt-get").is_none() || command::find("dpkg").is_none() {
        return Err(Error::Missing(format!(
            "the nested machine is made from the Debian package {package}, and this is no Debian system: use a \
             machine with /dev/kvm, or run this in Debian"
        )));
    }
    let task = Task::start(format!("fetching {package}"));
    let part = lab.join(format!("{name}.part"));
    drop(fs::remove_dir_all(&part));
    fs::create_dir_all(&part).map_err(Error::file("create", &part))?;
    let mut download = fetch::apt_get();
    download.args(["download", package]).current_dir(&part);
    if command::quietly(&task, &mut download).is_err() {
        // Old lists name files that the archive no longer has.
        apt_update_or_say()?;
        fetch::quietly(&task, &mut download)?;
    }
    let archive = only_child(&part, package)?;
    command::quietly(
        &task,
        Command::new("dpkg").arg("-x").arg(&archive).arg(part.join("tree")),
    )?;
    fs::remove_file(&archive).map_err(Error::file("remove", &archive))?;
    fs::rename(part.join("tree"), &dir).map_err(Error::file("create", &dir))?;
    drop(fs::remove_dir_all(&part));
    task.done();
    Ok(dir)
}

fn apt_update_or_say() -> Result<()> {
    if !command::is_root() {
        return Err(Error::Missing(
            "apt's lists are empty or old; type: sudo apt-get update".into(),
        ));
    }
    let task = Task::start("updating apt's lists");
    fetch::quietly(&task, fetch::apt_get().arg("update"))?;
    task.done();
    Ok(())
}

/// A directory in `lab` whose name begins with `prefix` and that is complete.
fn fetched(lab: &Path, prefix: &str) -> Option<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(lab)
        .ok()?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(prefix))
        })
        .filter(|path| path.extension().is_none_or(|extension| extension != "part"))
        .collect();
    found.sort();
    found.pop()
}

fn only_child(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).map_err(Error::file("read", dir))?;
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(prefix))
        })
        .ok_or_else(|| {
            Error::Missing(format!(
                "{} holds no `{prefix}*`; remove it and try again",
                dir.display()
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_one_the_meta_package_depends_on() {
        let answer = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(kernel_in(answer).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(kernel_in("linux-image-cloud-amd64\n"), None);
    }
}
