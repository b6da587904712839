//! QEMU as the machine: an emulated AMD processor with SVM, or this machine's own where KVM nests.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

use super::{
    Hardware,
    emulator::{self, Machine},
    image::Kind,
};
use crate::{
    command,
    error::{Error, Result},
    kvm, paths, tools,
};

/// The firmware of Debian's package ovmf.
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

/// The processor that QEMU shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processor {
    /// An emulated one with SVM.
    Svm,
    /// An emulated one without it.
    WithoutSvm,
    /// An emulated one whose SVM has no nested paging.
    WithoutNestedPaging,
    /// This machine's own, which must nest.
    Own,
}

impl Processor {
    const fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Svm => ["-accel", "tcg", "-cpu", "EPYC,+svm,+npt"],
            Self::WithoutSvm => ["-accel", "tcg", "-cpu", "qemu64,-svm"],
            Self::WithoutNestedPaging => ["-accel", "tcg", "-cpu", "EPYC,+svm,-npt"],
            Self::Own => ["-accel", "kvm", "-cpu", "host"],
        }
    }

    const fn named(self) -> &'static str {
        match self {
            Self::Svm => "QEMU, which emulates a processor with SVM",
            Self::WithoutSvm => "QEMU, which emulates a processor without SVM",
            Self::WithoutNestedPaging => "QEMU, which emulates a processor with SVM, without nested paging",
            Self::Own => "QEMU, on this machine's processor",
        }
    }
}

impl Machine {
    /// Starts QEMU with this image and this hardware.
    ///
    /// # Errors
    ///
    /// If it is not there, cannot show the processor, or does not start.
    pub(crate) fn qemu(image: &Path, kind: Kind, processor: Processor, hardware: Hardware) -> Result<Self> {
        if processor == Processor::Own && !kvm::nests() {
            return Err(Error::Missing(
                "this machine's KVM offers no VMX to its guests, and QEMU emulates none: use `--in bochs`".into(),
            ));
        }
        let program = tools::debian("qemu-system-x86_64", "qemu-system-x86")?;
        let log = paths::images().join("qemu.log");
        let mut qemu = Command::new(&program);
        qemu.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-vga",
            "std",
        ])
        .args(processor.arguments())
        .args(["-m", &format!("{}M", hardware.memory)])
        .args(["-smp", &hardware.processors.to_string()])
        .args(["-serial", "stdio"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-D".as_ref(), log.as_os_str()]);
        if hardware.processors > 1 && kind == Kind::Bios {
            // Most of the memory is above 4 GiB then, as on a machine with much of it: others begin below.
            qemu.args(["-machine", "pc,max-ram-below-4g=128M"]);
        }
        let listener = hardware.line.then(emulator::listen).transpose()?;
        if let Some((_, port)) = &listener {
            qemu.args([
                "-chardev",
                &format!("socket,id=line,host=127.0.0.1,port={port},nodelay=on"),
            ])
            .args(["-serial", "chardev:line"]);
        }
        if hardware.debug_port {
            // The file is the pipe that is our standard error there.
            qemu.args(["-chardev", "file,id=words,path=/dev/stderr"])
                .args(["-device", "isa-debugcon,iobase=0xe9,chardev=words"]);
        }
        let file = image.display().to_string().replace(',', ",,");
        qemu.args(["-drive", &format!("format=raw,snapshot=on,file={file}")]);
        if kind == Kind::Uefi {
            let firmware = tools::debian_file(OVMF, "ovmf")?;
            qemu.arg("-bios").arg(firmware);
        }
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        drop(fs::remove_file(&log));
        command::dies_with_us(&mut qemu);
        let mut child = qemu.spawn().map_err(|source| Error::Start {
            program: program.display().to_string(),
            source,
        })?;
        let (line, serial, words) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let serial = Box::new(serial.expect("it is piped"));
        let words = Box::new(words.expect("it is piped"));
        let (console, words): (Box<dyn Read + Send>, Box<dyn Read + Send>) = if hardware.debug_port {
            (serial, words)
        } else {
            (words, serial)
        };
        let mut machine = Self {
            far: None,
            line: Box::new(line.expect("it is piped")),
            console,
            words,
            children: vec![child],
            log,
            named: processor.named().into(),
        };
        if let Some((listener, _)) = listener {
            machine.far = Some(machine.accept(&listener)?);
        }
        Ok(machine)
    }
}
