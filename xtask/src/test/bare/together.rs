//! Several processors: a guest on each, all at once; and guests that have several.

use std::{path::Path, sync::Mutex};

use super::{End, LIMIT, MACHINES, Run, Shared, hosted, image_of, on, run_of, timeless};
use crate::{
    bare::{self, Emulated, Hardware, Input, Processor},
    error::{Error, Result},
    paths,
};

/// How many there are.
const PROCESSORS: usize = 2;

/// Guests that say the same wherever they have two processors.
pub(super) const RUNS: [Run; 6] = [
    run_of(&["interrupts", "call"]).on_cpus(2),
    run_of(&["interrupts", "interrupt"]).on_cpus(2),
    run_of(&["interrupts", "wake"]).on_cpus(2),
    run_of(&["interrupts", "bound"]).with_disk().on_cpus(2),
    run_of(&["interrupts", "elsewhere"]).on_cpus(2),
    run_of(&["flood", "file", "words/many"]).with_folder().on_cpus(2),
];
/// Guests that say how they were lucky, and once they are through; and what is part of that.
pub(super) const OTHERS: [(Run, &str); 2] = [
    (run_of(&["parallel", "2"]).on_cpus(2), "2 processors: "),
    (run_of(&["shootdown"]).on_cpus(2), "20 shoot-downs; "),
];

/// Runs guests with two processors; returns what is wrong.
pub(super) fn several(chiton: &Path) -> Result<Vec<String>> {
    let expected: Vec<_> = RUNS.iter().map(|run| hosted(chiton, run)).collect::<Result<_>>()?;
    let all: Vec<_> = RUNS.into_iter().chain(OTHERS.map(|(run, _)| run)).collect();
    let image = image_of("several", &all)?;
    let mut found = Vec::new();
    for machine in MACHINES.into_iter().take(2) {
        let (named, left, _) = on(machine, &image, &all)?;
        eprintln!("  {} guests with {PROCESSORS} processors in {named}", left.len());
        let (same, others) = left.split_at(RUNS.len());
        for (run, (here, there)) in RUNS.iter().zip(expected.iter().zip(same)) {
            if !here.is_like(there) {
                let words = run.words.join(" ");
                found.push(format!("`{words}` in {named}: {there:#?}\nunder KVM: {here:#?}"));
            }
        }
        for ((run, part), left) in OTHERS.iter().zip(others) {
            if left.status != 0 || !left.said.contains(part) {
                found.push(format!("`{}` in {named}: {left:#?}", run.words.join(" ")));
            }
        }
    }
    Ok(found)
}

/// The status of what could not be run.
const FAILED: i32 = 125;
/// How the hypervisor itself comes to an end: an example, the processor that it is on, and what is said.
const ENDS: [(&str, usize, &[&str]); 3] = [
    (USED_UP, 0, USED_UP_WORDS),
    (USED_UP, 1, USED_UP_WORDS),
    (
        "machine-check",
        0,
        &[
            "the hypervisor met machine check (#MC)",
            "the machine has a fault: status 0x0, of ",
        ],
    ),
];
const USED_UP: &str = "stack-overflow";
const USED_UP_WORDS: &[&str] = &[
    "the stack of this processor is used up: what lies below it is not mapped",
    "the stack for faults of this processor is used up: what lies below it is not mapped",
];

/// Has the hypervisor use up the stacks of the first processor, and those of another, and meet a machine check; returns
/// what is wrong.
pub(super) fn ends() -> Result<Vec<String>> {
    let hardware = Hardware {
        processors: PROCESSORS as u32,
        ..Hardware::default()
    };
    let mut found = Vec::new();
    for (example, on, words) in ENDS {
        let lines = [
            "guest=nobody".into(),
            format!("x-example={example}"),
            format!("on={on}"),
        ];
        let image = bare::image_of("ends", Some(&bare::ramdisk_with(&[], Some(&lines))?))?;
        let machine = Emulated::Qemu(Processor::Svm).boot_with(&image, hardware)?;
        let mut told = Vec::new();
        let status = machine.run(Some(LIMIT), Input::Nothing, std::io::sink(), |line| {
            told.push(line.to_owned());
        })?;
        let is_said = |words: &&str| told.iter().any(|line| line.contains(words));
        if status != FAILED || !words.iter().all(is_said) {
            found.push(format!(
                "{example} on processor {on} ends with {status}, and not with {words:?}: {told:#?}"
            ));
        }
    }
    eprintln!("  {} ends of the hypervisor itself", ENDS.len());
    Ok(found)
}

