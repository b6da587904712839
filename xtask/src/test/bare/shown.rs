//! What can be seen of a guest: each of `--trace`, `--exits`, `--vmcs`, `--controls`, `--check` and `--walk`, on either
//! backend; and what is said of one that cannot be entered.

use std::{fs, io};

use super::{End, LIMIT, runs::FAULT};
use crate::{
    bare::{self, Emulated, Input, Model, Processor},
    error::{Error, Result},
    paths,
};

/// The lines of `command`.
const LINES: [&str; 8] = [
    "guest=hello",
    "trace=1",
    "exits=1",
    "vmcs=1",
    "controls=1",
    "check=1",
    "walk=0x40000000",
    "walk=0x200000",
];
/// What has to be in some line, whatever the backend.
const EVERYWHERE: [&str; 8] = [
    "exit 0 at 0x",
    "chiton_guest::entry::exit+0x",
    "exit to host  ",
    "doorbell exit  ",
    "read of 0x40000000 in ring 3",
    // The guest is entered that often at least, or the check was none.
    "held before each of ",
    "read of 0x200000 in ring 3",
    "the processor remembers it as a page of ",
];
/// A case by which the VMCS or VMCB is broken, what the hardware calls that, and the sentence in parts: what the field
/// is, the rule with its section.
struct Broken {
    case: &'static str,
    reason: &'static str,
    field: &'static str,
    rule: &'static str,
}

/// Controls, host state and guest state.
const OF_VMX: [Broken; 3] = [
    Broken {
        case: "VPID 0",
        reason: "0x7",
        field: "  virtual-processor identifier is 0x0: ",
        rule: "with \"enable VPID\", it is not 0, which is the hypervisor's own (SDM volume 3C, section 28.2.1.1)",
    },
    Broken {
        case: "host TR level 2",
        reason: "0x8",
        field: "  host TR selector is 0x",
        rule: ": the requested privilege level (bits 1:0) and the table indicator (bit 2) are 0 (SDM volume 3C, section 28.2.3)",
    },
    Broken {
        case: "CS not accessed",
        reason: "0x80000021",
        field: "  guest CS access rights is 0x",
        rule: "the type (bits 3:0) is that of accessed code: ",
    },
];
/// A VMCB has controls, an event, and the guest's state; that of the host is elsewhere.
const OF_SVM: [Broken; 3] = [
    Broken {
        case: "guest ASID: 0x0",
        reason: "0xffffffffffffffff",
        field: "  guest ASID is 0x0: ",
        rule: "0 is the host's (APM volume 2, section 15.5.1)",
    },
    Broken {
        case: "EVENTINJ: exception 2",
        reason: "0xffffffffffffffff",
        field: "  EVENTINJ is 0x80000302: ",
        rule: "an exception has a vector below 32 that is not the NMI's (APM volume 2, section 15.20)",
    },
    Broken {
        case: "EFER: bit 12 cleared",
        reason: "0xffffffffffffffff",
        field: "  EFER is 0x",
        rule: ": SVME must be set (APM volume 2, section 15.5.1)",
    },
];

impl Broken {
    /// The lines of `command` for a guest that is broken so.
    fn lines(&self, check: bool) -> [String; 4] {
        [
            String::new(),
            "guest=hello".into(),
            format!("break={}", self.case),
            format!("check={}", u8::from(check)),
        ]
    }

    /// What of it is not in what was said, of a guest with `check=1` or without.
    fn missing(&self, check: bool, said: &[String]) -> Option<String> {
        let refused = if check {
            "the processor would refuse to enter the guest, so it was not tried".into()
        } else {
            format!(
                "the processor refused to enter the guest (hardware reason {})",
                self.reason
            )
        };
        let told = said.iter().any(|line| line.ends_with(&refused));
        let named = said
            .iter()
            .any(|line| line.starts_with(self.field) && line.contains(self.rule));
        (!told || !named).then(|| {
            format!(
                "{:?} with check={check}: {refused:?} and {}{} are not both in {said:#?}",
                self.case, self.field, self.rule
            )
        })
    }
}

