//! What many instances cost the host: its memory, their processes, what they leave behind.
//!
//! | module | what it reads |
//! |---|---|
//! | [`Memory`] | `/proc/meminfo`: the kernel's memory, of all that runs |
//! | [`Footprint`] | `/proc/PID/smaps_rollup`: memory of processes |
//! | [`Activity`] | `/proc/PID/task/*`: processor time, context switches |
//! | [`Charged`] | a control group: what is charged to those in it |
//! | [`Left`] | processes, mounts, control groups, files that are of instances of one home |

mod activity;
mod cgroup;
mod footprint;
mod left;
mod meminfo;
mod processes;

pub use activity::Activity;
pub use cgroup::Charged;
pub use footprint::Footprint;
pub use left::Left;
pub use meminfo::Memory;
pub use processes::{Processes, all as processes};

/// The number in a line such as `Pss:  200 kB`, in bytes, of the line that has this name before the colon.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let (_, value) = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| *key == name)?;
    let number: u64 = value.split_whitespace().next()?.parse().ok()?;
    number.checked_mul(1 << 10)
}
