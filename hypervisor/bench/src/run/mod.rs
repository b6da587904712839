//! The versioned schema: what one invocation measured, on which machine, and what it could not.
//!
//! ```text
//! Run ── Environment                   one invocation
//!  └── Case* ── Outcome                one thing that is measured, or the reason why not
//!                └── Samples*          one repeat: values and how often each was seen
//! ```

mod case;
mod file;
mod samples;
mod text;

use serde::{Deserialize, Serialize};

pub use case::{Case, Measured, Outcome, Unit};
pub use file::{check_place, write};
pub use samples::{Disturbed, Samples, SamplesBuilder};
pub use text::Fact;

use crate::environment::Environment;

/// The version of the schema that is read and written. A change that an older reader would
/// misunderstand takes the next number.
pub const SCHEMA: &str = "chiton-bench/1";

/// What the name of a case begins with that is a phase of its group: the phases of a group follow one another in time,
/// in the order of the cases.
pub const PHASE: &str = "phase: ";

/// What the name of a group ends with whose cases were measured with so many instances: a number is before it.
pub const GROWTH: &str = " instances";

/// How many cases a run may have.
pub const MAX_CASES: usize = 4096;

/// How many repeats a case may have.
pub const MAX_REPEATS: usize = 1024;

/// How many different values the samples of one repeat may have: more than a histogram of all 64-bit
/// numbers to three digits has.
pub const MAX_VALUES: usize = 65_536;

/// How long a text may be, in bytes.
pub const MAX_TEXT: usize = 4096;

/// One invocation of a measuring command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Which command measured.
    pub kind: Kind,
    /// What was measured.
    pub chiton: Version,
    /// What ran the guest.
    pub machine: Machine,
    /// How many hypervisors lay between the guest and the machine that the suite was started on: 0 natively,
    /// 1 in a guest, 2 in a guest of a guest.
    pub level: u8,
    /// When it began, RFC 3339 in UTC.
    pub started: String,
    /// The machine.
    pub environment: Environment,
    /// The clock, if cases count its ticks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// What was measured, in the order in which it is shown. No two have the same name and group.
    pub cases: Vec<Case>,
}

impl Run {
    /// A run that begins now, without cases.
    #[must_use]
    pub fn begin(kind: Kind, machine: Machine, level: u8) -> Self {
        Self {
            schema: SCHEMA.into(),
            kind,
            chiton: Version::built(),
            machine,
            level,
            started: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            environment: Environment::read(),
            calibration: None,
            cases: Vec::new(),
        }
    }
}

/// Which command measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What exits cost.
    Exits,
    /// From exec to the end of a guest, phase by phase.
    Start,
    /// Many instances at a time.
    Density,
    /// Chiton beside its peers.
    Vs,
    /// Guest functions, each called in pristine state.
    Calls,
}

impl Kind {
    /// The word that the schema and the command line use.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Exits => "exits",
            Self::Start => "start",
            Self::Density => "density",
            Self::Vs => "vs",
            Self::Calls => "calls",
        }
    }
}

/// What ran the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Machine {
    /// Linux's KVM.
    Kvm,
    /// Chiton on bare metal, Intel.
    Vmx,
    /// Chiton on bare metal, AMD.
    Svm,
    /// Nothing: no guest.
    Native,
}

impl Machine {
    /// The word that the schema and the tables use.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Vmx => "vmx",
            Self::Svm => "svm",
            Self::Native => "native",
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// As `chiton --version` has it.
    pub version: String,
    /// The commit that it was built of.
    pub commit: Fact,
}

impl Version {
    /// What this program was built of, `chiton` being built with it.
    #[must_use]
    pub fn built() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: match option_env!("CHITON_COMMIT") {
                Some(commit) => Fact::Known(commit.into()),
                None => Fact::Absent("not built by cargo xtask bench".into()),
            },
        }
    }
}

/// The processor's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Ticks of the time stamp counter in a second, by the host's monotonic clock.
    pub tsc_hz: u64,
    /// What the measuring itself costs: the median of an empty loop, in ticks. Cases that count ticks have
    /// it subtracted already.
    pub null_ticks: u64,
}
