//! Files that are whole at any time: written apart, then renamed.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::InstanceError;

/// What is behind the name of a file that is being written. Writers of one file take turns.
const NEW: &str = "new";

/// How long what is written is to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    /// For good: if the machine loses power there is what was there before, or this.
    ForGood,
    /// As long as the machine runs, whoever is killed: what is said of processes means nothing after that.
    WhileItRuns,
}

/// Makes a file hold this value.
pub(super) fn write(path: &Path, value: &impl Serialize, lasting: Lasting) -> Result<(), InstanceError> {
    let bytes = serde_json::to_vec(value).map_err(|source| InstanceError::Damaged {
        path: path.to_owned(),
        source,
    })?;
    let new = path.with_extension(NEW);
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&new).map_err(InstanceError::file("create", &new))?;
    file.write_all(&bytes)
        .and_then(|()| match lasting {
            Lasting::ForGood => file.sync_data(),
            Lasting::WhileItRuns => Ok(()),
        })
        .map_err(InstanceError::file("write", &new))?;
    fs::rename(&new, path).map_err(InstanceError::file("rename a file to", path))
}

/// The value that a file holds; `None` if there is no such file, or, as a loss of power leaves one that was
/// to last [while the machine runs](Lasting::WhileItRuns), nothing in it.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, InstanceError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(InstanceError::file("read", path)(error)),
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    let value = serde_json::from_slice(&bytes).map_err(|source| InstanceError::Damaged {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(value))
}

/// Makes a folder that only its owner may enter, with those above it; it may be there already.
pub(super) fn make_dir(path: &Path) -> Result<(), InstanceError> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(path)
        .map_err(InstanceError::file("create the folder", path))
}

/// Makes what was renamed or removed in a folder last.
pub(super) fn sync_dir(path: &Path) -> Result<(), InstanceError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(InstanceError::file("write the folder", path))
}

/// Removes a folder with all that is in it, whatever its owner did to its modes and owners.
pub(super) fn remove_tree(path: &Path) -> Result<(), InstanceError> {
    crate::jail::remove_tree(path).map_err(InstanceError::file("remove", path))
}
