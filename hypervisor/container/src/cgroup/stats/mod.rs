//! Accounts: what a cgroup has used, and how long it waited.

mod pressure;
mod read;

pub use pressure::{Pressure, Pressures, Scope, Stall};

/// What a cgroup has used until now. What is none belongs to a controller that this host does not
/// have, or to a figure that its kernel does not keep.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Option<Cpu>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Each block device it used.
    pub io: Option<Vec<Io>>,
    /// Tasks.
    pub pids: Option<Pids>,
    /// Time lost by waiting.
    pub pressure: Pressures,
}

/// Processor time, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Cpu {
    /// All of it.
    pub usage_usec: u64,
    /// In user mode. On v1 by samples, on v2 scaled to the sum.
    pub user_usec: u64,
    /// In the kernel.
    pub system_usec: u64,
    /// Periods of the quota in which it wanted to run.
    pub nr_periods: Option<u64>,
    /// Those in which the quota was used up.
    pub nr_throttled: Option<u64>,
    /// How long its processors' queues stood still for that, in sum.
    pub throttled_usec: Option<u64>,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Now.
    pub current: u64,
    /// The most there was.
    pub peak: Option<u64>,
    /// The hard limit; none for none.
    pub max: Option<u64>,
    /// Swapped out.
    pub swap: Option<u64>,
    /// The limit of that; none for none.
    pub swap_max: Option<u64>,
    /// Heap, stack and the like, and a guest's memory.
    pub anon: Option<u64>,
    /// Page cache.
    pub file: Option<u64>,
    /// Of the kernel, for this cgroup.
    pub kernel: Option<u64>,
    /// Shared memory and tmpfs.
    pub shmem: Option<u64>,
    /// Files mapped.
    pub file_mapped: Option<u64>,
    /// Page cache not yet written.
    pub file_dirty: Option<u64>,
    /// Page cache being written.
    pub file_writeback: Option<u64>,
    /// Page faults, a count.
    pub pgfault: Option<u64>,
    /// Those that waited for a disk, a count.
    pub pgmajfault: Option<u64>,
    /// What happened at the limits.
    pub events: Events,
}

/// How often something happened at the limits of memory (cgroup-v2.rst, `memory.events`).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Events {
    /// Reclaimed although below `low`. v2 only.
    pub low: Option<u64>,
    /// Slowed for being above `high`. v2 only.
    pub high: Option<u64>,
    /// The hard limit was hit, and reclaim had to help. On v1 the `failcnt`.
    pub max: Option<u64>,
    /// Reclaim did not help. v2 only.
    pub oom: Option<u64>,
    /// Processes killed for it.
    pub oom_kill: Option<u64>,
    /// Times that the whole cgroup was killed for it. v2 only.
    pub oom_group_kill: Option<u64>,
}

/// What one block device did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Io {
    /// Its number, `MAJOR:MINOR`.
    pub device: String,
    /// Bytes read.
    pub rbytes: u64,
    /// Bytes written.
    pub wbytes: u64,
    /// Reads.
    pub rios: u64,
    /// Writes.
    pub wios: u64,
}

/// Tasks: processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Pids {
    /// Now.
    pub current: u64,
    /// The most there were.
    pub peak: Option<u64>,
    /// The limit; none for none.
    pub max: Option<u64>,
    /// How often a new one was refused for the limit.
    pub refused: Option<u64>,
}
