//! Instances: what is kept of each jail that runs, ran, or is to run, without a daemon.
//!
//! ```text
//!  home/
//!    lock                  who changes the list of instances holds it
//!    names/NAME ─▶ ID      who has which name
//!    live/ID               locked by the instance's supervisor as long as that lives
//!    instances/ID/
//!      spec.json           what was asked for; never changes but for name and limits
//!      state.json          where it is in its life, how it ended
//!      report.json         what was made for it: namespaces, cgroup, mounts, network
//!      log                 what it wrote, a JSON object a line
//!    events                what happened to whom, a JSON object a line
//! ```
//!
//! Each instance has a *supervisor*, its parent process, which keeps the log, waits for the end,
//! restarts it if it is to be restarted, and takes down what was made for it. There is no other
//! process: a command reads these files, and talks to supervisors.
//!
//! Files are written under another name and renamed, so that a reader, or the next command after a
//! `kill -9`, finds the old content or the new. Whether a supervisor lives is asked of the kernel: the
//! lock of a dead process is free. What a dead one left is taken down by [`Home::sweep`].
//!
//! # Example
//!
//! ```
//! use chiton_container::instance::{Home, Name, Spec};
//!
//! # fn main() -> Result<(), chiton_container::instance::InstanceError> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path();
//! let home = Home::open(path)?;
//! let spec = Spec { command: vec!["/bin/true".into()], ..Spec::new(Name::new("web")?) };
//! let instance = home.create(spec)?;
//! assert_eq!(home.find("web")?.id(), instance.id());
//! # Ok(())
//! # }
//! ```

mod error;
mod events;
mod files;
mod home;
mod id;
mod live;
mod log;
mod names;
mod output;
mod restart;
mod socket;
mod spare;
mod spec;
mod state;
mod supervise;
#[cfg(test)]
mod tests;
mod watch;

pub use error::InstanceError;
pub use events::{Event, EventKind};
pub use home::{Home, Instance, Mark};
pub use id::{Id, Name};
pub use live::Live;
pub use log::{Line, LogReader, LogWriter, Stream};
pub use output::Outputs;
pub use restart::RestartPolicy;
pub use socket::SocketPath;
pub use spec::Spec;
pub use state::{Exit, Killer, State, Status, Time};
pub use supervise::{Child, Payload, Supervisor};
pub use watch::Watch;