/// The machines, what has to be in some line of each besides, and how guests are broken there.
const MACHINES: [(Emulated, &[&str], [Broken; 3]); 2] = [
    (
        Emulated::Bochs(Model::SkylakeX),
        &[
            "I/O instruction: OUT of 4 bytes, port 0xc40 in DX",
            "VM exit  ",
            "VMCS: exit information (read-only)",
            "VMCS: controls",
            "VMCS: guest state",
            "VMCS: host state",
            "enable EPT   ",
            "EPT PML4 ",
            "entry check: all ",
        ],
        OF_VMX,
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
            "entry check: every rule of VMRUN ",
        ],
        OF_SVM,
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
        // VMXON is refused as long as IA32_FEATURE_CONTROL is not locked.
        machine: Emulated::Bochs(Model::Unsettled),
        lines: &["guest=hello", "vmcs=1"],
        status: 0,
        // Bit 6 of the EPTP: accessed and dirty flags.
        parts: &[("  EPT pointer  ", "with accessed and dirty flags")],
    },
    OfEpt {
        machine: Emulated::Bochs(Model::SkylakeX),
        lines: &["guest=hello", "ept-ad=0", "misconfigure=1", "exits=1", "vmcs=1"],
        status: 0,
        parts: &[
            ("  EPT pointer  ", "without accessed and dirty flags"),
            ("EPT misconfiguration  ", ""),
        ],
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
    for (machine, ..) in MACHINES {
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

/// Runs `hello` with all of it on both, and after it some that cannot be entered; returns what is missing.
pub(super) fn run() -> Result<Vec<String>> {
    let path = paths::guests().join("hello");
    let content = fs::read(&path).map_err(Error::file("read", &path))?;
    let mut found = of_ept(&content)?;
    found.extend(given_back()?);
    for (machine, of_it, broken) in &MACHINES {
        let twice = || broken.iter().flat_map(|broken| [(broken, false), (broken, true)]);
        let mut lines = LINES.map(str::to_owned).to_vec();
        lines.extend(twice().flat_map(|(broken, check)| broken.lines(check)));
        let ramdisk = bare::ramdisk_with(&[("guests/hello".into(), content.clone())], Some(&lines))?;
        let machine = machine.boot(&machine.image("shown", Some(&ramdisk))?)?;
        let named = machine.named().to_owned();
        // What is said of each guest, and how it ends.
        let mut guests = Vec::new();
        let mut said = Vec::new();
        let status = machine.run(Some(LIMIT), Input::Nothing, io::sink(), |line| match End::parse(line) {
            Some(end) => guests.push((end.status, std::mem::take(&mut said))),
            None => said.push(line.to_owned()),
        })?;
        let [(first, lines), others @ ..] = &guests[..] else {
            found.push(format!("{named} ran no guest: {said:#?}"));
            continue;
        };
        eprintln!(
            "  {} lines about hello in {named}, {} broken",
            lines.len(),
            others.len()
        );
        let parts = EVERYWHERE.iter().chain(*of_it);
        let missing: Vec<_> = parts
            .filter(|part| !lines.iter().any(|line| line.contains(**part)))
            .collect();
        if *first != 0 || !missing.is_empty() {
            found.push(format!(
                "{named} ends with {first} and does not show {missing:?}:\n{}",
                lines.join("\n")
            ));
        }
        if status != FAULT || others.len() != twice().count() {
            found.push(format!("{named} ends with {status} after {} guests", guests.len()));
        }
        for ((broken, check), (status, said)) in twice().zip(others) {
            let missing = broken.missing(check, said);
            found.extend(missing.map(|missing| format!("{named}: {missing}")));
            if *status != FAULT {
                found.push(format!("{named}: {:?} ends with {status}", broken.case));
            }
        }
    }
    Ok(found)
}
