//! Control groups: limits and accounts, on cgroup v2, v1 and hybrid hosts.
//!
//! ```text
//!  Host ──▶ Parent ──▶ Cgroup ──┬── place, freeze, kill, remove
//!  (where)  (ours)     (one     ├── update(Limits)
//!                       jail)   ├── stats() ─▶ Stats
//!                               └── oom_watch() ─▶ OomKill
//! ```
//!
//! One interface, two kernels' interfaces below it: the folders `v1` and `v2` are twins, and say
//! which file of the kernel each limit and each figure is. A hybrid host has both: each controller
//! is used where it is, and what needs no controller (kill, freeze, pressure) on v2.
//!
//! Everything is made below one [`Parent`], named `chiton` unless told otherwise, and nothing else
//! is ever changed or removed. The maker of a [`Cgroup`] holds a lock on its directories, which the
//! kernel drops when it dies however it dies: [`sweep`](Parent::sweep) removes what nobody holds.
//!
//! ```no_run
//! use chiton_container::cgroup::{Cgroup, Host, Limits, Parent, Place};
//!
//! let parent = Parent::open(&Host::read()?, &Place::Auto, "chiton")?;
//! let limits = Limits { cpu_max: Some("0.5".parse()?), memory_max: Some("64M".parse()?), ..Limits::default() };
//! let group = Cgroup::create(&parent, "lesson", &limits)?;
//! let mut command = std::process::Command::new("true");
//! group.enclose(&mut command)?;
//! command.status()?;
//! println!("{:?}", group.stats()?.cpu);
//! group.remove()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod controller;
mod divider;
mod door;
mod error;
mod file;
mod freeze;
mod group;
mod held;
mod host;
mod kill;
mod limits;
mod oom;
mod parent;
mod remove;
mod stats;
mod sweep;
mod v1;
mod v2;

pub use controller::{Controller, Version};
pub use door::Door;
pub use error::{Error, Result};
pub use group::Cgroup;
pub use held::Held;
pub use host::{Hierarchy, Host, Layout};
pub use limits::{BadLimit, Count, CpuMax, Device, IoMax, Limits, Set, Size, Weight};
pub use oom::{Culprit, OomKill, OomWatch, Victim};
pub use parent::{Parent, Place};
pub use stats::{Cpu, Events, Io, Memory, Pids, Pressure, Pressures, Scope, Stall, Stats};
pub use sweep::Swept;
