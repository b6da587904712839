//! The suite of exits on the bare machines: the guest `vmexit` on VMX in Bochs and on SVM in QEMU, and a report of
//! what it records, beside those of KVM.

use std::{fs, process::Command};

use crate::{
    bare::{self, Emulated, Input, Model, Processor},
    build, command,
    error::{Error, Result},
    paths,
};

/// Each machine: its name in reports, what emulates it, and in words.
const MACHINES: [(&str, Emulated, &str); 2] = [
    (
        "vmx",
        Emulated::Bochs(Model::SkylakeX),
        "in Bochs, which emulates the processor: ticks are those of the emulator, the same each time, and no latency \
         of any hardware",
    ),
    (
        "svm",
        Emulated::Qemu(Processor::Svm),
        "in QEMU, which translates the processor's instructions: ticks are the host's, and mostly those of the \
         translation",
    ),
];

/// Runs the guest on both, and writes records and measurements into `target/bench`; prints each as a table.
///
/// # Errors
///
/// If something does not build or run.
pub(super) fn run(samples: u32, repeats: u32) -> Result<()> {
    let bench = build::bench()?;
    let folder = paths::target().join("bench");
    fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    let arguments = [
        format!("samples={samples}"),
        format!("repeats={repeats}"),
        "warmup=10".into(),
    ];
    for (name, machine, note) in MACHINES {
        let mut printed = Vec::new();
        let running = bare::guest("vmexit", &arguments, machine)?;
        eprintln!("  running vmexit in {}", running.named());
        // Whatever it ends with: what it has recorded until then is worth reading.
        let status = running.run(None, Input::Nothing, &mut printed, |line| eprintln!("{line}"))?;
        if status != 0 {
            eprintln!("  it ended with status {status}");
        }
        let records = folder.join(format!("{name}.records"));
        fs::write(&records, &printed).map_err(Error::file("write", &records))?;
        let json = folder.join(format!("{name}.json"));
        let mut read = Command::new(&bench);
        read.args(["exits", "--machine", name, "--note", note, "--records"])
            .arg(&records)
            .arg("--json")
            .arg(&json);
        command::openly(&mut read)?;
        eprintln!("  {} and {}", records.display(), json.display());
    }
    Ok(())
}
