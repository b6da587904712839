//! Layers unpacked, each once, for all images that have it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::super::error::Doing;
use super::super::layer::{self, Owners, is_opaque};
use super::super::progress::{Progress, Watched};
use super::super::spec::{self, Descriptor};
use super::super::{Digest, Error, Result};
use super::tree::Summary;
use super::{Image, Store, open_top, sync_folder, tree};
use crate::jail::{apart, subordinate_ids};
use crate::lock::is_at;

/// The unpacked layers of an image. While this lives nobody removes them.
#[derive(Debug)]
pub struct Unpacked {
    layers: Vec<PathBuf>,
    /// Shared locks on the folders.
    pins: Vec<File>,
}

impl Unpacked {
    /// The layers' folders, **topmost first**, as the `lowerdir` of overlayfs wants them.
    #[must_use]
    pub fn layers(&self) -> &[PathBuf] {
        &self.layers
    }

    /// A regular file of the image, by its absolute path: of the topmost layer that has it. Nothing, if a link leads there,
    /// if it was removed again, or if it is larger than `most` bytes.
    ///
    /// # Errors
    ///
    /// If a layer cannot be read.
    pub fn file(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        for layer in &self.layers {
            let top = File::open(layer).at("open", layer)?;
            let file = match openat2(&top, path, flags, Mode::empty(), resolve) {
                Ok(file) => File::from(file),
                Err(Errno::NOENT) => continue,
                // A link, or what was removed, on the way or there.
                Err(Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::NODEV) => return Ok(None),
                Err(errno) => return Err(io::Error::from(errno)).at("open", &layer.join(path.trim_start_matches('/'))),
            };
            let about = file.metadata().at("look at", layer)?;
            if !about.is_file() || about.len() > most {
                return Ok(None);
            }
            let mut bytes = Vec::new();
            file.take(most).read_to_end(&mut bytes).at("read", layer)?;
            return Ok(Some(bytes));
        }
        Ok(None)
    }

    /// How many entries have another owner than their layer says, since they were unpacked by a user who has but one id.
    ///
    /// # Errors
    ///
    /// If what was written down of a layer cannot be read.
    pub fn lost_owners(&self) -> Result<u64> {
        let folders = self.layers.iter().filter_map(|top| top.parent());
        folders.map(|folder| Ok(record(folder)?.lost_owners)).sum()
    }

    /// The locks that keep the layers, for whoever must outlive this process.
    #[must_use]
    pub fn pins(&self) -> &[File] {
        &self.pins
    }
}

/// What was written down of a layer when it was unpacked, in its folder.
fn record(folder: &Path) -> Result<Summary> {
    let record = folder.join("record.json");
    let bytes = fs::read(&record).at("read", &record)?;
    spec::parse(&record.to_string_lossy(), &bytes)
}

impl Store {
    pub(super) fn layer_folder(&self, diff_id: Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    /// The image's layers, unpacked now where they are not yet. Every blob that is unpacked is
    /// checked against its digest, and what comes out of it against its diff-id.
    ///
    /// # Errors
    ///
    /// If a layer is missing, damaged or refused, or there is no room. Then it is not there at all.
    pub fn unpacked(&self, image: &Image, progress: &dyn Progress) -> Result<Unpacked> {
        let mut this = Unpacked {
            layers: Vec::new(),
            pins: Vec::new(),
        };
        let layers = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
        for (layer, diff_id) in layers.rev() {
            let top = self.layer_folder(*diff_id).join("fs");
            // The same layer twice is no use, and overlayfs refuses it.
            if this.layers.contains(&top) {
                continue;
            }
            let pin = loop {
                if let Some(pin) = self.pin(*diff_id)? {
                    break pin;
                }
                self.unpack(layer, *diff_id, progress)?;
            };
            this.pins.push(pin);
            // Overlayfs does not look at this attribute of a layer's root.
            let opaque = is_opaque(open_top(&top)?).at("read attributes of", &top)?;
            this.layers.push(top);
            if opaque {
                break;
            }
        }
        Ok(this)
    }

    /// Locks an unpacked layer, if it is there, and still there then.
    fn pin(&self, diff_id: Digest) -> Result<Option<File>> {
        let path = self.layer_folder(diff_id);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.at("open", &path)?,
        };
        rustix::fs::flock(&file, FlockOperation::LockShared).at("lock", &path)?;
        Ok(is_at(&file, &path).then_some(file))
    }

