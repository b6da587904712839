//! The suite of exits on the bare machines: the guest `vmexit` on VMX in Bochs and on SVM in QEMU, and a report of
//! what it records, beside those of KVM.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    bare::{self, Emulated, Input, Model, Processor},
    build, command,
    error::{Error, Result},
    paths,
};

/// Each machine: its name in reports, what emulates it, its guests, and in words.
const MACHINES: [(&str, Emulated, &[Variant], &str); 2] = [
    (
        "vmx",
        Emulated::Bochs(Model::SkylakeX),
        OF_VMX,
        "in Bochs, which emulates the processor: ticks are those of the emulator, the same each time, and no latency \
         of any hardware",
    ),
    (
        "svm",
        Emulated::Qemu(Processor::Svm),
        OF_SVM,
        "in QEMU, which translates the processor's instructions: ticks are the host's, and mostly those of the \
         translation",
    ),
];

/// One guest of a machine.
struct Variant {
    /// What its cases' names end in; nothing for the one that has all cases.
    name: &'static str,
    /// Lines of the `command` file. By pages of 4 KiB, so that each first touch of one is an exit.
    set: &'static [&'static str],
    /// Its cases; all, if there are none.
    cases: &'static [&'static str],
}

/// The guest with all cases.
const ALL: Variant = Variant {
    name: "",
    set: &["memory=64M", "pages=4k"],
    cases: &[],
};
/// What SVM runs: NPT always keeps accessed and dirty flags.
const OF_SVM: &[Variant] = &[ALL];
/// What VMX runs.
const OF_VMX: &[Variant] = &[
    ALL,
    Variant {
        name: "without_ad",
        set: &["memory=64M", "pages=4k", "ept-ad=0"],
        cases: &["null", "first_touch", "walk_heap_warm", "walk_heap_cold"],
    },
    Variant {
        name: "misconfigured",
        set: &["memory=64M", "misconfigure=1", "exits=1"],
        cases: &["null", "first_touch"],
    },
];

impl Variant {
    /// Its words on a file of a machine.
    fn file(&self, machine: &str) -> String {
        match self.name {
            "" => format!("{machine}.records"),
            name => format!("{machine}-{name}.records"),
        }
    }

    /// The guest's arguments.
    fn arguments(&self, measure: &[String]) -> Vec<String> {
        let variant = (!self.name.is_empty()).then(|| format!("variant={}", self.name));
        let cases = self.cases.iter().map(|case| (*case).to_owned());
        measure.iter().cloned().chain(variant).chain(cases).collect()
    }
}

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
    for (name, machine, variants, note) in MACHINES {
        let mut files = Vec::new();
        for variant in variants {
            files.push(record(
                machine,
                variant,
                &variant.arguments(&arguments),
                folder.join(variant.file(name)),
            )?);
        }
        let json = folder.join(format!("{name}.json"));
        let mut read = Command::new(&bench);
        read.args(["exits", "--machine", name, "--note", note]);
        for records in &files {
            read.arg("--records").arg(records);
        }
        read.arg("--json").arg(&json);
        command::openly(&mut read)?;
        eprintln!("  {}", json.display());
    }
    Ok(())
}

/// Runs one guest, and writes what it records into a file, whose name it gives back.
fn record(machine: Emulated, variant: &Variant, arguments: &[String], records: PathBuf) -> Result<PathBuf> {
    let mut printed = Vec::new();
    let set: Vec<_> = variant.set.iter().map(|line| (*line).to_owned()).collect();
    let running = bare::guest("vmexit", &set, arguments, machine)?;
    eprintln!("  running vmexit in {} with {}", running.named(), set.join(" "));
    // Whatever it ends with: what it has recorded until then is worth reading.
    let status = running.run(None, Input::Nothing, &mut printed, |line| eprintln!("{line}"))?;
    if status != 0 {
        eprintln!("  it ended with status {status}");
    }
    fs::write(&records, &printed).map_err(Error::file("write", &records))?;
    eprintln!("  {}", records.display());
    Ok(records)
}
