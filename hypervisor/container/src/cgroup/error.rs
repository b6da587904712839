//! What can go wrong with control groups.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::controller::Controller;
use super::limits::BadLimit;

/// The result of what may fail here.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a cgroup could not be made, changed, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has none, or nobody mounted them.
    #[error("no cgroup hierarchy is mounted: mount one with `mount -t cgroup2 cgroup2 /sys/fs/cgroup`")]
    NoHierarchy,
    /// A limit needs a controller that is not to be had.
    #[error("{limit} needs the cgroup controller `{controller}`, which {why}")]
    NoController {
        /// The limit, as an option's name.
        limit: &'static str,
        /// What it needs.
        controller: Controller,
        /// Where it is missing, and what to do.
        why: String,
    },
    /// Cgroup v1 has nothing like it.
    #[error("{limit} exists on cgroup v2 only, and here `{controller}` is a v1 controller: {instead}")]
    NoCounterpart {
        /// The limit, as an option's name.
        limit: &'static str,
        /// The controller it belongs to.
        controller: Controller,
        /// What to use.
        instead: &'static str,
    },
    /// The kernel was built without a file that a limit needs.
    #[error("{limit} needs the file {path}, which this kernel does not have: {why}")]
    NoFile {
        /// The limit, as an option's name.
        limit: &'static str,
        /// The file.
        path: PathBuf,
        /// What would make it appear.
        why: &'static str,
    },
    /// A weight of block devices where nobody looks at it; what there is besides BFQ.
    #[error(
        "--io-weight would change nothing: no block device of this host is divided by weight; choose the scheduler \
         BFQ for one (`echo bfq > /sys/block/DISK/queue/scheduler`){0}"
    )]
    NoDivider(&'static str),
    /// No right to make cgroups anywhere.
    #[error(
        "no permission to make cgroups below {0}: run as root, or have a subtree delegated by \
         `systemd-run --user --scope -p Delegate=yes COMMAND`"
    )]
    NotDelegated(PathBuf),
    /// The process is in a cgroup outside what is mounted.
    #[error("this process's own cgroup is not below any mounted hierarchy: mount cgroup2 in this namespace")]
    OwnNotMounted,
    /// cgroup-v2.rst, "No Internal Process Constraint".
    #[error(
        "{path} has {count} processes of its own, and a v2 cgroup with processes cannot give controllers to \
         children: move them into a child first (the place `own-leaf` does so for this process alone)"
    )]
    InternalProcesses {
        /// The cgroup.
        path: PathBuf,
        /// How many processes are in it.
        count: usize,
    },
    /// A name that cannot be a directory of ours.
    #[error("`{0}` cannot name a cgroup: use 1 to 64 letters, digits, `-`, `_` and `.`, the first a letter or digit")]
    Name(String),
    /// Somebody who lives has it.
    #[error("the cgroup {0} is in use: choose another name")]
    InUse(PathBuf),
    /// It is not there.
    #[error("there is no cgroup {0}")]
    Missing(PathBuf),
    /// Limits that cannot be.
    #[error(transparent)]
    Limit(#[from] BadLimit),
    /// A control file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A control file says what nobody expects there.
    #[error("{path} does not read as {expected}: `{found}`")]
    Content {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
        /// What is there, cut short.
        found: String,
    },
    /// The kernel refused a value.
    #[error("cannot write `{value}` to {path}: {source}{hint}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why.
        source: io::Error,
        /// What to do about it; empty when nothing is known.
        hint: &'static str,
    },
    /// A directory could not be made, opened or removed.
    #[error("cannot {action} the cgroup {path}: {source}")]
    Directory {
        /// `make`, `open` or `remove`.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Waited for, in vain.
    #[error("the cgroup {path} is still not {state} after {waited:?}: {remaining} processes are in it")]
    Timeout {
        /// The directory.
        path: PathBuf,
        /// `empty`, `frozen` or `thawed`.
        state: &'static str,
        /// How long.
        waited: Duration,
        /// How many processes are left.
        remaining: usize,
    },
    /// A process in it cannot be seen from this PID namespace, so it cannot be signalled.
    #[error("{0} has a process of another PID namespace, which cannot be signalled from here")]
    Foreign(PathBuf),
    /// A system call failed.
    #[error("{call} failed: {source}")]
    System {
        /// Its name.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn system(call: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::System {
            call,
            source: errno.into(),
        }
    }
}