    /// With all ids that there are, so that files get the owners that the layer says.
    fn unpack(&self, blob: &Descriptor, diff_id: Digest, progress: &dyn Progress) -> Result<()> {
        let Some(ids) = subordinate_ids() else {
            return self.unpack_here(blob, diff_id, progress);
        };
        // Whoever swept it would take the folder away from the copy.
        self.session()?;
        let unpack = || {
            self.unpack_here(blob, diff_id, progress)
                .map_err(|error| error.to_string())
        };
        Ok(apart(&ids, unpack)?)
    }

    fn unpack_here(&self, blob: &Descriptor, diff_id: Digest, progress: &dyn Progress) -> Result<()> {
        let file = self.open_blob(blob)?;
        let folder = self.session()?.path("layer");
        let top = folder.join("fs");
        let made = DirBuilder::new().mode(0o700).recursive(true).create(&top);
        made.at("make folder", &top)?;
        // The root of the jail, unless the layer says otherwise.
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).at("make folder", &top)?;
        let what = format!("unpacking {}", diff_id.short());
        let mut reader = Watched::new(file, progress, &what, blob.size);
        let result = layer::unpack(&mut reader, blob, diff_id, &top, self.limits, Owners::ours())
            .and_then(|skipped| self.place_layer(&folder, &top, diff_id, skipped.owners));
        if result.is_err() {
            tree::remove(&folder)?;
        }
        result
    }

    /// Puts an unpacked layer where it belongs.
    fn place_layer(&self, folder: &Path, top: &Path, diff_id: Digest, lost_owners: u64) -> Result<()> {
        let record = folder.join("record.json");
        let summary = Summary {
            lost_owners,
            ..Summary::of(top)?
        };
        let bytes = spec::to_json("record.json", &summary)?;
        fs::write(&record, bytes).at("write", &record)?;
        let open = File::open(folder).at("open", folder)?;
        rustix::fs::syncfs(&open).at("write", folder)?;
        let target = self.layer_folder(diff_id);
        match fs::rename(folder, &target) {
            // Somebody else was quicker.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                tree::remove(folder)
            }
            result => {
                result.at("write", &target)?;
                sync_folder(&self.root.join("layers"))
            }
        }
    }

    /// Checks that an unpacked layer holds what it held when it was unpacked.
    pub(super) fn check_layer(&self, diff_id: Digest) -> Result<()> {
        let Some(ids) = subordinate_ids() else {
            return self.check_layer_here(diff_id);
        };
        // One that was unpacked before there were more ids has owners as this process sees them.
        self.check_layer_here(diff_id).or_else(|_| {
            Ok(apart(&ids, || {
                self.check_layer_here(diff_id).map_err(|error| error.to_string())
            })?)
        })
    }

    fn check_layer_here(&self, diff_id: Digest) -> Result<()> {
        let folder = self.layer_folder(diff_id);
        let wanted = record(&folder)?;
        let found = Summary {
            lost_owners: wanted.lost_owners,
            ..Summary::of(&folder.join("fs"))?
        };
        if wanted == found {
            return Ok(());
        }
        let why = if (wanted.entries, wanted.bytes) == (found.entries, found.bytes) {
            "names, modes or owners are not what was unpacked".to_owned()
        } else {
            format!(
                "{} entries with {} bytes instead of {} with {}",
                found.entries, found.bytes, wanted.entries, wanted.bytes
            )
        };
        Err(Error::document(format!("unpacked layer {diff_id}"), why))
    }
}
