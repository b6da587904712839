//! What is said through a control socket: one JSON object a line.
//!
//! ```text
//! > {"set":{"disks":[{"number":0,"limits":{"ops":{"per_second":1000,"burst":2000}}}]}}
//! < {"done":{}}
//! > {"query":{}}
//! < {"state":{"paused":false,"processors":[{"number":0,"exits":{"doorbell kick":3}}],…}}
//! > {"frobnicate":{}}
//! < {"error":"not a request: unknown variant `frobnicate`, expected …"}
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use chiton_core::devices::{Limits, Rate};
use chiton_shared::virtio::balloon::Statistics;
use serde::{Deserialize, Serialize};

/// The longest line of a request, in bytes, without its end.
pub const MAX_REQUEST: usize = 4096;

/// The longest line of an answer, in bytes.
pub const MAX_ANSWER: usize = 1 << 20;

/// What is asked of a running guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Change something.
    Set(Settings),
    /// Tell how things are: [`State`].
    Query {},
    /// Ask the guest to end.
    Stop {
        /// End it after so many milliseconds if it has not ended by itself; never unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// Hold every processor.
    Pause {},
    /// Let them go on.
    Resume {},
    /// Write a snapshot into the file whose descriptor comes with this line (`SCM_RIGHTS`).
    Snapshot {
        /// Only what has changed since this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Parent>,
        /// Note from now on what changes, for an incremental one.
        #[serde(default)]
        track: bool,
        /// End the guest.
        #[serde(default)]
        stop: bool,
    },
}

/// The snapshot that another one builds on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// What names it, as a number.
    pub id: u128,
    /// Where it is.
    pub path: String,
}

/// What can be changed. What is not named stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Rate limits of disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<NumberedLimits>,
    /// Rate limits of network interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<NumberedLimits>,
    /// How much memory the host would like to have in the balloon, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<u64>,
    /// The size of the console, instead of its terminal's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<ConsoleSize>,
}

/// New limits of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberedLimits {
    /// Which of its kind, from 0 on, in the order they were given in.
    pub number: usize,
    /// All its limits: what is not named is not limited any more.
    pub limits: LimitsValue,
}

/// Rate limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsValue {
    /// Requests or packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<RateValue>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<RateValue>,
}

/// A rate: neither number may be 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateValue {
    /// How much for long, a second.
    pub per_second: u64,
    /// How much at once.
    pub burst: u64,
}

/// A rate with a zero in it, with which nothing would ever be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("with a rate of 0 nothing would ever be done: write at least 1, or leave the limit out")]
pub struct ZeroRate;

impl TryFrom<LimitsValue> for Limits {
    type Error = ZeroRate;

    fn try_from(value: LimitsValue) -> Result<Self, ZeroRate> {
        let rate = |value: Option<RateValue>| {
            value
                .map(|rate| Rate::new(rate.per_second, rate.burst).ok_or(ZeroRate))
                .transpose()
        };
        Ok(Self {
            ops: rate(value.ops)?,
            bytes: rate(value.bytes)?,
        })
    }
}

impl From<Limits> for LimitsValue {
    fn from(limits: Limits) -> Self {
        let value = |rate: Rate| RateValue {
            per_second: rate.speed(),
            burst: rate.burst(),
        };
        Self {
            ops: limits.ops.map(value),
            bytes: limits.bytes.map(value),
        }
    }
}

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleSize {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It was done.
    Done {},
    /// How things are.
    State(Box<State>),
    /// A snapshot was taken.
    Snapshot {
        /// What names it.
        id: u128,
        /// Guest memory, in bytes.
        memory: u64,
        /// Bytes of it that are in the file.
        written: u64,
    },
    /// It was not done, for this reason: a sentence for people.
    Error(String),
}

/// How things are with a running guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Whether its processors are held.
    pub paused: bool,
    /// Whether it has been asked to end.
    pub stop_requested: bool,
    /// How long it has been running, in milliseconds, pauses included.
    pub running_ms: u64,
    /// Kicks that the kernel took without an exit to the host process.
    pub kicks: u64,
    /// The processors that have been started.
    pub processors: Vec<ProcessorState>,
    /// The devices, in the order of their register blocks.
    pub devices: Vec<DeviceState>,
    /// The balloon, if there is one.
    pub balloon: Option<BalloonState>,
}

/// A processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessorState {
    /// Which.
    pub number: u32,
    /// Exits to the host process so far, by cause; causes that did not occur are left out.
    pub exits: BTreeMap<String, u64>,
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceState {
    /// What it is.
    pub kind: String,
    /// Which of its kind.
    pub number: usize,
    /// Requests answered with a failure so far.
    pub failures: u64,
    /// Its limits, if it is a device that can have some.
    pub limits: Option<LimitsValue>,
    /// Why it needs a reset, if it does.
    pub broken: Option<String>,
}

