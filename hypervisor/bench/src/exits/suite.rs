//! The suite: machines for all cases, one after the other, each a process of its own.
//!
//! A guest that hangs, faults or is killed costs the case that it was at: that one has its end for a reason, and the
//! rest goes on in a new machine.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use chiton_kvm::platform::KvmKind;
use chiton_shared::measure::REASON_MAX;

use super::catalogue::{Entry, Needs, of_guest};
use super::convert::{self, NULL};
use super::machine::{Setup, processors, seen, trace};
use super::records::{News, Records};
use super::{ExitsError, calibrate, host_calls};
use crate::Result;
use crate::run::{Calibration, Case};
use crate::words::plain;

/// The longest line of a guest, in bytes.
const MAX_LINE: u64 = 64 << 10;

/// What is to be measured, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The guest's file.
    pub guest: PathBuf,
    /// How often each case is repeated.
    pub repeats: u32,
    /// How many samples each repeat has.
    pub samples: u32,
    /// How many come first that are thrown away.
    pub warm_up: u32,
    /// How long a guest may say nothing before it is ended.
    pub patience: Duration,
    /// The cases, in the order in which they are shown.
    pub cases: Vec<&'static Entry>,
}

/// Whoever follows what is being measured.
pub trait Follow {
    /// This case has begun.
    fn begin(&mut self, name: &str);
    /// This one is done.
    fn done(&mut self, case: &Case);
}

impl Plan {
    /// Measures all cases. They come in the order of the plan.
    ///
    /// # Errors
    ///
    /// If no machine can be started, or one says what no measuring guest says.
    pub fn run(&self, follow: &mut impl Follow) -> Result<(Calibration, Vec<Case>)> {
        let kind = KvmKind::detect();
        let tsc_hz = calibrate::tsc_hz();
        let mut null_ticks = None;
        let mut why_not = "there was no case to measure".to_owned();
        let mut cases = Vec::new();
        for (setup, entries) in self.machines(kind) {
            let mut pending = entries;
            while !pending.is_empty() {
                let told = self.one(setup, kind, &pending, follow)?;
                let null = convert::null_ticks(&told.records);
                null_ticks = null_ticks.or(null);
                if null.is_none() {
                    why_not.clone_from(&told.why);
                }
                let notes = notes(setup, kind, null);
                let before = pending.len();
                let mut rest = Vec::new();
                for entry in pending {
                    let case = match told.records.get(of_guest(entry.name)) {
                        _ if told.lost.as_deref() == Some(of_guest(entry.name)) => convert::skipped(entry, &told.why),
                        Some(recorded) => convert::case(entry, recorded, null.unwrap_or(0), &notes)?,
                        None => {
                            rest.push(entry);
                            continue;
                        }
                    };
                    follow.done(&case);
                    cases.push(case);
                }
                // A machine that does not even begin: nothing will come of the others in such a one.
                if rest.len() == before {
                    for entry in std::mem::take(&mut rest) {
                        let case = convert::skipped(entry, &told.why);
                        follow.done(&case);
                        cases.push(case);
                    }
                }
                pending = rest;
            }
        }
        for entry in &self.cases {
            let Needs::Bare(why_not) = entry.needs else { continue };
            let case = convert::skipped(entry, why_not);
            follow.done(&case);
            cases.push(case);
        }
        let of_host: Vec<_> = self
            .cases
            .iter()
            .copied()
            .filter(|entry| entry.needs == Needs::Host)
            .collect();
        if !of_host.is_empty() {
            let (null, measured) = host_calls::measure(self, &of_host, |case| follow.done(case))?;
            null_ticks = null_ticks.or(Some(null));
            cases.extend(measured);
        }
        let place = |case: &Case| self.cases.iter().position(|entry| entry.name == case.name);
        cases.sort_by_key(place);
        let null_ticks = null_ticks.ok_or(ExitsError::Nothing(why_not))?;
        Ok((Calibration { tsc_hz, null_ticks }, cases))
    }

