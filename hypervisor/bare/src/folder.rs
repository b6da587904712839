//! A folder of the host, as it was when the image was made: a [`ustar`] archive, in which a guest finds
//! its way by the protocol 9P. Nothing of it can be changed.
//!
//! A directory comes before what is in it. What is in one is listed in the order of the archive.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map;
use alloc::string::String;
use alloc::vec::Vec;

use chiton_core::devices::p9::{Access, Tree};
use chiton_shared::virtio::p9::{Attributes, Entry, Errno, MAX_NAME, MAX_TAG, Qid, Statistics, check_name};
use thiserror::Error;

use crate::ramdisk::AGAIN;
use crate::ustar::{self, Entries, Kind, UstarError};

/// The most files and directories of one folder.
pub const MAX_ENTRIES: usize = 4096;
/// What of a place is one block, in bytes.
const BLOCK: u64 = 4096;

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

/// A folder in memory.
#[derive(Debug)]
pub struct MemoryFolder<'a> {
    name: String,
    /// The folder itself comes first.
    places: Vec<Place<'a>>,
    /// What has which name in which directory.
    names: BTreeMap<(usize, &'a [u8]), usize>,
    /// Bytes of all files.
    bytes: u64,
}

/// What has a name.
#[derive(Debug)]
struct Place<'a> {
    name: &'a [u8],
    entry: ustar::Entry<'a>,
    /// What is in it, if it is a directory.
    inside: Vec<usize>,
}

impl<'a> MemoryFolder<'a> {
    /// The folder in this file of the ramdisk. The guest knows it by the last part of the file's name.
    ///
    /// # Errors
    ///
    /// [`FolderError`].
    pub fn open(file: &str, archive: &'a [u8]) -> Result<Self, FolderError> {
        let name = file.rsplit('/').next().unwrap_or_default();
        if !(1..=MAX_TAG).contains(&name.len()) {
            return Err(FolderError::Name(file.into()));
        }
        let root = ustar::Entry {
            prefix: &[],
            name: &[],
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            modified: 0,
            content: &[],
        };
        let mut folder = Self {
            name: name.into(),
            places: Vec::from([Place {
                name: &[],
                entry: root,
                inside: Vec::new(),
            }]),
            names: BTreeMap::new(),
            bytes: 0,
        };
        for entry in Entries::of(archive) {
            let entry = entry.map_err(|source| FolderError::Archive {
                file: file.into(),
                source,
            })?;
            if folder.places.len() > MAX_ENTRIES {
                return Err(FolderError::TooMany(file.into()));
            }
            folder.add(entry).ok_or_else(|| FolderError::Place {
                file: file.into(),
                path: String::from_utf8_lossy(entry.name).into_owned(),
            })?;
        }
        Ok(folder)
    }

    /// What the guest calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Puts an entry into the directory that it is in; `None` if there is no such place for it.
    fn add(&mut self, entry: ustar::Entry<'a>) -> Option<()> {
        let path = |bytes: &'a [u8]| bytes.strip_suffix(b"/").unwrap_or(bytes).split(|byte| *byte == b'/');
        let before = (!entry.prefix.is_empty()).then(|| path(entry.prefix));
        let mut parts = before.into_iter().flatten().chain(path(entry.name));
        let (mut directory, mut name) = (0, parts.next()?);
        for next in parts {
            directory = *self.names.get(&(directory, name))?;
            name = next;
        }
        check_name(name).ok()?;
        let number = self.places.len();
        let inside = self.places.get_mut(directory).filter(|place| place.is_directory())?;
        let btree_map::Entry::Vacant(vacant) = self.names.entry((directory, name)) else {
            return None;
        };
        vacant.insert(number);
        inside.inside.push(number);
        self.bytes += entry.content.len() as u64;
        self.places.push(Place {
            name,
            entry,
            inside: Vec::new(),
        });
        Some(())
    }

    /// A place that the device was told of.
    fn place(&self, number: usize) -> Result<&Place<'a>, Errno> {
        self.places.get(number).ok_or(Errno::IO)
    }
}

impl Place<'_> {
    fn is_directory(&self) -> bool {
        self.entry.kind == Kind::Directory
    }

    fn qid(&self, number: usize) -> Qid {
        let kind = match self.entry.kind {
            Kind::Directory => Qid::DIRECTORY,
            Kind::Link => Qid::LINK,
            Kind::File | Kind::Other => Qid::FILE,
        };
        Qid {
            kind,
            version: 0,
            path: number as u64,
        }
    }

    /// Linux's number for what it is, the upper part of its mode.
    const fn kind(&self) -> u8 {
        match self.entry.kind {
            Kind::Directory => Entry::DIRECTORY,
            Kind::File => Entry::FILE,
            Kind::Link => Entry::LINK,
            // A pipe: what is none of the three can be looked at, and not be opened.
            Kind::Other => 1,
        }
    }
}

