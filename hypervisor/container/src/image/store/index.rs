//! The index: which images there are, by name. It is replaced whole, under the store's lock.

use std::fs;
use std::io;

use super::super::error::Doing;
use super::super::spec::{self, Config, Descriptor, Index, Manifest, REF_NAME};
use super::super::{Digest, Error, Limits, Reference, Result};
use super::{Image, Store};

/// The fewest digits by which an image is looked for.
const MIN_PREFIX: usize = 4;

impl Store {
    pub(super) fn read_index(&self) -> Result<Option<Index>> {
        let path = self.root.join("index.json");
        let bytes = match fs::metadata(&path) {
            Ok(found) if found.len() > Limits::DOCUMENT => {
                return Err(Error::document(
                    path.display(),
                    "more bytes than a document may have, 4 MiB",
                ));
            }
            Ok(_) => fs::read(&path).at("read", &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("read", &path),
        };
        Index::parse(&path.to_string_lossy(), &bytes).map(Some)
    }

    pub(super) fn write_index(&self, index: &Index) -> Result<()> {
        self.place("index.json", &spec::to_json("index.json", index)?)
    }

    /// Changes the index, alone.
    fn change_index<T>(&self, change: impl FnOnce(&mut Index) -> Result<T>) -> Result<T> {
        // Sessions begin under the lock too.
        self.session()?;
        let _lock = self.lock()?;
        let mut index = self.read_index()?.unwrap_or_default();
        let before = index.clone();
        let result = change(&mut index)?;
        if index != before {
            self.write_index(&index)?;
        }
        Ok(result)
    }

    /// Every image that the index lists, as it lists them.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn entries(&self) -> Result<Vec<Descriptor>> {
        Ok(self.read_index()?.unwrap_or_default().manifests)
    }

    /// Every image, sorted by name.
    ///
    /// # Errors
    ///
    /// If one cannot be read.
    pub fn images(&self) -> Result<Vec<Image>> {
        let images: Result<Vec<_>> = self.entries()?.into_iter().map(|entry| self.load(entry)).collect();
        let mut images = images?;
        images.sort_by_key(|image| (image.name.is_none(), image.name.clone(), image.digest()));
        Ok(images)
    }

    /// The image of this name, or whose digest begins like this.
    ///
    /// # Errors
    ///
    /// If there is none, or several, or it cannot be read.
    pub fn image(&self, name: &str) -> Result<Image> {
        self.load(self.find(name)?)
    }

    /// The image whose manifest has this digest, whether it still has a name or not.
    ///
    /// # Errors
    ///
    /// If there is none, or it cannot be read.
    pub fn image_by_digest(&self, digest: &str) -> Result<Image> {
        let named = self
            .entries()?
            .into_iter()
            .find(|entry| entry.digest.to_string() == digest);
        if let Some(entry) = named {
            return self.load(entry);
        }
        let missing = || Error::NoImage {
            name: digest.chars().take(200).collect(),
        };
        let digest: Digest = digest.parse().map_err(|_| missing())?;
        let size = std::fs::metadata(self.blob_path(digest)).map_err(|_| missing())?.len();
        self.load(Descriptor::new("", digest, size))
    }

    fn find(&self, name: &str) -> Result<Descriptor> {
        let entries = self.entries()?;
        let missing = || Error::NoImage {
            name: name.chars().take(200).collect(),
        };
        let reference = name.parse::<Reference>();
        if let Ok(reference) = &reference {
            let full = reference.to_string();
            if let Some(found) = entries.iter().find(|entry| entry.name() == Some(&full)) {
                return Ok(found.clone());
            }
            // By name and digest: whatever tag it has.
            if let Some(digest) = reference.digest() {
                let same = |entry: &&Descriptor| {
                    let named = entry.name().and_then(|name| name.parse::<Reference>().ok());
                    entry.digest == digest && named.is_some_and(|name| name.repository() == reference.repository())
                };
                return entries.iter().find(same).cloned().ok_or_else(missing);
            }
        }
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let is_digits = digits.len() >= MIN_PREFIX && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_digits {
            // If it is no name either, say why.
            reference?;
            return Err(missing());
        }
        let mut found: Vec<_> = entries
            .iter()
            .filter(|entry| entry.digest.hex().starts_with(digits))
            .collect();
        found.sort_by_key(|entry| (entry.digest, entry.name().is_none()));
        found.dedup_by_key(|entry| entry.digest);
        match found[..] {
            [one] => Ok(one.clone()),
            [] => Err(missing()),
            _ => Err(Error::Ambiguous {
                prefix: name.to_owned(),
            }),
        }
    }

