//! What differs between two images: their layers put together as overlayfs would.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::Result;
use super::error::Doing;
use super::layer::{is_opaque, is_whiteout};
use super::store::{open_folder, open_top, walk};

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is another: kind, mode, owner, content or target.
    Changed,
    /// It is gone.
    Removed,
}

impl fmt::Display for Change {
    /// One letter, as `docker diff` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "A",
            Self::Changed => "C",
            Self::Removed => "D",
        })
    }
}

/// A file of the merged tree, and the layer that it is from.
struct Item {
    stat: Stat,
    layer: PathBuf,
    target: Option<Vec<u8>>,
}

/// Compares two stacks of unpacked layers, each topmost first. Paths are sorted, and begin at the
/// image's root. What is below a removed or added folder is listed too.
///
/// # Errors
///
/// If a layer cannot be read.
pub fn diff(old: &[PathBuf], new: &[PathBuf]) -> Result<Vec<(Change, PathBuf)>> {
    let (old, new) = (merged(old)?, merged(new)?);
    let mut changes = Vec::new();
    for (path, before) in &old {
        match new.get(path) {
            None => changes.push((Change::Removed, path.clone())),
            Some(after) if !same(before, after, path)? => changes.push((Change::Changed, path.clone())),
            Some(_) => {}
        }
    }
    changes.extend(
        new.keys()
            .filter(|path| !old.contains_key(*path))
            .map(|path| (Change::Added, path.clone())),
    );
    changes.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(changes)
}

fn merged(layers: &[PathBuf]) -> Result<BTreeMap<PathBuf, Item>> {
    let mut tree: BTreeMap<PathBuf, Item> = BTreeMap::new();
    for layer in layers.iter().rev() {
        walk(&open_top(layer)?, &mut |found| {
            let folder = found.kind() == FileType::Directory;
            let hides = !folder || {
                let folder = open_folder(found.parent, found.name).at("open folder", found.path)?;
                is_opaque(folder).at("read attributes of", found.path)?
            };
            if hides {
                // Paths sort part by part, so what is below one follows it.
                let below: Vec<_> = tree
                    .range(found.path.to_owned()..)
                    .map(|(path, _)| path.clone())
                    .take_while(|path| path.starts_with(found.path))
                    .collect();
                for path in below {
                    tree.remove(&path);
                }
            }
            if is_whiteout(&found.stat) {
                return Ok(());
            }
            let target = match found.kind() {
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(found.parent, found.name, Vec::new());
                    Some(target.at("read link", found.path)?.into_bytes())
                }
                _ => None,
            };
            let item = Item {
                stat: found.stat,
                layer: layer.clone(),
                target,
            };
            tree.insert(found.path.to_owned(), item);
            Ok(())
        })?;
    }
    Ok(tree)
}

fn same(a: &Item, b: &Item, path: &Path) -> Result<bool> {
    let (x, y) = (&a.stat, &b.stat);
    if (x.st_dev, x.st_ino) == (y.st_dev, y.st_ino) {
        return Ok(true);
    }
    if (x.st_mode, x.st_uid, x.st_gid) != (y.st_mode, y.st_uid, y.st_gid) || a.target != b.target {
        return Ok(false);
    }
    if FileType::from_raw_mode(x.st_mode) != FileType::RegularFile {
        return Ok(true);
    }
    if x.st_size != y.st_size {
        return Ok(false);
    }
    let open = |item: &Item| File::open(item.layer.join(path)).at("open", path);
    same_bytes(open(a)?, open(b)?).at("compare", path)
}

fn same_bytes(a: File, b: File) -> io::Result<bool> {
    let (mut a, mut b) = (BufReader::new(a), BufReader::new(b));
    let (mut x, mut y) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let count = a.read(&mut x)?;
        if count == 0 {
            return Ok(b.read(&mut y)? == 0);
        }
        match b.read_exact(&mut y[..count]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            result => result?,
        }
        if x[..count] != y[..count] {
            return Ok(false);
        }
    }
}
