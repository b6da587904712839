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
            "NP                                      required  0 or 1   1",
            "NPT PML4 ",
        ],
    ),
];

/// The status of what could not be run.
const FAILED: i32 = 125;
/// A hypervisor that is told to be different with EPT.
struct OfEpt {
    machine: Emulated,
    /// The lines of `command`.
    lines: &'static [&'static str],
    /// How it ends.
    status: i32,
    /// Parts of lines, and what these lines end with.
    parts: &'static [(&'static str, &'static str)],
}

const OF_EPT: [OfEpt; 3] = [
    OfEpt {
        machine: Emulated::Bochs(Model::SkylakeX),
        lines: &["guest=hello", "vmcs=1"],
        status: 0,
        // Bit 6 of the EPTP: accessed and dirty flags.
        parts: &[("  EPT pointer  ", "05e")],
    },
    OfEpt {
        machine: Emulated::Bochs(Model::SkylakeX),
        lines: &["guest=hello", "ept-ad=0", "misconfigure=1", "exits=1", "vmcs=1"],
        status: 0,
        parts: &[("  EPT pointer  ", "01e"), ("EPT misconfiguration  ", "")],
    },
    OfEpt {
        machine: Emulated::Qemu(Processor::Svm),
        lines: &["guest=hello", "misconfigure=1"],
        status: FAILED,
        parts: &[("are of EPT, and this processor has NPT", "take the lines away")],
    },
];

/// Runs `hello` where EPT is different; returns what is missing.
fn of_ept(content: &[u8]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for OfEpt {
        machine,
        lines,
        status: wanted,
        parts,
    } in OF_EPT
    {
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        let ramdisk = bare::ramdisk_with(&[("guests/hello".into(), content.to_vec())], Some(&lines))?;
        let machine = machine.boot(&machine.image("shown", Some(&ramdisk))?)?;
        let named = machine.named().to_owned();
        let mut said = Vec::new();
        let status = machine.run(Some(LIMIT), Input::Nothing, io::sink(), |line| {
            said.push(line.to_owned())
        })?;
        let there = |(part, end): &&(&str, &str)| said.iter().any(|line| line.contains(part) && line.ends_with(end));
        let missing: Vec<_> = parts.iter().filter(|part| !there(part)).collect();
        // All memory is mapped from the beginning, so what is not there is touched by nobody.
        let violates = said.iter().any(|line| line.starts_with("EPT violation  "));
        if status != wanted || !missing.is_empty() || violates {
            found.push(format!(
                "{named} with {lines:?} ends with {status}, and does not show {missing:?}:\n{}",
                said.join("\n")
            ));
        }
    }
    Ok(found)
}

/// A guest that uses 2 MiB, gives it back, and uses it again.
const BALLOON: [&str; 2] = ["guest=balloon", "arg=2"];
/// How the rows of violations begin.
const VIOLATIONS: [&str; 2] = ["EPT violation  ", "nested page fault  "];

/// Runs `balloon` on both, and looks whether what it gives back is out of the tables; returns what is wrong.
fn given_back() -> Result<Vec<String>> {
    let path = paths::guests().join("balloon");
    let content = fs::read(&path).map_err(Error::file("read", &path))?;
    let lines = BALLOON.into_iter().chain(["balloon=8M", "exits=1"]).map(str::to_owned);
    let lines: Vec<_> = lines.collect();
    let ramdisk = bare::ramdisk_with(&[("guests/balloon".into(), content)], Some(&lines))?;
    let mut found = Vec::new();
    for (machine, _) in MACHINES {
        let machine = machine.boot(&machine.image("balloon", Some(&ramdisk))?)?;
        let named = machine.named().to_owned();
        let mut lines = Vec::new();
        let status = machine.run(Some(LIMIT), Input::Nothing, io::sink(), |line| {
            lines.push(line.to_owned());
        })?;
        let told = lines
            .iter()
            .any(|line| line.starts_with("the balloon holds ") && line.contains(" KiB came back in "));
        let violations = lines.iter().find_map(|line| {
            let rest = VIOLATIONS.iter().find_map(|row| line.strip_prefix(row))?;
            rest.trim().parse::<u64>().ok()
        });
        // A page of the 2 MiB is 4 KiB, if the piece that it lies in is.
        if status != 0 || !told || violations.is_none_or(|count| count < 512) {
            found.push(format!(
                "{named} ends with {status} after {violations:?} violations: {lines:#?}"
            ));
        }
    }
    Ok(found)
}

/// Runs `hello` with all of it on both; returns what is missing.
pub(super) fn run() -> Result<Vec<String>> {
    let path = paths::guests().join("hello");
    let content = fs::read(&path).map_err(Error::file("read", &path))?;
    let ramdisk = bare::ramdisk_with(
        &[("guests/hello".into(), content.clone())],
        Some(&LINES.map(str::to_owned)),
    )?;
    let mut found = of_ept(&content)?;
    found.extend(given_back()?);
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
