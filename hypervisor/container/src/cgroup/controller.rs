//! The controllers: what a cgroup can limit or count.

use std::fmt;

/// Which of the kernel's two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// One hierarchy for each controller or group of them (Documentation/admin-guide/cgroup-v1).
    V1,
    /// One hierarchy for all (Documentation/admin-guide/cgroup-v2.rst).
    V2,
}

/// A part of the kernel that limits or counts one kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Controller {
    /// Processor time: quota and weight.
    Cpu,
    /// Processor time, counted. On v2 part of every cgroup.
    Cpuacct,
    /// Which processors and memory nodes.
    Cpuset,
    /// Memory and swap.
    Memory,
    /// Block devices. On v1 called `blkio`.
    Io,
    /// How many tasks.
    Pids,
    /// Stops all tasks. On v2 part of every cgroup.
    Freezer,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Memory,
        Self::Io,
        Self::Pids,
        Self::Freezer,
    ];

    /// What the kernel calls it there.
    #[must_use]
    pub fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Cpu, _) => "cpu",
            (Self::Cpuacct, _) => "cpuacct",
            (Self::Cpuset, _) => "cpuset",
            (Self::Memory, _) => "memory",
            (Self::Io, Version::V1) => "blkio",
            (Self::Io, Version::V2) => "io",
            (Self::Pids, _) => "pids",
            (Self::Freezer, _) => "freezer",
        }
    }

    pub(super) fn named(name: &str, version: Version) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|controller| controller.name(version) == name)
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name(Version::V2))
    }
}