    /// The machines, and which cases run in each.
    fn machines(&self, kind: KvmKind) -> Vec<(Setup, Vec<&'static Entry>)> {
        let mut machines: Vec<(Setup, Vec<_>)> = Vec::new();
        for entry in &self.cases {
            let Some(setup) = setup(kind, entry.needs) else {
                continue;
            };
            match machines.iter_mut().find(|(other, _)| *other == setup) {
                Some((_, entries)) => entries.push(*entry),
                None => machines.push((setup, vec![*entry])),
            }
        }
        machines
    }

    /// Runs one machine as far as it comes.
    fn one(&self, setup: Setup, kind: KvmKind, entries: &[&Entry], follow: &mut impl Follow) -> Result<Told> {
        let mut command = self.command(setup, kind, entries)?;
        let mut child = command.spawn().map_err(ExitsError::system("start a machine"))?;
        let heard = self.hear(&mut child, follow);
        // Whatever it has said, it has to end.
        let process = child.id();
        let status = end(child)?;
        if setup.traced {
            trace::remove(process);
        }
        let (records, why) = heard?;
        let lost = records.open().map(str::to_owned);
        Ok(Told {
            lost,
            why: why.unwrap_or(status),
            records,
        })
    }

    /// What a machine says, until it says nothing more, and its own words on its end.
    fn hear(&self, child: &mut Child, follow: &mut impl Follow) -> Result<(Records, Option<String>)> {
        let lines = reader(child)?;
        let mut records = Records::default();
        let mut why = None;
        for number in 1.. {
            let line = match lines.recv_timeout(self.patience) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = self.patience.as_secs();
                    why = Some(format!(
                        "the guest hung: it said nothing for {seconds} s, and was ended"
                    ));
                    break;
                }
            };
            if let Some(words) = line.strip_prefix('!') {
                // Some of them are the guest's, which may panic with any text.
                why = Some(plain(words).chars().take(REASON_MAX).collect());
                continue;
            }
            if let Some(seen) = seen::read(&line) {
                if let Some(repeat) = records.last_repeat() {
                    repeat.seen = seen;
                }
                continue;
            }
            let news = records.take(number, &line).map_err(|source| ExitsError::Records {
                from: self.guest.display().to_string(),
                source,
            })?;
            if let (News::Begun, Some(case)) = (news, records.open()) {
                follow.begin(case);
            }
        }
        Ok((records, why))
    }

    fn command(&self, setup: Setup, kind: KvmKind, entries: &[&Entry]) -> Result<Command> {
        let own = std::env::current_exe().map_err(ExitsError::system("find this program's own file"))?;
        let mut command = Command::new(own);
        command
            .arg("machine")
            .arg("--ring")
            .arg(setup.ring.to_string())
            .arg("--processors")
            .arg(setup.processors.to_string());
        for (flag, on) in [
            ("--interrupts", setup.interrupts),
            ("--walks", setup.walks),
            ("--hosted", setup.hosted),
            ("--traced", setup.traced),
            ("--large", setup.large),
        ] {
            command.args(on.then_some(flag));
        }
        command
            .arg(&self.guest)
            .arg("--")
            .arg(format!("repeats={}", self.repeats))
            .arg(format!("samples={}", self.samples))
            .arg(format!("warmup={}", self.warm_up));
        if is_interpreted(setup, kind) {
            command.arg("clock=plain");
        }
        command.arg(NULL).args(entries.iter().map(|entry| of_guest(entry.name)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Ok(command)
    }
}

/// What came of one machine.
struct Told {
    records: Records,
    /// The case at which it ended.
    lost: Option<String>,
    /// Why.
    why: String,
}

/// The machine for a case, on this kind of KVM; none for what needs no such guest.
fn setup(kind: KvmKind, needs: Needs) -> Option<Setup> {
    // Where ring 0 is interpreted, what can be measured in ring 3 is.
    let any = if kind.runs_ring_0() { 0 } else { 3 };
    let plain = Setup {
        ring: any,
        processors: 1,
        interrupts: false,
        walks: false,
        hosted: false,
        traced: false,
        large: false,
    };
    let ring0 = Setup { ring: 0, ..plain };
    let interrupts = Setup {
        interrupts: true,
        ..ring0
    };
    let walks = Setup { walks: true, ..plain };
    Some(match needs {
        Needs::Any => plain,
        Needs::Ring0 => ring0,
        Needs::Interrupts => interrupts,
        Needs::Pair => Setup {
            processors: 2,
            ..interrupts
        },
        Needs::AnyPair => Setup { processors: 2, ..plain },
        Needs::Walk => walks,
        Needs::WalkLarge => Setup { large: true, ..walks },
        Needs::Traced => Setup { traced: true, ..plain },
        Needs::Hosted => Setup { hosted: true, ..plain },
        Needs::Host | Needs::Bare(_) => return None,
    })
}

const fn is_interpreted(setup: Setup, kind: KvmKind) -> bool {
    setup.ring == 0 && !kind.runs_ring_0()
}

/// What a reader has to know of all cases of a machine.
fn notes(setup: Setup, kind: KvmKind, null: Option<u64>) -> Vec<String> {
    let mut notes = Vec::new();
    if is_interpreted(setup, kind) {
        let null = null.unwrap_or(0);
        notes.push(format!(
            "ring 0 is interpreted by this KVM, instruction by instruction: nothing at all took {null} ticks there, \
             which are taken off"
        ));
    }
    if setup.traced {
        notes.push("with tracepoints of the kernel switched on, which take their time too".into());
    }
    if setup.processors > 1 && processors() < 2 {
        notes.push(
            "this process may use one processor, which both of the guest's share: it is the scheduler that is measured"
                .into(),
        );
    }
    notes
}

/// The lines of a machine, as they come.
fn reader(child: &mut Child) -> Result<Receiver<String>> {
    let missing = || std::io::Error::other("it has no output");
    let output = child
        .stdout
        .take()
        .ok_or_else(missing)
        .map_err(ExitsError::system("read from a machine"))?;
    let (tell, told) = sync_channel(64);
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        loop {
            let mut line = Vec::new();
            match output.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if tell.send(line).is_err() {
                break;
            }
        }
    });
    Ok(told)
}

