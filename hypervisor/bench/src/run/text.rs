use serde::{Deserialize, Serialize};

/// Something about the machine: known, or absent for a reason. Nothing is ever guessed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fact {
    /// What it is.
    Known(String),
    /// Why it is not known.
    Absent(String),
}

impl Fact {
    /// What it is, if that is known.
    #[must_use]
    pub fn known(&self) -> Option<&str> {
        match self {
            Self::Known(text) => Some(text),
            Self::Absent(_) => None,
        }
    }
}

impl std::fmt::Display for Fact {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(text) => to.write_str(text),
            Self::Absent(reason) => write!(to, "unknown ({reason})"),
        }
    }
}
