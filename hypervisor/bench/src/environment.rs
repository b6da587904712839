//! The machine that something was measured on: what can be read of it, and why the rest cannot.

use serde::{Deserialize, Serialize};

use crate::run::Fact;

/// What is known of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The processor's name.
    pub cpu: Fact,
    /// The kernel's release.
    pub kernel: Fact,
}

impl Environment {
    /// Reads what there is to read.
    #[must_use]
    pub fn read() -> Self {
        Self {
            cpu: cpu(),
            kernel: file("/proc/sys/kernel/osrelease"),
        }
    }

    /// Name and value of each fact, in the order in which they are shown.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, &Fact)> {
        vec![("processor", &self.cpu), ("kernel", &self.kernel)]
    }
}

/// What a file holds, without white space around it.
fn file(path: &str) -> Fact {
    match std::fs::read_to_string(path) {
        Ok(text) => Fact::Known(text.trim().into()),
        Err(error) => Fact::Absent(format!("{path}: {error}")),
    }
}

fn cpu() -> Fact {
    let info = file("/proc/cpuinfo");
    let Fact::Known(text) = &info else { return info };
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    match name {
        Some((_, name)) => Fact::Known(name.into()),
        None => Fact::Absent("/proc/cpuinfo has no model name".into()),
    }
}
