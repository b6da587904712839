//! `chiton snapshot`: writes a guest that runs into a file.
//!
//! The file is made beside its place, and takes it when it is whole. The guest's host writes into it by the descriptor,
//! so that a jail need not be able to open anything.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chiton_container::instance::{Mark, Status};
use chiton_kvm::Snapshot;
use chiton_kvm::control::protocol::{Answer, Parent, Request};
use chiton_kvm::control::{Client, ClientError};

use crate::options::{SnapshotOptions, Target};

/// What is in the way of a snapshot.
#[derive(Debug, thiserror::Error)]
enum InTheWay {
    /// A pipe, a link, a folder.
    #[error("{0} is there, and not a regular file: name another place for the snapshot")]
    Kind(PathBuf),
    /// It would take the place of the one that it builds on.
    #[error("{0} is the snapshot that the new one builds on, and is needed from then on: name another place")]
    Parent(PathBuf),
    /// The guest is held from outside.
    #[error("{0} is paused, and cannot answer: `chiton resume {0}` first")]
    Paused(String),
    /// It is no guest.
    #[error("{0} is no guest, but a process: only a guest has a snapshot")]
    Process(String),
    /// The file cannot be made.
    #[error("cannot write the snapshot {path}: {source}")]
    Io {
        /// Its place.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

pub(crate) fn snapshot(options: &SnapshotOptions) -> Result<(), Box<dyn Error>> {
    let parent = options.incremental.as_deref().map(parent).transpose()?;
    if let (Some(parent), Ok(place)) = (&parent, fs::canonicalize(&options.file))
        && Path::new(&parent.path) == place
    {
        return Err(InTheWay::Parent(options.file.clone()).into());
    }
    let request = Request::Snapshot {
        track: options.track || parent.is_some(),
        parent,
        stop: options.stop,
    };
    let new = NewFile::beside(&options.file)?;
    let answer = match &options.target {
        Target::Socket(path) => Client::connect(path)?.ask_with(&request, new.file.as_fd())?,
        Target::Instance(name) => {
            let instance = super::open()?.find(name)?;
            let status = instance.status()?;
            if status == Status::Paused {
                return Err(InTheWay::Paused(name.clone()).into());
            }
            if status != Status::Running {
                return Err(instance.wrong(status, "only one that runs has a snapshot").into());
            }
            let socket = super::control(&instance)?.ok_or_else(|| InTheWay::Process(name.clone()))?;
            if options.stop {
                // No policy starts it again.
                instance.mark(Mark::Stop, true)?;
            }
            let answer =
                Client::connect(socket.as_ref()).and_then(|mut client| client.ask_with(&request, new.file.as_fd()));
            if answer.is_err() && options.stop {
                let _ = instance.mark(Mark::Stop, false);
            }
            answer?
        }
    };
    let Answer::Snapshot { memory, written, .. } = answer else {
        let target = match &options.target {
            Target::Socket(path) => path.clone(),
            Target::Instance(name) => name.into(),
        };
        return Err(ClientError::NoControlSocket(target).into());
    };
    new.take_its_place(&options.file)?;
    let what = if options.incremental.is_some() {
        "changed"
    } else {
        "in use"
    };
    crate::say(&format!(
        "{}: {} KiB of memory, of which {} KiB are {what}\n",
        options.file.display(),
        memory >> 10,
        written >> 10
    ))?;
    Ok(())
}

/// The snapshot to build on.
fn parent(path: &Path) -> Result<Parent, Box<dyn Error>> {
    let snapshot = Snapshot::open(path)?;
    Ok(Parent {
        id: u128::from_be_bytes(snapshot.id()),
        path: fs::canonicalize(path)?.to_string_lossy().into_owned(),
    })
}

/// A file that is removed again, unless it takes its place.
struct NewFile {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl NewFile {
    /// In the same folder, and for this user alone: all that the guest knows is in it.
    fn beside(place: &Path) -> Result<Self, InTheWay> {
        match fs::symlink_metadata(place) {
            Ok(there) if !there.is_file() => return Err(InTheWay::Kind(place.to_owned())),
            _ => {}
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(place.file_name().unwrap_or_default());
        name.push(format!(".{}", std::process::id()));
        let path = place.with_file_name(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(|source| InTheWay::Io {
            path: place.to_owned(),
            source,
        })?;
        Ok(Self {
            file,
            path,
            kept: false,
        })
    }

    fn take_its_place(mut self, place: &Path) -> Result<(), InTheWay> {
        fs::rename(&self.path, place).map_err(|source| InTheWay::Io {
            path: place.to_owned(),
            source,
        })?;
        self.kept = true;
        // The name is on the disk when its folder is.
        let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
        let _ = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}
