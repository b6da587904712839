//! A folder of the host, as it was when the image was made: a [`ustar`](crate::ustar) archive, in which a guest
//! finds its way by the protocol 9P. What it writes, if it may, is kept beside the archive, and lost at the end.
//!
//! What is in a directory is listed in the order of the archive, then as it was made. A guest may do what root may on
//! a host: permissions are kept, and not asked for.

mod archive;
mod content;
mod places;
mod room;

use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use chiton_core::devices::p9::{Access, Tree};
use chiton_shared::virtio::p9::{Attributes, Entry, Errno, MAX_NAME, MAX_TAG, Qid, Statistics};

pub use archive::FolderError;
use content::Content;
pub use places::Node;
use places::{Inside, Place, Places, ROOT, What};
pub use room::Room;
use room::Share;

/// The most files and directories of one folder.
pub const MAX_ENTRIES: usize = 4096;
/// What of a place is one block, and what is copied before it is written to, in bytes.
const PAGE: usize = 4096;

/// By what a guest may write to a folder.
#[derive(Debug)]
pub struct Writing {
    /// Where what is written goes.
    pub room: Arc<Room>,
    /// The time: seconds since 1970, and nanoseconds.
    pub now: fn() -> [u64; 2],
}

/// A folder in memory.
#[derive(Debug)]
pub struct MemoryFolder<'a> {
    name: String,
    places: Places<'a>,
    /// How many blocks the archive has.
    blocks: u64,
    writing: Option<Writing>,
    written: Arc<AtomicBool>,
}

/// A file or directory that is open.
#[derive(Debug)]
pub struct Open {
    node: Node,
    access: Access,
}

impl<'a> MemoryFolder<'a> {
    /// The folder in this file of the ramdisk, which can be written to by `writing` alone. The guest knows it by the
    /// last part of the file's name.
    ///
    /// # Errors
    ///
    /// [`FolderError`].
    pub fn open(file: &str, archive: &'a [u8], writing: Option<Writing>) -> Result<Self, FolderError> {
        let name = file.rsplit('/').next().unwrap_or_default();
        if !(1..=MAX_TAG).contains(&name.len()) {
            return Err(FolderError::Name(file.into()));
        }
        Ok(Self {
            name: name.into(),
            places: archive::unpack(file, archive)?,
            blocks: archive.len().div_ceil(PAGE) as u64,
            writing,
            written: Arc::default(),
        })
    }

    /// What the guest calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether anything was changed, for others to look at too.
    #[must_use]
    pub fn written(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.written)
    }

    /// By what to write, for what is about to; nobody's places are gone then.
    fn writing(&mut self) -> Result<&Writing, Errno> {
        let writing = self.writing.as_ref().ok_or(Errno::ROFS)?;
        self.places.tidy();
        Ok(writing)
    }

    /// A place has been changed just now.
    fn touch(&mut self, number: usize) -> Result<(), Errno> {
        self.written.store(true, Ordering::Relaxed);
        if let Some(writing) = &self.writing {
            self.places.get_mut(number)?.modified = (writing.now)();
        }
        Ok(())
    }

    /// Makes a file or directory of this name.
    fn make(&mut self, directory: usize, name: &[u8], what: What<'a>, mode: u32) -> Result<Node, Errno> {
        self.writing()?;
        self.places.check_new(directory, name)?;
        // A page pays for what a place takes, its name too.
        let share = Share::of(&self.writing()?.room).ok_or(Errno::NOSPC)?;
        let place = Place {
            what,
            mode,
            uid: 0,
            gid: 0,
            modified: [0; 2],
            _share: Some(share),
        };
        let number = self.places.add(directory, name, place)?;
        self.touch(directory)?;
        self.touch(number)?;
        self.places.hold(number)
    }

    /// Gives a file that can be opened for writing another size.
    fn cut(&mut self, number: usize, size: u64) -> Result<(), Errno> {
        self.writing()?;
        let place = self.places.get_mut(number)?;
        check_openable(place, true)?;
        if let What::File(content) = &mut place.what {
            content.resize(size);
        }
        self.touch(number)
    }

    fn qid(&self, number: usize) -> Result<Qid, Errno> {
        Ok(Qid {
            kind: match self.places.get(number)?.what {
                What::Directory(_) => Qid::DIRECTORY,
                What::Link => Qid::LINK,
                What::File(_) | What::Other => Qid::FILE,
            },
            version: 0,
            path: number as u64,
        })
    }
}

/// Linux's number for what a place is, the upper part of its mode.
const fn kind(place: &Place<'_>) -> u8 {
    match place.what {
        What::Directory(_) => Entry::DIRECTORY,
        What::File(_) => Entry::FILE,
        What::Link => Entry::LINK,
        // A pipe: what is none of the three can be looked at, and not be opened.
        What::Other => 1,
    }
}

/// Refuses what cannot be opened, or not to be changed.
const fn check_openable(place: &Place<'_>, change: bool) -> Result<(), Errno> {
    match place.what {
        What::Directory(_) if change => Err(Errno::ISDIR),
        What::Directory(_) | What::File(_) => Ok(()),
        What::Link => Err(Errno::LOOP),
        What::Other => Err(Errno::NXIO),
    }
}

