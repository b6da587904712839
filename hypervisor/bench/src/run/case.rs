use serde::{Deserialize, Serialize};

use super::Samples;

/// One thing that is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name, short and stable: comparisons go by group and name.
    pub name: String,
    /// What it belongs with, such as `instructions` or `interrupts`.
    pub group: String,
    /// What is done, in one sentence.
    pub what: String,
    /// The exit that it causes, as the manual of the processor or KVM spells it, if it causes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What the samples are in.
    pub unit: Unit,
    /// The samples, or why there are none.
    pub outcome: Outcome,
}

impl Case {
    /// A case that was measured.
    #[must_use]
    pub fn measured(name: &str, group: &str, what: &str, unit: Unit, repeats: Vec<Samples>) -> Self {
        let outcome = Outcome::Measured(Measured {
            repeats,
            per_operation_exits: None,
            notes: Vec::new(),
        });
        Self::new(name, group, what, unit, outcome)
    }

    /// A case that this machine cannot run, and why.
    #[must_use]
    pub fn skipped(name: &str, group: &str, what: &str, unit: Unit, reason: &str) -> Self {
        Self::new(name, group, what, unit, Outcome::Skipped { reason: reason.into() })
    }

    /// Adds what a reader has to know to understand the figures.
    pub fn note(&mut self, note: impl Into<String>) {
        if let Outcome::Measured(measured) = &mut self.outcome {
            measured.notes.push(note.into());
        }
    }

    fn new(name: &str, group: &str, what: &str, unit: Unit, outcome: Outcome) -> Self {
        Self {
            name: name.into(),
            group: group.into(),
            what: what.into(),
            cause: None,
            unit,
            outcome,
        }
    }

    /// The samples of each repeat; none if the case was skipped.
    #[must_use]
    pub fn repeats(&self) -> &[Samples] {
        match &self.outcome {
            Outcome::Measured(measured) => &measured.repeats,
            Outcome::Skipped { .. } => &[],
        }
    }

    /// How many exits one operation took, where they were counted.
    #[must_use]
    pub fn exits(&self) -> Option<f64> {
        match &self.outcome {
            Outcome::Measured(measured) => measured.per_operation_exits,
            Outcome::Skipped { .. } => None,
        }
    }

    /// What a reader has to know to understand the figures.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        match &self.outcome {
            Outcome::Measured(measured) => &measured.notes,
            Outcome::Skipped { .. } => &[],
        }
    }

    /// How long the processors waited for the host in all repeats, in nanoseconds, if each of them knows.
    #[must_use]
    pub fn steal(&self) -> Option<u64> {
        self.sum(|samples| samples.steal)
    }

    /// How often the measuring thread moved to another processor in all repeats, if each of them knows.
    #[must_use]
    pub fn migrations(&self) -> Option<u64> {
        self.sum(|samples| samples.migrations)
    }

    fn sum(&self, of: fn(&Samples) -> Option<u64>) -> Option<u64> {
        let (first, others) = self.repeats().split_first()?;
        others
            .iter()
            .try_fold(of(first)?, |sum, one| Some(sum.saturating_add(of(one)?)))
    }
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Outcome {
    /// It was measured.
    Measured(Measured),
    /// It was not.
    Skipped {
        /// Why, in one sentence that is never empty.
        reason: String,
    },
}

/// What was measured of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The samples of each repeat, at least one.
    pub repeats: Vec<Samples>,
    /// How many exits one operation took, where they were counted, in the repeat that had the fewest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_operation_exits: Option<f64>,
    /// What a reader has to know to understand the figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What samples are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Billionths of a second.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Ticks of the time stamp counter.
    #[serde(rename = "ticks")]
    Ticks,
    /// Bytes.
    #[serde(rename = "bytes")]
    Bytes,
    /// A number of things.
    #[serde(rename = "count")]
    Count,
}

impl Unit {
    /// The word that the schema and the tables use.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Ticks => "ticks",
            Self::Bytes => "bytes",
            Self::Count => "count",
        }
    }
}
