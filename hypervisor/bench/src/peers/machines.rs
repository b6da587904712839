//! Monitors of machines: QEMU, Firecracker, Solo5, Hyperlight.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use super::{Bed, MACHINES, Peer, Ready, ours, payload};
use crate::trial::{Program, Result, TrialError};

const QEMU: &str = "qemu-system-x86_64";

/// QEMU's smallest machine, on KVM.
pub const QEMU_KVM: Peer = Peer {
    name: "QEMU microvm",
    group: MACHINES,
    what: "the machine microvm on KVM, 16 MiB, no devices but a serial port, and the smallest kernel there is",
    against: ours::UNJAILED.name,
    // A KVM that may not set that register ends QEMU, which insists.
    prepare: |bed| qemu(bed, &["-accel", "kvm", "-cpu", "host,-arch-capabilities"]),
};

/// The same without KVM.
pub const QEMU_TCG: Peer = Peer {
    name: "QEMU microvm, emulated",
    group: MACHINES,
    what: "the same without KVM: QEMU translates the guest's instructions (TCG)",
    against: ours::UNJAILED.name,
    prepare: |bed| qemu(bed, &["-accel", "tcg", "-cpu", "max"]),
};

/// Firecracker.
pub const FIRECRACKER: Peer = Peer {
    name: "Firecracker",
    group: MACHINES,
    what: "firecracker --no-api with one processor, 16 MiB and the smallest kernel there is; its filter, no jailer",
    against: ours::UNJAILED.name,
    prepare: firecracker,
};

/// Solo5 with its hypervisor monitor.
pub const SOLO5: Peer = Peer {
    name: "Solo5 hvt",
    group: MACHINES,
    what: "solo5-hvt with 4 MiB and Solo5's own test_hello",
    against: ours::UNJAILED.name,
    prepare: solo5,
};

/// Hyperlight.
pub const HYPERLIGHT: Peer = Peer {
    name: "Hyperlight",
    group: MACHINES,
    what: "a program that makes a Hyperlight sandbox, calls one function of its guest, and ends",
    against: ours::UNJAILED.name,
    prepare: |bed| {
        let program = bed.find(
            "chiton-peer-hyperlight",
            "`cargo xtask peers` builds it; name its folder with --peers",
        )?;
        let command = Command::new(&program);
        Ready::greets("Hyperlight", &program, command)
    },
};

/// The kernel in a file.
fn kernel(bed: &Bed<'_>) -> Result<PathBuf> {
    let path = bed.place.join("kernel");
    fs::write(&path, payload::kernel()).map_err(TrialError::file("write", &path))?;
    Ok(path)
}

fn qemu(bed: &Bed<'_>, accelerator: &[&str]) -> Result<Ready> {
    let program = bed.find(QEMU, "apt-get install qemu-system-x86")?;
    let mut command = Command::new(&program);
    command
        .args(["-M", "microvm,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on"])
        .args(accelerator)
        .args(["-m", "16", "-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-serial", "stdio", "-no-reboot", "-kernel"])
        .arg(kernel(bed)?);
    Ready::greets("QEMU", &program, command)
}

fn firecracker(bed: &Bed<'_>) -> Result<Ready> {
    let program = bed.find(
        "firecracker",
        "Debian has none: https://github.com/firecracker-microvm/firecracker/releases",
    )?;
    let config = bed.place.join("firecracker.json");
    let text = json!({
        "boot-source": { "kernel_image_path": kernel(bed)? },
        "machine-config": { "vcpu_count": 1, "mem_size_mib": 16 },
        "drives": [],
    });
    fs::write(&config, text.to_string()).map_err(TrialError::file("write", &config))?;
    let mut command = Command::new(&program);
    command.args(["--no-api", "--config-file"]).arg(&config);
    Ready::greets("Firecracker", &program, command)
}

fn solo5(bed: &Bed<'_>) -> Result<Ready> {
    const GUEST: &str = "test_hello.hvt";
    let how = "Debian has none: build https://github.com/Solo5/solo5, and name its folder with --peers";
    let program = bed.find("solo5-hvt", how)?;
    let guest = bed.find(GUEST, how)?;
    Ok(Ready {
        version: first_line(&program),
        program: Program::new("Solo5", {
            let mut command = Command::new(&program);
            command.arg("--mem=4").arg(guest).arg("Hello_Solo5");
            command
        }),
        expected: "SUCCESS",
        note: None,
    })
}

/// What a program says of itself that ends `--version` with another status than 0.
fn first_line(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let said = output
        .map(|output| [output.stdout, output.stderr].concat())
        .unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    said.lines().next().unwrap_or("unknown").to_owned()
}
