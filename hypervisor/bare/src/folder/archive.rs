//! A folder's places, as the archive has them: a directory comes before what is in it.

use alloc::string::String;

use chiton_shared::virtio::p9::{Errno, MAX_TAG, check_name};
use thiserror::Error;

use super::MAX_ENTRIES;
use super::content::Content;
use super::places::{Inside, Place, Places, ROOT, What};
use crate::ramdisk::AGAIN;
use crate::ustar::{Entries, Entry, Kind, UstarError};

/// Why a folder is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FolderError {
    /// It has no name that a guest could call it by.
    #[error("the guest cannot call the folder {0:?} by its name, which must be 1 to {MAX_TAG} bytes: rename it")]
    Name(String),
    /// It is no archive.
    #[error("the folder {file:?} is damaged: {source}; {AGAIN}")]
    Archive {
        /// Where it is on the ramdisk.
        file: String,
        /// What is wrong with it.
        source: UstarError,
    },
    /// Something in it is nowhere.
    #[error(
        "the folder {file:?} is damaged: {path:?} has no name, or comes before the folder that it is in, or twice; {AGAIN}"
    )]
    Place {
        /// Where it is on the ramdisk.
        file: String,
        /// What is nowhere.
        path: String,
    },
    /// There is too much in it.
    #[error("the folder {0:?} holds more than {MAX_ENTRIES} files and folders: give the guest a part of it")]
    TooMany(String),
}

/// The places of the archive in this file of the ramdisk.
pub(super) fn unpack<'a>(file: &str, archive: &'a [u8]) -> Result<Places<'a>, FolderError> {
    let mut places = Places::new(Place {
        what: What::Directory(Inside::default()),
        mode: 0o755,
        uid: 0,
        gid: 0,
        modified: [0; 2],
        _share: None,
    });
    for entry in Entries::of(archive) {
        let entry = entry.map_err(|source| FolderError::Archive {
            file: file.into(),
            source,
        })?;
        add(&mut places, &entry).map_err(|errno| match errno {
            Errno::NOSPC => FolderError::TooMany(file.into()),
            _ => FolderError::Place {
                file: file.into(),
                path: String::from_utf8_lossy(entry.name).into_owned(),
            },
        })?;
    }
    Ok(places)
}

/// Puts an entry into the directory that it is in.
fn add<'a>(places: &mut Places<'a>, entry: &Entry<'a>) -> Result<(), Errno> {
    let path = |bytes: &'a [u8]| bytes.strip_suffix(b"/").unwrap_or(bytes).split(|byte| *byte == b'/');
    let before = (!entry.prefix.is_empty()).then(|| path(entry.prefix));
    let mut parts = before.into_iter().flatten().chain(path(entry.name));
    let (mut directory, mut name) = (ROOT, parts.next().unwrap_or_default());
    for next in parts {
        directory = places.child(directory, name)?;
        name = next;
    }
    check_name(name)?;
    let place = Place {
        what: match entry.kind {
            Kind::Directory => What::Directory(Inside::default()),
            Kind::File => What::File(Content::of(entry.content)),
            Kind::Link => What::Link,
            Kind::Other => What::Other,
        },
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        modified: [entry.modified, 0],
        _share: None,
    };
    places.add(directory, name, place).map(|_| ())
}