    /// Reads the documents of an image, and checks that they fit together.
    ///
    /// # Errors
    ///
    /// If one is missing, damaged, or they do not.
    pub fn load(&self, descriptor: Descriptor) -> Result<Image> {
        let what = format!("manifest {}", descriptor.digest);
        let manifest = Manifest::parse(&what, &self.document(&descriptor)?)?;
        let what = format!("configuration {}", manifest.config.digest);
        let config = Config::parse(&what, &self.document(&manifest.config)?)?;
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            let why = format!("it has {diff_ids} diff_ids, but the manifest has {layers} layers");
            return Err(Error::document(what, why));
        }
        Ok(Image {
            name: descriptor.name().and_then(|name| name.parse().ok()),
            descriptor,
            manifest,
            config,
        })
    }

    /// Gives an image a name, which another loses if it had it. Its blobs must be there.
    ///
    /// # Errors
    ///
    /// If one is missing, or the index cannot be written.
    pub fn add(&self, name: Option<&Reference>, manifest: &Descriptor) -> Result<Image> {
        let mut entry = Descriptor::new(&manifest.media_type, manifest.digest, manifest.size);
        entry.platform.clone_from(&manifest.platform);
        if let Some(name) = name {
            entry.annotations.insert(REF_NAME.to_owned(), name.to_string());
        }
        let image = self.load(entry.clone())?;
        for layer in &image.manifest.layers {
            self.open_blob(layer)?;
        }
        self.change_index(|index| {
            let name = entry.name().map(str::to_owned);
            if name.is_some()
                && let Some(old) = index.manifests.iter_mut().find(|old| old.name() == name.as_deref())
            {
                old.annotations.remove(REF_NAME);
            }
            index.manifests.push(entry);
            tidy(index);
            Ok(())
        })?;
        Ok(image)
    }

    /// Takes a name from an image; given a digest, all its names. Returns what was removed.
    ///
    /// # Errors
    ///
    /// If there is no such image.
    pub fn untag(&self, name: &str) -> Result<Vec<Descriptor>> {
        let target = self.find(name)?;
        let by_name = name
            .parse::<Reference>()
            .is_ok_and(|full| target.name() == Some(&full.to_string()));
        self.change_index(|index| {
            let goes =
                |entry: &Descriptor| entry.digest == target.digest && (!by_name || entry.name() == target.name());
            let (gone, stay) = std::mem::take(&mut index.manifests).into_iter().partition(goes);
            index.manifests = stay;
            Ok(gone)
        })
    }

    /// Forgets the images without a name. Returns their digests.
    pub(super) fn forget_nameless(&self) -> Result<Vec<Digest>> {
        self.change_index(|index| {
            let (stay, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut index.manifests)
                .into_iter()
                .partition(|entry| entry.name().is_some());
            index.manifests = stay;
            Ok(gone.into_iter().map(|entry| entry.digest).collect())
        })
    }
}

/// An image is listed once for each name, and without a name only if it has none.
fn tidy(index: &mut Index) {
    let mut kept: Vec<Descriptor> = Vec::new();
    let mut all = std::mem::take(&mut index.manifests);
    all.sort_by_key(|entry| entry.name().is_none());
    for entry in all {
        let twice = kept
            .iter()
            .any(|other| other.digest == entry.digest && (entry.name().is_none() || entry.name() == other.name()));
        if !twice {
            kept.push(entry);
        }
    }
    index.manifests = kept;
}
