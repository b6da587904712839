//! What can be seen of a guest: each of `--trace`, `--exits`, `--vmcs`, `--controls` and `--walk`, on either backend.

use std::{fs, io};

use super::LIMIT;
use crate::{
    bare::{self, Emulated, Input, Model, Processor},
    error::{Error, Result},
    paths,
};

/// The lines of `command`.
const LINES: [&str; 7] = [
    "guest=hello",
    "trace=1",
    "exits=1",
    "vmcs=1",
    "controls=1",
    "check=1",
    "walk=0x40000000",
];
/// What has to be in some line, whatever the backend.
const EVERYWHERE: [&str; 5] = [
    "exit 0 at 0x",
    "chiton_guest::entry::exit+0x",
    "exit to host  ",
    "doorbell exit  ",
    "read of 0x40000000 in ring 3",
];
/// The machines, and what has to be in some line of each besides.
const MACHINES: [(Emulated, &[&str]); 2] = [
    (
        Emulated::Bochs(Model::SkylakeX),
        &[
            "I/O instruction: OUT of 4 bytes, port 0xc40 in DX",
            "VM exit  ",
            "VMCS: exit information (read-only)",
            "VMCS: host state",
            "enable EPT   ",
            "EPT PML4 ",
        ],
    ),
    (
        Emulated::Qemu(Processor::Svm),
        &[
            "IN or OUT: out, port 0xc40, 32 bits",
            "#VMEXIT  ",
            "VMCB, control area",
            "VMCB, state-save area",
            "NP   ",
            "NPT PML4 ",
        ],
    ),
];

/// Runs `hello` with all of it on both; returns what is missing.
pub(super) fn run() -> Result<Vec<String>> {
    let path = paths::guests().join("hello");
    let content = fs::read(&path).map_err(Error::file("read", &path))?;
    let ramdisk = bare::ramdisk_with(&[("guests/hello".into(), content)], Some(&LINES.map(str::to_owned)))?;
    let mut found = Vec::new();
    for (machine, of_it) in MACHINES {
        let machine = machine.boot(&machine.image("shown", Some(&ramdisk))?)?;
        let named = machine.named().to_owned();
        let mut lines = Vec::new();
        let status = machine.run(Some(LIMIT), Input::Nothing, io::sink(), |line| {
            lines.push(line.to_owned())
        })?;
        eprintln!("  {} lines about hello in {named}", lines.len());
        let parts = EVERYWHERE.iter().chain(of_it);
        let missing: Vec<_> = parts
            .filter(|part| !lines.iter().any(|line| line.contains(**part)))
            .collect();
        if status != 0 || !missing.is_empty() {
            found.push(format!(
                "{named} ends with {status} and does not show {missing:?}:\n{}",
                lines.join("\n")
            ));
        }
    }
    Ok(found)
}