/// The balloon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BalloonState {
    /// How many bytes the host would like to have.
    pub target: u64,
    /// How many it has, as the guest says.
    pub actual: u64,
    /// What the guest told last of its memory. Each [`Request::Query`] has it asked for new ones.
    pub statistics: Option<BalloonStatistics>,
}

/// How a guest uses its memory, in bytes or as a count; what it does not know is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BalloonStatistics {
    /// How long ago it told, in milliseconds.
    pub age_ms: u64,
    /// All memory.
    pub total: Option<u64>,
    /// Memory that nobody uses.
    pub free: Option<u64>,
    /// Memory that programs could have.
    pub available: Option<u64>,
    /// Caches of disks.
    pub caches: Option<u64>,
    /// Memory swapped in.
    pub swapped_in: Option<u64>,
    /// Memory swapped out.
    pub swapped_out: Option<u64>,
    /// Major page faults.
    pub major_faults: Option<u64>,
    /// Minor page faults.
    pub minor_faults: Option<u64>,
}

impl BalloonStatistics {
    /// What came so long ago.
    pub(crate) fn of(statistics: &Statistics, age: Duration) -> Self {
        Self {
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            total: statistics.total,
            free: statistics.free,
            available: statistics.available,
            caches: statistics.caches,
            swapped_in: statistics.swapped_in,
            swapped_out: statistics.swapped_out,
            major_faults: statistics.major_faults,
            minor_faults: statistics.minor_faults,
        }
    }
}

/// A line that is no request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Its bytes are not a request in JSON.
    #[error("not a request: {0}")]
    Json(#[from] serde_json::Error),
    /// It does not end.
    #[error("a request is a line of at most {MAX_REQUEST} bytes, and this one is longer")]
    TooLong,
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        if line.len() > MAX_REQUEST {
            return Err(RequestError::TooLong);
        }
        Ok(serde_json::from_slice(line)?)
    }

    /// The line, with its end.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

impl Answer {
    /// The line, with its end.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

fn line(value: &impl Serialize) -> Vec<u8> {
    // No map with keys that are not strings, and a vector takes everything: there is no error.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        Request::parse(line.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn requests_read_back() {
        let limits = Limits {
            ops: Rate::new(1000, 2000),
            bytes: None,
        };
        let settings = Settings {
            disks: vec![NumberedLimits {
                number: 0,
                limits: limits.into(),
            }],
            balloon: Some(8 << 20),
            ..Settings::default()
        };
        for request in [
            Request::Set(settings),
            Request::Query {},
            Request::Stop { timeout_ms: None },
            Request::Stop { timeout_ms: Some(5) },
            Request::Pause {},
            Request::Resume {},
            Request::Snapshot {
                parent: Some(Parent {
                    id: u128::MAX,
                    path: "/a".into(),
                }),
                track: true,
                stop: false,
            },
        ] {
            let line = request.line();
            let (end, line) = line.split_last().unwrap();
            assert_eq!((*end, Request::parse(line).unwrap()), (b'\n', request));
        }
        let text = br#"{"set":{"disks":[{"number":0,"limits":{"ops":{"per_second":1000,"burst":2000}}}]}}"#;
        let Request::Set(set) = Request::parse(text).unwrap() else {
            panic!()
        };
        assert_eq!(Limits::try_from(set.disks[0].limits), Ok(limits));
    }

    #[test]
    fn what_is_no_request_is_refused_in_words() {
        for (line, words) in [
            ("", "EOF while parsing"),
            ("{}", "expected"),
            ("[", "expected"),
            ("nonsense", "expected"),
            (r#"{"explode":{}}"#, "unknown variant `explode`"),
            (r#"{"query":{"deep":1}}"#, "unknown field `deep`"),
            (r#"{"set":{"disk":[]}}"#, "unknown field `disk`"),
            (r#"{"set":{"balloon":-1}}"#, "expected u64"),
            (r#"{"stop":{"timeout_ms":"x"}}"#, "expected u64"),
            (r#"{"query":{}} {"query":{}}"#, "trailing characters"),
            ("\u{0}", "expected value"),
        ] {
            let said = refused(line);
            assert!(
                said.starts_with("not a request: ") && said.contains(words),
                "{line}: {said}"
            );
        }
        assert!(Request::parse(b"\xff\xfe").is_err());
        assert!(refused(&"[".repeat(MAX_REQUEST)).contains("not a request"));
        assert!(refused(&"[".repeat(MAX_REQUEST + 1)).contains("at most 4096 bytes"));
    }

    #[test]
    fn a_rate_of_zero_is_none() {
        let zero = |per_second, burst| {
            Limits::try_from(LimitsValue {
                ops: None,
                bytes: Some(RateValue { per_second, burst }),
            })
        };
        assert_eq!((zero(0, 1), zero(1, 0)), (Err(ZeroRate), Err(ZeroRate)));
        assert_eq!(Limits::try_from(LimitsValue::default()), Ok(Limits::default()));
    }
}
