//! A folder in the test's memory: a few files in one directory, and a directory in it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use chiton_shared::virtio::p9::{Attributes, Entry, Errno, Qid, Statistics, check_name};

use super::{Access, Tree};

/// A path in the folder; the folder itself is empty.
pub(crate) type Path = Vec<u8>;

/// What the test's end of a folder sees: bytes of files, `None` for directories.
pub(crate) type Files = BTreeMap<Path, Option<Vec<u8>>>;

/// A folder; clones are the same folder.
#[derive(Clone, Default)]
pub(crate) struct FakeTree(Arc<Mutex<Files>>);

fn join(directory: &[u8], name: &[u8]) -> Path {
    assert_eq!(check_name(name), Ok(()), "the device passed on a name that is none");
    [directory, b"/", name].concat()
}

impl FakeTree {
    pub(crate) fn new(files: &[(&str, Option<&[u8]>)]) -> Self {
        let tree = Self::default();
        tree.files().insert(Path::new(), None);
        for (path, bytes) in files {
            tree.files().insert(path.as_bytes().into(), bytes.map(Into::into));
        }
        tree
    }

    pub(crate) fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R>(&self, path: &Path, work: impl FnOnce(&mut Option<Vec<u8>>) -> Result<R, Errno>) -> Result<R, Errno> {
        work(self.files().get_mut(path).ok_or(Errno::NOENT)?)
    }
}

impl Tree for FakeTree {
    type Node = Path;
    type Open = Path;

    fn root(&mut self) -> Result<Path, Errno> {
        Ok(Path::new())
    }

    fn again(&mut self, node: &Path) -> Result<Path, Errno> {
        Ok(node.clone())
    }

    fn child(&mut self, directory: &Path, name: &[u8]) -> Result<Path, Errno> {
        self.with(directory, |d| if d.is_some() { Err(Errno::NOTDIR) } else { Ok(()) })?;
        let path = join(directory, name);
        self.with(&path, |_| Ok(()))?;
        Ok(path)
    }

    fn attributes(&mut self, node: &Path) -> Result<Attributes, Errno> {
        self.with(node, |file| {
            let kind = if file.is_some() { Qid::FILE } else { Qid::DIRECTORY };
            Ok(Attributes {
                qid: Qid { kind, ..Qid::default() },
                size: file.as_ref().map_or(0, |bytes| bytes.len() as u64),
                ..Attributes::default()
            })
        })
    }

    fn open(&mut self, node: &Path, access: Access) -> Result<Path, Errno> {
        self.with(node, |file| match file {
            Some(bytes) => {
                if access.truncate {
                    bytes.clear();
                }
                Ok(node.clone())
            }
            None if access.write => Err(Errno::ISDIR),
            None => Ok(node.clone()),
        })
    }

    fn create(
        &mut self,
        directory: &Path,
        name: &[u8],
        access: Access,
        exclusive: bool,
        mode: u32,
    ) -> Result<(Path, Path), Errno> {
        assert_eq!(mode & !0o777, 0);
        let path = join(directory, name);
        if exclusive && self.files().contains_key(&path) {
            return Err(Errno::EXIST);
        }
        self.files().entry(path.clone()).or_insert_with(|| Some(Vec::new()));
        let open = self.open(&path, access)?;
        Ok((path, open))
    }

    fn read_at(&mut self, open: &Path, offset: u64, to: &mut [u8]) -> Result<usize, Errno> {
        self.with(open, |file| {
            let bytes = file.as_ref().ok_or(Errno::ISDIR)?;
            let from = bytes.get(offset as usize..).unwrap_or_default();
            let len = from.len().min(to.len());
            to[..len].copy_from_slice(&from[..len]);
            Ok(len)
        })
    }

    fn write_at(&mut self, open: &Path, offset: u64, from: &[u8]) -> Result<usize, Errno> {
        self.with(open, |file| {
            let bytes = file.as_mut().ok_or(Errno::ISDIR)?;
            let at = usize::try_from(offset)
                .ok()
                .filter(|at| *at < 1 << 20)
                .ok_or(Errno::NOSPC)?;
            bytes.resize(bytes.len().max(at + from.len()), 0);
            bytes[at..at + from.len()].copy_from_slice(from);
            Ok(from.len())
        })
    }

    fn list(&mut self, open: &Path, offset: u64, take: &mut dyn FnMut(&Entry<'_>) -> bool) -> Result<(), Errno> {
        self.with(open, |d| if d.is_some() { Err(Errno::NOTDIR) } else { Ok(()) })?;
        let prefix = [open.as_slice(), b"/"].concat();
        for (i, (path, _)) in self.files().iter().enumerate().skip(offset as usize) {
            let Some(name) = path.strip_prefix(prefix.as_slice()).filter(|n| !n.contains(&b'/')) else {
                continue;
            };
            let entry = Entry {
                qid: Qid::default(),
                next: i as u64 + 1,
                kind: Entry::FILE,
                name,
            };
            if !take(&entry) {
                break;
            }
        }
        Ok(())
    }

    fn make_directory(&mut self, directory: &Path, name: &[u8], _mode: u32) -> Result<Path, Errno> {
        let path = join(directory, name);
        match self.files().insert(path.clone(), None) {
            None => Ok(path),
            Some(_) => Err(Errno::EXIST),
        }
    }

    fn remove(&mut self, directory: &Path, name: &[u8], is_directory: bool) -> Result<(), Errno> {
        let path = join(directory, name);
        self.with(&path, |file| match (file.is_none(), is_directory) {
            (true, false) => Err(Errno::ISDIR),
            (false, true) => Err(Errno::NOTDIR),
            _ => Ok(()),
        })?;
        self.files().remove(&path);
        Ok(())
    }

    fn rename(&mut self, from: &Path, name: &[u8], to: &Path, new_name: &[u8]) -> Result<(), Errno> {
        let file = self.files().remove(&join(from, name)).ok_or(Errno::NOENT)?;
        self.files().insert(join(to, new_name), file);
        Ok(())
    }

    fn resize(&mut self, node: &Path, size: u64) -> Result<(), Errno> {
        self.with(node, |file| {
            file.as_mut().ok_or(Errno::ISDIR)?.resize(size.min(1 << 20) as usize, 0);
            Ok(())
        })
    }

    fn sync(&mut self, _open: &Path) -> Result<(), Errno> {
        Ok(())
    }

    fn statistics(&mut self, _node: &Path) -> Result<Statistics, Errno> {
        Ok(Statistics::default())
    }
}
