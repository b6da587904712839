//! Whether and when an instance is started again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::InstanceError;

/// The shortest pause before a restart; it doubles with each that follows.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_mins(1);
/// Who ran for so long has recovered: the next pause is the shortest again.
const RECOVERED: Duration = Duration::from_secs(10);

/// When an instance that has ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When its status is not 0, so often at the most.
    OnFailure(Option<u32>),
    /// Always, unless it was stopped by hand. A supervisor goes with the machine, so that this is the same
    /// as `unless-stopped`, whose name is kept as it was written.
    Always {
        /// Whether it was written `unless-stopped`.
        unless_stopped: bool,
    },
}

impl RestartPolicy {
    /// Whether to start again what ended with this status after so many restarts.
    #[must_use]
    pub const fn applies(self, code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(None) => code != 0,
            Self::OnFailure(Some(most)) => code != 0 && restarts < most,
            Self::Always { .. } => true,
        }
    }

    /// How long to wait before the next start, after a run of this length that followed this pause.
    #[must_use]
    pub fn pause(last: Option<Duration>, ran: Duration) -> Duration {
        match last {
            Some(last) if ran < RECOVERED => (last * 2).min(LONGEST),
            _ => FIRST,
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure(None) => f.write_str("on-failure"),
            Self::OnFailure(Some(most)) => write!(f, "on-failure:{most}"),
            Self::Always { unless_stopped: false } => f.write_str("always"),
            Self::Always { unless_stopped: true } => f.write_str("unless-stopped"),
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = InstanceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "no" => Ok(Self::No),
            "always" => Ok(Self::Always { unless_stopped: false }),
            "unless-stopped" => Ok(Self::Always { unless_stopped: true }),
            "on-failure" => Ok(Self::OnFailure(None)),
            _ => {
                let most = text.strip_prefix("on-failure:").and_then(|most| most.parse().ok());
                most.map(|most| Self::OnFailure(Some(most)))
                    .ok_or_else(|| InstanceError::Policy(text.to_owned()))
            }
        }
    }
}

impl TryFrom<String> for RestartPolicy {
    type Error = InstanceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RestartPolicy> for String {
    fn from(policy: RestartPolicy) -> Self {
        policy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_written_as_docker_writes_them() {
        for text in ["no", "always", "unless-stopped", "on-failure", "on-failure:3"] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap().to_string(), text);
        }
        for text in ["", "yes", "on-failure:", "on-failure:-1", "on-failure:x", "always:3"] {
            let error = text.parse::<RestartPolicy>().unwrap_err().to_string();
            assert!(error.contains("is not a restart policy"), "{error}");
        }
    }

    #[test]
    fn on_failure_counts() {
        let policy = RestartPolicy::OnFailure(Some(2));
        assert!(policy.applies(1, 0) && policy.applies(137, 1));
        assert!(!policy.applies(1, 2) && !policy.applies(0, 0));
        assert!(RestartPolicy::OnFailure(None).applies(1, 1_000));
        assert!(RestartPolicy::Always { unless_stopped: true }.applies(0, 9));
        assert!(!RestartPolicy::No.applies(1, 0));
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_again_after_a_long_run() {
        let mut pause = RestartPolicy::pause(None, Duration::ZERO);
        assert_eq!(pause, Duration::from_millis(100));
        for _ in 0..20 {
            let next = RestartPolicy::pause(Some(pause), Duration::ZERO);
            assert!(next == pause * 2 || next == LONGEST);
            pause = next;
        }
        assert_eq!(pause, LONGEST);
        assert_eq!(RestartPolicy::pause(Some(pause), RECOVERED), FIRST);
    }
}
