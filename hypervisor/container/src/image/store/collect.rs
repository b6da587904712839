//! Removal of what no image needs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;

use rustix::fs::FlockOperation;

use super::super::error::Doing;
use super::super::{Digest, Error, Result};
use super::{Store, sync_folder, tree};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Images that had no name.
    pub images: Vec<Digest>,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of these blobs.
    pub bytes: u64,
    /// Unpacked layers.
    pub layers: u64,
}

impl Store {
    /// Removes images without a name, and every blob and layer that no image needs. Images whose
    /// manifests are in `keep` stay, and so do layers that somebody has from [`Store::unpacked`].
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] if another process is adding an image; then nothing was removed but names.
    pub fn prune(&self, keep: &[Digest]) -> Result<Freed> {
        let images = self.forget_nameless()?;
        let freed = self.collect(keep)?;
        Ok(Freed { images, ..freed })
    }

    /// Removes every blob and layer that no image needs, as [`Store::prune`] does.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn collect(&self, keep: &[Digest]) -> Result<Freed> {
        let session = self.session()?;
        let _lock = self.lock()?;
        let alone = rustix::fs::flock(session.using(), FlockOperation::NonBlockingLockExclusive);
        let result = match alone {
            Ok(()) => self.collect_alone(keep),
            Err(_) => Err(Error::Busy {
                what: "the store".into(),
                why: "another process is adding an image; `chiton image prune` removes the rest later",
            }),
        };
        rustix::fs::flock(session.using(), FlockOperation::LockShared).at("lock", &self.root)?;
        result
    }

    fn collect_alone(&self, keep: &[Digest]) -> Result<Freed> {
        let mut blobs = BTreeSet::new();
        let mut layers = BTreeSet::new();
        let mut roots = self.entries()?;
        for digest in keep {
            let size = fs::metadata(self.blob_path(*digest)).map_or(0, |found| found.len());
            roots.push(super::Descriptor::new("", *digest, size));
        }
        for entry in roots {
            // An image that cannot be read keeps what it names as far as that is known; all the
            // others keep theirs.
            blobs.insert(entry.digest);
            let Ok(image) = self.load(entry) else { continue };
            blobs.insert(image.manifest.config.digest);
            blobs.extend(image.manifest.layers.iter().map(|layer| layer.digest));
            layers.extend(image.config.rootfs.diff_ids);
        }
        let mut freed = Freed::default();
        for (path, digest) in self.listed("blobs/sha256")? {
            if digest.is_some_and(|digest| blobs.contains(&digest)) {
                continue;
            }
            freed.bytes += fs::metadata(&path).map_or(0, |found| found.len());
            fs::remove_file(&path).at("remove", &path)?;
            freed.blobs += 1;
        }
        for (path, digest) in self.listed("layers")? {
            if digest.is_some_and(|digest| layers.contains(&digest)) {
                continue;
            }
            let folder = File::open(&path).at("open", &path)?;
            if rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            // Whole or not at all: what remains in the session is swept.
            let grave = self.session()?.path("grave");
            fs::rename(&path, &grave).at("remove", &path)?;
            tree::remove(&grave)?;
            freed.layers += 1;
        }
        sync_folder(&self.root.join("blobs/sha256"))?;
        sync_folder(&self.root.join("layers"))?;
        Ok(freed)
    }

    /// What is in a folder of the store whose entries are named by digests.
    pub(super) fn listed(&self, folder: &str) -> Result<Vec<(std::path::PathBuf, Option<Digest>)>> {
        let folder = self.root.join(folder);
        let entries: io::Result<Vec<_>> = fs::read_dir(&folder).at("read", &folder)?.collect();
        let mut listed: Vec<_> = entries
            .at("read", &folder)?
            .into_iter()
            .map(|entry| (entry.path(), entry.file_name().to_str().and_then(Digest::from_hex)))
            .collect();
        listed.sort();
        Ok(listed)
    }
}
