//! What happened to whom, in the order in which it did.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Id, InstanceError, Name, Time};

/// A list of this length is put aside, and the one put aside before forgotten, in bytes.
const LONGEST: u64 = 1 << 20;

/// What can happen to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It was made.
    Create,
    /// Its process began.
    Start,
    /// Its process ended; `detail` has the status.
    Die,
    /// The kernel killed its process, since memory ran out.
    Oom,
    /// It was asked to stop.
    Stop,
    /// It was sent a signal; `detail` has which.
    Kill,
    /// It was stopped for a while.
    Pause,
    /// It goes on.
    Resume,
    /// A policy starts it again.
    Restart,
    /// It has another name; `detail` has the old one.
    Rename,
    /// Its limits were changed.
    Update,
    /// It was removed.
    Remove,
    /// What a dead supervisor had left was taken down.
    Sweep,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: Time,
    /// What.
    pub kind: EventKind,
    /// To whom.
    pub id: Id,
    /// Its name then.
    pub name: Name,
    /// More about it, if there is more.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Event {
    /// Adds itself to the list at this path. Lines of several processes do not mix: each is one write to
    /// the end of the file.
    pub(super) fn append(&self, path: &Path) -> Result<(), InstanceError> {
        let mut line = serde_json::to_vec(self).map_err(|source| InstanceError::Damaged {
            path: path.to_owned(),
            source,
        })?;
        line.push(b'\n');
        let mut options = File::options();
        options.append(true).create(true).mode(0o600);
        let mut file = options.open(path).map_err(InstanceError::file("open", path))?;
        file.write_all(&line).map_err(InstanceError::file("write", path))?;
        if file.metadata().is_ok_and(|metadata| metadata.len() > LONGEST) {
            fs::rename(path, path.with_extension("1")).map_err(InstanceError::file("put aside", path))?;
        }
        Ok(())
    }

    /// The events of a list, oldest first; a line that a crash cut off is passed over.
    pub(super) fn read(path: &Path) -> Result<Vec<Self>, InstanceError> {
        let mut events = Vec::new();
        for path in [path.with_extension("1"), path.to_owned()] {
            match fs::read_to_string(&path) {
                Ok(text) => events.extend(text.lines().filter_map(|line| serde_json::from_str(line).ok())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(InstanceError::file("read", &path)(error)),
            }
        }
        Ok(events)
    }
}
