//! Deaths by want of memory: noticed, and told apart from other deaths.
//!
//! The OOM killer leaves a process that died of SIGKILL, like any other. That it was the OOM killer
//! is told by the cgroup's count of such kills; at whose limit, by the counts of the cgroups above,
//! and best by the kernel's log, which also names the process (mm/oom_kill.c, `dump_oom_victim`).

mod log;
mod watch;

use std::fmt;
use std::path::PathBuf;

pub use watch::OomWatch;

use super::limits::Size;

/// What is known of a death by want of memory.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OomKill {
    /// How many processes of the cgroup were killed, as the kernel counts.
    pub kills: u64,
    /// Whether the whole cgroup was killed (`memory.oom.group`, which every v2 cgroup made here has).
    /// The kernel then counts the process that it chose twice.
    pub whole: bool,
    /// Whose limit it was.
    pub culprit: Culprit,
    /// The last that was killed, where the kernel's log may be read.
    pub victim: Option<Victim>,
    /// The most memory that the cgroup had, in bytes.
    pub peak: Option<u64>,
}

/// Whose limit was hit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Culprit {
    /// That of the cgroup itself, or of one below it.
    Own {
        /// The file that says the limit.
        file: PathBuf,
        /// In bytes; none if it has been taken away since.
        limit: Option<u64>,
    },
    /// That of a cgroup above.
    Ancestor {
        /// The file that says the limit.
        file: PathBuf,
        /// In bytes; none if it has been taken away since.
        limit: Option<u64>,
    },
    /// No limit: the host has no memory left, or a cgroup has that is out of sight from here.
    Host,
}

/// Who was killed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Victim {
    /// Its process ID on the host.
    pub pid: i32,
    /// Its name, at most 15 bytes; chosen by itself, so without control characters here.
    pub name: String,
}

impl fmt::Display for OomKill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the OOM killer killed ")?;
        match (&self.victim, self.kills) {
            (Some(victim), _) if self.whole => write!(f, "all processes for process {} ({})", victim.pid, victim.name)?,
            (None, _) if self.whole => f.write_str("all processes")?,
            (Some(victim), 1) => write!(f, "process {} ({})", victim.pid, victim.name)?,
            (Some(victim), kills) => write!(f, "{kills} processes, last {} ({})", victim.pid, victim.name)?,
            (None, 1) => f.write_str("a process")?,
            (None, kills) => write!(f, "{kills} processes")?,
        }
        let (whose, file, limit) = match &self.culprit {
            Culprit::Own { file, limit } => ("its own limit", file, limit),
            Culprit::Ancestor { file, limit } => ("the limit of a cgroup above", file, limit),
            Culprit::Host => return f.write_str(" because the host ran out of memory, not for any limit of its own"),
        };
        write!(f, " at {whose}, ")?;
        match limit {
            Some(bytes) => write!(f, "{} ({})", Size::Bytes(*bytes), file.display()),
            None => write!(f, "{}, which is gone since", file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_told_by_whom_and_at_which_limit() {
        let kill = OomKill {
            kills: 1,
            whole: false,
            culprit: Culprit::Own {
                file: "/sys/fs/cgroup/chiton/a/memory.max".into(),
                limit: Some(64 << 20),
            },
            victim: Some(Victim {
                pid: 7,
                name: "hog".into(),
            }),
            peak: None,
        };
        assert_eq!(
            kill.to_string(),
            "the OOM killer killed process 7 (hog) at its own limit, 64M (/sys/fs/cgroup/chiton/a/memory.max)"
        );
    }
}