/// How long a guest runs that does not end by itself, while its processor gets NMIs from the other; and how long it may
/// where none came in that time: QEMU has a thread for each processor, and a busy machine may let one of them wait.
const TIMES: [&str; 2] = ["1s", "20s"];
/// What such a guest runs beside.
const WITH_NMIS: [&str; 9] = [
    "guest=fault",
    "arg=loop",
    "exits=1",
    "",
    "guest=nobody",
    "x-example=machine-nmi",
    "on=1",
    "",
    "",
];
/// What is said of that: of the sender, of the guest, and at the end.
const OF_NMIS: [&str; 4] = [
    "machine-nmi: 20 NMIs for the first processor, and 20 were taken",
    "chiton: fault did not end within ",
    "warning: 20 NMIs of the machine came meanwhile",
    "warning: interrupts of devices came meanwhile, which the firmware has left on: 1",
];
/// The row of exits by them, on VMX and on SVM.
const ROWS: [&str; 2] = ["exception or NMI  ", "NMI  "];
/// The status of a guest that was stopped.
const STOPPED: i32 = 124;

/// Runs `hello` on each processor of a machine with two, and before that has one send NMIs to the other; returns what is
/// wrong.
pub(super) fn run(chiton: &Path) -> Result<Vec<String>> {
    let expected = hosted(chiton, &run_of(&["hello"]))?.said;
    let mut found = Vec::new();
    for machine in MACHINES.into_iter().take(2) {
        for time in TIMES {
            let (wrong, came) = once(machine, time, &expected)?;
            if came || time == TIMES[TIMES.len() - 1] {
                found.extend(wrong);
                break;
            }
        }
    }
    Ok(found)
}

/// The same on one machine, where the guest that does not end by itself runs so long. Returns what is wrong, and whether
/// any of the NMIs came while it ran.
fn once(machine: Emulated, time: &str, expected: &str) -> Result<(Vec<String>, bool)> {
    let file = |name: &str| {
        let path = paths::guests().join(name);
        let content = std::fs::read(&path).map_err(Error::file("read", &path))?;
        Ok((format!("guests/{name}"), content))
    };
    let [guest, rest @ ..] = WITH_NMIS.map(str::to_owned);
    let first = [guest, format!("timeout={time}")].into_iter().chain(rest);
    let lines = (0..PROCESSORS).flat_map(|on| ["guest=hello".into(), format!("on={on}"), String::new()]);
    let lines: Vec<String> = first.chain(lines).collect();
    let ramdisk = bare::ramdisk_with(&[file("hello")?, file("fault")?], Some(&lines))?;
    let image = bare::image_of("together", Some(&ramdisk))?;
    let hardware = Hardware {
        processors: PROCESSORS as u32,
        ..Hardware::default()
    };
    let machine = machine.boot_with(&image, hardware)?;
    let named = machine.named().to_owned();
    let console = Mutex::new(Vec::new());
    let mut ends = Vec::new();
    let mut told = Vec::new();
    let status = machine.run(
        Some(LIMIT * PROCESSORS as u32),
        Input::Nothing,
        Shared(&console),
        |line| match End::parse(line) {
            Some(end) => ends.push(end.status),
            None => told.push(line.to_owned()),
        },
    )?;
    eprintln!("  {PROCESSORS} guests at once in {named}");
    let mut found = Vec::new();
    let console = String::from_utf8_lossy(&console.into_inner().unwrap_or_default()).into_owned();
    for processor in 0..PROCESSORS {
        let prefix = format!("{processor}|");
        let said = console
            .split_inclusive('\n')
            .filter_map(|line| line.strip_prefix(&prefix));
        let said = timeless(&said.collect::<String>());
        if said != expected {
            found.push(format!(
                "processor {processor} of {named} says {said:?}, of {console:?}"
            ));
        }
    }
    let brought_up = told
        .iter()
        .any(|line| *line == format!("chiton: {PROCESSORS} processors"));
    ends.sort_unstable();
    let came = told.iter().any(|line| ROWS.iter().any(|row| line.starts_with(row)));
    let of_nmis = OF_NMIS
        .iter()
        .all(|words| told.iter().any(|line| line.starts_with(words)));
    if (status, &ends[..], brought_up, of_nmis && came) != (STOPPED, &[0, 0, 0, STOPPED], true, true) {
        found.push(format!(
            "{named} ends with {status}, its guests with {ends:?}: {told:?}"
        ));
    }
    Ok((found, came))
}
