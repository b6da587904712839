//! What has a name in a folder, and where. Whoever holds a place keeps it, even when its name is gone, as Linux does.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use chiton_shared::virtio::p9::Errno;

use super::MAX_ENTRIES;
use super::content::Content;
use super::room::Share;

/// The number of the folder itself.
pub(super) const ROOT: usize = 0;

/// A file, a directory, or anything else.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) what: What<'a>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970, and nanoseconds.
    pub(super) modified: [u64; 2],
    /// What it takes of the room, if a guest has made it.
    pub(super) _share: Option<Share>,
}

/// What a place is.
#[derive(Debug)]
pub(super) enum What<'a> {
    Directory(Inside),
    File(Content<'a>),
    Link,
    /// It can be looked at, and not be opened.
    Other,
}

/// What is in a directory.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// Each one's number in the order.
    names: BTreeMap<Arc<[u8]>, u64>,
    /// As they came in: what is listed does not change its place meanwhile.
    order: BTreeMap<u64, (Arc<[u8]>, usize)>,
    next: u64,
}

impl Inside {
    fn find(&self, name: &[u8]) -> Option<usize> {
        self.order.get(self.names.get(name)?).map(|(_, number)| *number)
    }

    fn add(&mut self, name: &[u8], number: usize) {
        let name: Arc<[u8]> = name.into();
        self.names.insert(Arc::clone(&name), self.next);
        self.order.insert(self.next, (name, number));
        self.next += 1;
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some(at) = self.names.remove(name) {
            self.order.remove(&at);
        }
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// From this number of the order on: the number after each, its name, and the place.
    pub(super) fn from(&self, at: u64) -> impl Iterator<Item = (u64, &[u8], usize)> {
        let rest = self.order.range(at..);
        rest.map(|(at, (name, number))| (at + 1, &name[..], *number))
    }
}

/// A place that somebody holds.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) number: usize,
    _held: Arc<()>,
}

#[derive(Debug)]
struct Slot<'a> {
    place: Place<'a>,
    /// The directory that it is in; none is the folder itself, or a place whose name is gone.
    above: Option<usize>,
    held: Arc<()>,
}

/// All places of a folder, by their numbers.
#[derive(Debug)]
pub(super) struct Places<'a> {
    slots: Vec<Option<Slot<'a>>>,
    free: Vec<usize>,
    /// Those whose names are gone, and that may be held.
    nameless: Vec<usize>,
}

impl<'a> Places<'a> {
    /// The folder itself, with nothing in it.
    pub(super) fn new(root: Place<'a>) -> Self {
        let root = Slot {
            place: root,
            above: None,
            held: Arc::default(),
        };
        Self {
            slots: Vec::from([Some(root)]),
            free: Vec::new(),
            nameless: Vec::new(),
        }
    }

    /// How many there are, the folder itself too.
    pub(super) fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn slot(&self, number: usize) -> Result<&Slot<'a>, Errno> {
        self.slots.get(number).and_then(Option::as_ref).ok_or(Errno::IO)
    }

    fn slot_mut(&mut self, number: usize) -> Result<&mut Slot<'a>, Errno> {
        self.slots.get_mut(number).and_then(Option::as_mut).ok_or(Errno::IO)
    }

    pub(super) fn get(&self, number: usize) -> Result<&Place<'a>, Errno> {
        self.slot(number).map(|slot| &slot.place)
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Result<&mut Place<'a>, Errno> {
        self.slot_mut(number).map(|slot| &mut slot.place)
    }

    /// Lets somebody hold it.
    pub(super) fn hold(&self, number: usize) -> Result<Node, Errno> {
        let held = Arc::clone(&self.slot(number)?.held);
        Ok(Node { number, _held: held })
    }

    /// Whether it has a name.
    pub(super) fn is_named(&self, number: usize) -> bool {
        number == ROOT || self.slot(number).is_ok_and(|slot| slot.above.is_some())
    }

    /// What is in a directory.
    pub(super) fn inside(&self, directory: usize) -> Result<&Inside, Errno> {
        match &self.get(directory)?.what {
            What::Directory(inside) => Ok(inside),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn inside_mut(&mut self, directory: usize) -> Result<&mut Inside, Errno> {
        match &mut self.get_mut(directory)?.what {
            What::Directory(inside) => Ok(inside),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// What has this name in a directory.
    pub(super) fn child(&self, directory: usize, name: &[u8]) -> Result<usize, Errno> {
        self.inside(directory)?.find(name).ok_or(Errno::NOENT)
    }

    /// Whether a new place can have this name in a directory.
    pub(super) fn check_new(&self, directory: usize, name: &[u8]) -> Result<(), Errno> {
        match self.child(directory, name) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) if !self.is_named(directory) => Err(Errno::NOENT),
            Err(Errno::NOENT) if self.count() > MAX_ENTRIES => Err(Errno::NOSPC),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Gives a new place this name in a directory.
    pub(super) fn add(&mut self, directory: usize, name: &[u8], place: Place<'a>) -> Result<usize, Errno> {
        self.check_new(directory, name)?;
        let slot = Slot {
            place,
            above: Some(directory),
            held: Arc::default(),
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number] = Some(slot);
                number
            }
            None => {
                self.slots.push(Some(slot));
                self.slots.len() - 1
            }
        };
        self.inside_mut(directory)?.add(name, number);
        Ok(number)
    }

    /// Takes away the name of a file, or of a directory that is empty.
    pub(super) fn remove(&mut self, directory: usize, name: &[u8], is_directory: bool) -> Result<(), Errno> {
        let number = self.child(directory, name)?;
        match (self.inside(number), is_directory) {
            (Ok(_), false) => return Err(Errno::ISDIR),
            (Err(errno), true) => return Err(errno),
            (Ok(inside), true) if !inside.is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        self.inside_mut(directory)?.remove(name);
        self.slot_mut(number)?.above = None;
        self.nameless.push(number);
        Ok(())
    }

    /// Gives a place another name, over what has it. What is wrong is told in Linux's order.
    pub(super) fn rename(&mut self, from: usize, name: &[u8], to: usize, new_name: &[u8]) -> Result<(), Errno> {
        self.inside(from)?;
        self.inside(to)?;
        let moved = self.child(from, name)?;
        if !self.is_named(to) {
            return Err(Errno::NOENT);
        }
        if self.is_within(to, moved) {
            return Err(Errno::INVAL);
        }
        if let Ok(replaced) = self.child(to, new_name) {
            if replaced == moved {
                return Ok(());
            }
            if self.is_within(from, replaced) {
                return Err(Errno::NOTEMPTY);
            }
            let is_directory = self.inside(moved).is_ok();
            self.remove(to, new_name, is_directory)?;
        }
        self.inside_mut(from)?.remove(name);
        self.inside_mut(to)?.add(new_name, moved);
        self.slot_mut(moved)?.above = Some(to);
        Ok(())
    }

    /// Whether a place is this directory, or somewhere below it.
    fn is_within(&self, mut number: usize, directory: usize) -> bool {
        while number != directory {
            match self.slot(number).ok().and_then(|slot| slot.above) {
                Some(above) => number = above,
                None => return false,
            }
        }
        true
    }

    /// Does away with the places that have no name and are not held any more.
    pub(super) fn tidy(&mut self) {
        let Self { slots, free, nameless } = self;
        nameless.retain(|number| {
            let held = matches!(&slots[*number], Some(slot) if Arc::strong_count(&slot.held) > 1);
            if !held {
                slots[*number] = None;
                free.push(*number);
            }
            held
        });
    }
}