impl Tree for MemoryFolder<'_> {
    type Node = Node;
    type Open = Open;

    fn root(&mut self) -> Result<Node, Errno> {
        self.places.hold(ROOT)
    }

    fn again(&mut self, node: &Node) -> Result<Node, Errno> {
        Ok(node.clone())
    }

    fn child(&mut self, directory: &Node, name: &[u8]) -> Result<Node, Errno> {
        let number = self.places.child(directory.number, name)?;
        self.places.hold(number)
    }

    fn attributes(&mut self, node: &Node) -> Result<Attributes, Errno> {
        let place = self.places.get(node.number)?;
        let size = match &place.what {
            What::File(content) => content.size(),
            _ => 0,
        };
        Ok(Attributes {
            qid: self.qid(node.number)?,
            mode: u32::from(kind(place)) << 12 | place.mode,
            uid: place.uid,
            gid: place.gid,
            links: self.places.is_named(node.number).into(),
            size,
            block_size: PAGE as u64,
            blocks: size.div_ceil(512),
            accessed: place.modified,
            modified: place.modified,
            changed: place.modified,
        })
    }

    fn open(&mut self, node: &Node, access: Access) -> Result<Open, Errno> {
        let change = access.write || access.truncate;
        if change {
            self.writing()?;
        }
        check_openable(self.places.get(node.number)?, change)?;
        if access.truncate {
            self.cut(node.number, 0)?;
        }
        let node = node.clone();
        Ok(Open { node, access })
    }

    fn create(
        &mut self,
        directory: &Node,
        name: &[u8],
        access: Access,
        exclusive: bool,
        mode: u32,
    ) -> Result<(Node, Open), Errno> {
        let node = match self.make(directory.number, name, What::File(Content::default()), mode) {
            Err(Errno::EXIST) if !exclusive => self.child(directory, name),
            made => made,
        }?;
        let open = self.open(&node, access)?;
        Ok((node, open))
    }

    fn read_at(&mut self, open: &Open, offset: u64, to: &mut [u8]) -> Result<usize, Errno> {
        if !open.access.read {
            return Err(Errno::BADF);
        }
        match &self.places.get(open.node.number)?.what {
            What::File(content) => Ok(content.read_at(offset, to)),
            _ => Err(Errno::ISDIR),
        }
    }

    fn write_at(&mut self, open: &Open, offset: u64, from: &[u8]) -> Result<usize, Errno> {
        if !open.access.write {
            return Err(Errno::BADF);
        }
        self.writing()?;
        let Self { places, writing, .. } = self;
        let (What::File(content), Some(writing)) = (&mut places.get_mut(open.node.number)?.what, writing) else {
            return Err(Errno::BADF);
        };
        let written = content.write_at(&writing.room, offset, from);
        if written == 0 && !from.is_empty() {
            return Err(Errno::NOSPC);
        }
        self.touch(open.node.number)?;
        Ok(written)
    }

    fn list(&mut self, open: &Open, offset: u64, take: &mut dyn FnMut(&Entry<'_>) -> bool) -> Result<(), Errno> {
        let directory = open.node.number;
        let inside = self.places.inside(directory)?;
        if !self.places.is_named(directory) {
            return Err(Errno::NOENT);
        }
        for (next, name, number) in inside.from(offset) {
            let entry = Entry {
                qid: self.qid(number)?,
                next,
                kind: kind(self.places.get(number)?),
                name,
            };
            if !take(&entry) {
                break;
            }
        }
        Ok(())
    }

    fn make_directory(&mut self, directory: &Node, name: &[u8], mode: u32) -> Result<Node, Errno> {
        self.make(directory.number, name, What::Directory(Inside::default()), mode)
    }

    fn remove(&mut self, directory: &Node, name: &[u8], is_directory: bool) -> Result<(), Errno> {
        self.writing()?;
        self.places.remove(directory.number, name, is_directory)?;
        self.touch(directory.number)
    }

    fn rename(&mut self, from: &Node, name: &[u8], to: &Node, new_name: &[u8]) -> Result<(), Errno> {
        self.writing()?;
        self.places.rename(from.number, name, to.number, new_name)?;
        self.touch(from.number)?;
        self.touch(to.number)
    }

    fn resize(&mut self, node: &Node, size: u64) -> Result<(), Errno> {
        self.cut(node.number, size)
    }

    fn sync(&mut self, _: &Open) -> Result<(), Errno> {
        Ok(())
    }

    fn statistics(&mut self, _: &Node) -> Result<Statistics, Errno> {
        self.places.tidy();
        let count = self.places.count();
        let (free, places) = match &self.writing {
            Some(writing) => (
                writing.room.left() as u64,
                (MAX_ENTRIES + 1).saturating_sub(count) as u64,
            ),
            None => (0, 0),
        };
        Ok(Statistics {
            // Linux's number for 9P.
            kind: 0x0102_1997,
            block_size: PAGE as u32,
            blocks: [self.blocks + free, free, free],
            files: [count as u64 + places, places],
            id: 0,
            name_len: MAX_NAME as u32,
        })
    }
}

#[cfg(test)]
mod tests;
