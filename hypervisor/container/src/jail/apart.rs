//! Something done with all the ids that an ordinary user has: files of the subordinate ones only root of a user namespace
//! can make, look into and remove.
//!
//! ```text
//!   caller                                 a copy of it
//!     ├── clone3: user namespace ───────────▶│
//!     │ id maps                              │
//!     ├── go ───────────────────────────────▶│ root of it
//!     │                                      │ does it
//!     │◀──────────────── what went wrong ────┤ ends
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::{fs, io};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::geteuid;

use super::channel::Channel;
use super::error::{At, Error, Failure, Status, Step};
use super::{IdMap, NO_JAIL, clone, idmap, one_thread, privileges, start, wait};

/// The longest that is said of what went wrong, in bytes.
const LONGEST: u64 = 64 << 10;

/// The ids of an ordinary user who has more than one. Root needs none, and others have none.
#[must_use]
pub fn subordinate_ids() -> Option<IdMap> {
    if geteuid().is_root() {
        return None;
    }
    let ids = IdMap::rootless();
    (ids != IdMap::caller()).then_some(ids)
}

/// Does something in a copy of this process, as root of a user namespace with these ids. What it changes in memory is
/// the copy's own; what it returns as an error comes back.
///
/// # Errors
///
/// [`Error::Said`] with its words, and if there can be no such process, as [`Jail::spawn`](super::Jail::spawn).
pub fn apart(ids: &IdMap, act: impl FnOnce() -> Result<(), String>) -> Result<(), Error> {
    one_thread()?;
    let (outside, inner) = Channel::pair().map_err(|errno| Error::System("make a channel", errno.into()))?;
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Error::System("make a channel", errno.into()))?;
    let mut write = File::from(write);
    let run = || {
        outside.close();
        match stand(&inner)
            .map_err(|failure| failure.to_string())
            .and_then(|()| act())
        {
            Ok(()) => 0,
            Err(said) => {
                // Where nobody listens any more there is nobody to tell.
                let _ = write.write_all(said.as_bytes());
                NO_JAIL
            }
        }
    };
    let (pid, pidfd) = start(libc::CLONE_NEWUSER as u64, None, run)?;
    drop((inner, write));
    let mapped = ids.write_for(pid);
    if mapped.is_ok() {
        // One that is gone has left word of why.
        let _ = outside.send_descriptors(0, &[]);
    }
    drop(outside);
    let mut said = Vec::new();
    let heard = File::from(read).take(LONGEST).read_to_end(&mut said);
    let status = wait(&pidfd).map_err(Error::wait)?;
    mapped?;
    heard.map_err(|error| Error::System("hear from a process", error))?;
    match status {
        Status::Exited(0) => Ok(()),
        _ if !said.is_empty() => Err(Error::Said(String::from_utf8_lossy(&said).into_owned())),
        status => Err(Error::Died(status)),
    }
}

/// The copy becomes root, and dies with the caller.
fn stand(channel: &Channel) -> Result<(), Failure> {
    let go = channel.receive_descriptors().at(Step::Clone, || "wait for go".into())?;
    if go.is_none() {
        clone::exit(NO_JAIL);
    }
    idmap::become_root()?;
    privileges::die_with_parent()
}

/// Removes a folder with all that is in it, also with folders that their owner has closed to itself, as overlayfs leaves
/// one, and with what belongs to subordinate ids.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = remove_own(path);
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    match subordinate_ids().filter(|_| removed.as_ref().is_err_and(refused)) {
        None => removed,
        Some(ids) => apart(&ids, || remove_own(path).map_err(|error| error.to_string())).map_err(io::Error::other),
    }
}

fn remove_own(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        result => result,
    }
}

/// Lets their owner into all folders of a tree; nobody else is at work there.
fn open_up(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // Of the entry itself: a link is not followed.
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}
