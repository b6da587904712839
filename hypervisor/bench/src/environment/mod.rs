//! The machine that something was measured on: what can be read of it, and why the rest cannot.
//!
//! | file | what it reads |
//! |---|---|
//! | `cpu` | the processor, what it is a part of, what it is protected from |
//! | `kvm` | which module runs guests, and with which parameters |
//! | `limits` | the cgroup limits of this process |
//! | `meanwhile` | what disturbed one measurement |

mod cpu;
mod kvm;
mod limits;
mod meanwhile;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use meanwhile::Meanwhile;

use crate::run::{Fact, MAX_TEXT};

/// What is known of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The processor's name.
    pub cpu: Fact,
    /// How many processors there are, and which of them may be used.
    pub processors: Fact,
    /// Whether two processors share a core.
    pub smt: Fact,
    /// The microcode's revision.
    pub microcode: Fact,
    /// Who sets the processor's frequency.
    pub governor: Fact,
    /// Whether this machine is a guest itself, and whether it offers VMX or SVM.
    pub nested: Fact,
    /// The kernel's release.
    pub kernel: Fact,
    /// What the kernel was started with that keeps processors free of other work.
    pub isolated: Fact,
    /// The kernel's clock.
    pub clocksource: Fact,
    /// The module of KVM that drives the processor.
    pub kvm: Fact,
    /// How much processor time and memory the cgroups of this process leave it.
    pub limits: Fact,
    /// Load averages of the last minute, five and fifteen, when the run began.
    pub load: Fact,
    /// Parameters of KVM's modules.
    #[serde(default)]
    pub kvm_parameters: BTreeMap<String, Fact>,
    /// What the kernel does about each weakness of the processor.
    #[serde(default)]
    pub mitigations: BTreeMap<String, Fact>,
}

impl Environment {
    /// Reads what there is to read.
    #[must_use]
    pub fn read() -> Self {
        let info = file("/proc/cpuinfo");
        Self {
            cpu: cpu::field(&info, "model name"),
            processors: cpu::processors(&info),
            smt: cpu::smt(),
            microcode: cpu::field(&info, "microcode"),
            governor: file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            nested: cpu::nested(&info),
            kernel: file("/proc/sys/kernel/osrelease"),
            isolated: cpu::isolated(),
            clocksource: file("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            kvm: kvm::module(),
            limits: limits::read(),
            load: cpu::load(),
            kvm_parameters: kvm::parameters(),
            mitigations: folder("/sys/devices/system/cpu/vulnerabilities"),
        }
    }

    /// Name and value of each fact but the parameters and mitigations, in the order in which they are shown.
    #[must_use]
    pub fn facts(&self) -> [(&'static str, &Fact); 12] {
        [
            ("processor", &self.cpu),
            ("processors", &self.processors),
            ("SMT", &self.smt),
            ("microcode", &self.microcode),
            ("governor", &self.governor),
            ("nested", &self.nested),
            ("kernel", &self.kernel),
            ("isolated processors", &self.isolated),
            ("clock source", &self.clocksource),
            ("KVM module", &self.kvm),
            ("limits", &self.limits),
            ("load", &self.load),
        ]
    }

    /// All that two machines can differ in: the facts but the load, the parameters and the mitigations.
    pub(crate) fn all(&self) -> BTreeMap<String, &Fact> {
        let facts = self.facts().into_iter().filter(|(name, _)| *name != "load");
        let parameters = self.kvm_parameters.iter();
        let mitigations = self.mitigations.iter();
        facts
            .map(|(name, fact)| (name.to_owned(), fact))
            .chain(parameters.map(|(name, fact)| (format!("KVM parameter {name}"), fact)))
            .chain(mitigations.map(|(name, fact)| (format!("mitigation {name}"), fact)))
            .collect()
    }
}

/// What a file holds, without white space around it and no longer than a text may be.
fn file(path: &str) -> Fact {
    match std::fs::read(path) {
        Ok(bytes) => {
            // /proc/cpuinfo repeats itself for each processor: its start is enough.
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]);
            match text.trim() {
                "" => Fact::Absent(format!("{path} is empty")),
                text => Fact::Known(text.into()),
            }
        }
        Err(error) => Fact::Absent(format!("{path}: {error}")),
    }
}

/// What each file of a folder holds, by the file's name; nothing if there is no such folder.
fn folder(path: &str) -> BTreeMap<String, Fact> {
    let files = std::fs::read_dir(path).into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    names
        .take(256)
        .map(|name| {
            let fact = file(&format!("{path}/{name}"));
            (name, fact)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_of_this_machine_is_known_or_says_why_not() {
        let here = Environment::read();
        for (name, fact) in here.all() {
            let (Fact::Known(text) | Fact::Absent(text)) = fact;
            assert!(!text.trim().is_empty() && text.len() <= MAX_TEXT, "{name}: {text:?}");
        }
        assert!(here.kernel.known().is_some());
    }

    #[test]
    fn a_file_that_is_not_there_gives_its_reason() {
        let Fact::Absent(reason) = file("/nowhere/at/all") else {
            panic!("invented");
        };
        assert_eq!(reason, "/nowhere/at/all: No such file or directory (os error 2)");
    }
}