/// Ends a machine that has not ended, and says how it did.
fn end(mut child: Child) -> Result<String> {
    // It may be in the middle of something that nothing but this ends.
    let _ = child.kill();
    let status = child.wait().map_err(ExitsError::system("wait for a machine"))?;
    Ok(format!("the machine ended before: {status}"))
}

/// Where the guest `vmexit` is: beside this program as it is built, or where it is installed.
#[must_use]
pub fn find_guest() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let near = own.ancestors().skip(1).flat_map(|folder| {
        ["guests/vmexit", "vmexit", "share/chiton/guests/vmexit"].map(|path| Path::new(folder).join(path))
    });
    near.take(15).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::CASES;
    use super::*;

    fn plan() -> Plan {
        Plan {
            guest: PathBuf::new(),
            repeats: 1,
            samples: 1,
            warm_up: 0,
            patience: Duration::from_secs(1),
            cases: CASES.iter().collect(),
        }
    }

    #[test]
    fn every_case_of_a_guest_has_a_machine() {
        for kind in [KvmKind::Vmx, KvmKind::Svm, KvmKind::Software] {
            let machines = plan().machines(kind);
            let cases: usize = machines.iter().map(|(_, entries)| entries.len()).sum();
            let of_guests = CASES.iter().filter(|entry| setup(kind, entry.needs).is_some());
            assert_eq!(cases, of_guests.count());
        }
    }

    #[test]
    fn no_machine_has_a_case_of_the_guest_twice() {
        for (_, entries) in plan().machines(KvmKind::Vmx) {
            let mut names: Vec<_> = entries.iter().map(|entry| of_guest(entry.name)).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }

    #[test]
    fn where_ring_0_is_interpreted_only_what_needs_it_runs_there() {
        for (setup, entries) in plan().machines(KvmKind::Software) {
            let needs = |entry: &&Entry| matches!(entry.needs, Needs::Ring0 | Needs::Interrupts | Needs::Pair);
            assert_eq!(entries.iter().all(needs), setup.ring == 0);
        }
    }
}