/// A place is its number. Whatever would change the folder is refused.
impl Tree for MemoryFolder<'_> {
    type Node = usize;
    type Open = usize;

    fn root(&mut self) -> Result<usize, Errno> {
        Ok(0)
    }

    fn again(&mut self, node: &usize) -> Result<usize, Errno> {
        Ok(*node)
    }

    fn child(&mut self, directory: &usize, name: &[u8]) -> Result<usize, Errno> {
        if !self.place(*directory)?.is_directory() {
            return Err(Errno::NOTDIR);
        }
        self.names.get(&(*directory, name)).copied().ok_or(Errno::NOENT)
    }

    fn attributes(&mut self, node: &usize) -> Result<Attributes, Errno> {
        let place = self.place(*node)?;
        let size = place.entry.content.len() as u64;
        let time = [place.entry.modified, 0];
        Ok(Attributes {
            qid: place.qid(*node),
            mode: u32::from(place.kind()) << 12 | place.entry.mode,
            uid: place.entry.uid,
            gid: place.entry.gid,
            links: 1,
            size,
            block_size: BLOCK,
            blocks: size.div_ceil(512),
            accessed: time,
            modified: time,
            changed: time,
        })
    }

    fn open(&mut self, node: &usize, access: Access) -> Result<usize, Errno> {
        if access.write || access.truncate {
            return Err(Errno::ROFS);
        }
        match self.place(*node)?.entry.kind {
            Kind::File | Kind::Directory => Ok(*node),
            Kind::Link => Err(Errno::LOOP),
            Kind::Other => Err(Errno::NXIO),
        }
    }

    fn create(&mut self, _: &usize, _: &[u8], _: Access, _: bool, _: u32) -> Result<(usize, usize), Errno> {
        Err(Errno::ROFS)
    }

    fn read_at(&mut self, open: &usize, offset: u64, to: &mut [u8]) -> Result<usize, Errno> {
        let place = self.place(*open)?;
        if place.is_directory() {
            return Err(Errno::ISDIR);
        }
        let from = usize::try_from(offset)
            .ok()
            .and_then(|offset| place.entry.content.get(offset..));
        let from = from.unwrap_or_default();
        let len = from.len().min(to.len());
        to[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn write_at(&mut self, _: &usize, _: u64, _: &[u8]) -> Result<usize, Errno> {
        // Nothing is open for it.
        Err(Errno::BADF)
    }

    fn list(&mut self, open: &usize, offset: u64, take: &mut dyn FnMut(&Entry<'_>) -> bool) -> Result<(), Errno> {
        let directory = self.place(*open)?;
        if !directory.is_directory() {
            return Err(Errno::NOTDIR);
        }
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, number) in (1..).zip(&directory.inside).skip(skipped) {
            let place = self.place(*number)?;
            let entry = Entry {
                qid: place.qid(*number),
                next,
                kind: place.kind(),
                name: place.name,
            };
            if !take(&entry) {
                break;
            }
        }
        Ok(())
    }

    fn make_directory(&mut self, _: &usize, _: &[u8], _: u32) -> Result<usize, Errno> {
        Err(Errno::ROFS)
    }

    fn remove(&mut self, _: &usize, _: &[u8], _: bool) -> Result<(), Errno> {
        Err(Errno::ROFS)
    }

    fn rename(&mut self, _: &usize, _: &[u8], _: &usize, _: &[u8]) -> Result<(), Errno> {
        Err(Errno::ROFS)
    }

    fn resize(&mut self, _: &usize, _: u64) -> Result<(), Errno> {
        Err(Errno::ROFS)
    }

    fn sync(&mut self, _: &usize) -> Result<(), Errno> {
        Ok(())
    }

    fn statistics(&mut self, _: &usize) -> Result<Statistics, Errno> {
        Ok(Statistics {
            // Linux's number for 9P.
            kind: 0x0102_1997,
            block_size: BLOCK as u32,
            blocks: [self.bytes.div_ceil(BLOCK), 0, 0],
            files: [self.places.len() as u64, 0],
            id: 0,
            name_len: MAX_NAME as u32,
        })
    }
}

#[cfg(test)]
mod tests;
