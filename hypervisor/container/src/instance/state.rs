//! Where an instance is in its life.
//!
//! ```text
//!            start            the process ends
//!  created ───────▶ running ───────────────────▶ exited ──start──▶ running …
//!                    │   ▲                          │
//!              pause │   │ resume        a policy   ▼
//!                    ▼   │               restarting ──▶ running
//!                   paused
//! ```

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment: written as RFC 3339 has it, in UTC, to the microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(SystemTime);

impl Time {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(UNIX_EPOCH + Duration::from_micros(since.as_micros() as u64))
    }

    /// As the standard library has it.
    #[must_use]
    pub const fn system_time(self) -> SystemTime {
        self.0
    }

    /// How long ago it was; no time at all if the clock was set back.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed().unwrap_or_default()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&humantime::format_rfc3339_micros(self.0).to_string())
    }
}

impl TryFrom<String> for Time {
    type Error = humantime::TimestampError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        humantime::parse_rfc3339(&text).map(Self)
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was made and has not been started.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// Its process is stopped and can go on.
    Paused,
    /// Its process ended, and is about to be started again.
    Restarting,
    /// Its process has ended.
    Exited,
}

impl Status {
    /// Whether it has a supervisor.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        })
    }
}

/// Who ended a process that did not end by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Killer {
    /// Somebody, by this signal.
    Signal(i32),
    /// The kernel, since memory ran out: a sentence that says at which limit.
    OutOfMemory(String),
    /// The filter of its jail: a sentence that says for which system call.
    Filter(String),
    /// Nobody knows: its supervisor was killed first.
    Unknown,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The status that a shell would have: that of the process, or 128 and the number of the signal.
    pub code: i32,
    /// Who ended it, if it did not do so itself.
    pub killer: Option<Killer>,
    /// When.
    pub at: Time,
}

/// What is known of an instance's life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it is.
    pub status: Status,
    /// Its process, as the host numbers it.
    pub pid: Option<u32>,
    /// The supervisor.
    pub supervisor: Option<u32>,
    /// When its process last began.
    pub started: Option<Time>,
    /// How its process last ended.
    pub exit: Option<Exit>,
    /// How often a policy has restarted it since it was started by hand.
    pub restarts: u32,
}

impl State {
    /// The words of a list: `Up 3 minutes`, `Exited (0) 2 hours ago`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let ago = |time: Time| humantime::format_duration(Duration::from_secs(time.elapsed().as_secs())).to_string();
        match (self.status, self.started, &self.exit) {
            (Status::Running, Some(started), _) => format!("Up {}", ago(started)),
            (Status::Paused, Some(started), _) => format!("Up {} (paused)", ago(started)),
            (Status::Exited, _, Some(exit)) if matches!(exit.killer, Some(Killer::OutOfMemory(_))) => {
                format!("Exited ({}), out of memory {} ago", exit.code, ago(exit.at))
            }
            (Status::Exited, _, Some(exit)) => format!("Exited ({}) {} ago", exit.code, ago(exit.at)),
            (Status::Restarting, _, Some(exit)) => format!("Restarting ({}) {} ago", exit.code, ago(exit.at)),
            (Status::Created, ..) => "Created".into(),
            (status, ..) => status.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_being_written() {
        let time = Time::now();
        let text = serde_json::to_string(&time).unwrap();
        assert_eq!(serde_json::from_str::<Time>(&text).unwrap(), time);
        assert!(text.ends_with("Z\""), "{text}");
        assert!(serde_json::from_str::<Time>("\"yesterday\"").is_err());
    }

    #[test]
    fn a_state_is_told_in_words() {
        let mut state = State::default();
        assert_eq!(state.in_words(), "Created");
        state.status = Status::Running;
        state.started = Some(Time::now());
        assert_eq!(state.in_words(), "Up 0s");
        state.status = Status::Exited;
        state.exit = Some(Exit {
            code: 3,
            killer: None,
            at: Time::now(),
        });
        assert_eq!(state.in_words(), "Exited (3) 0s ago");
    }
}
