//! From a layout or what `docker save` wrote, into the store.

use std::io::Read;
use std::path::Path;

use super::super::error::Doing;
use super::super::layer::compression::Compression;
use super::super::progress::{Progress, Watched};
use super::super::spec::{self, Config, Descriptor, Index, Manifest};
use super::super::store::{Image, Store};
use super::super::{Digest, Error, Limits, Reference, Result};
use super::source::Source;
use super::{Saved, blob_name};

/// How many indices may point at one another.
const NESTED: usize = 4;

/// Imports what `path` holds: an OCI layout, in a folder or an archive, or what `docker save` writes;
/// archives may be compressed, and `-` is standard input. Images get the names they bring, or `name`.
///
/// # Errors
///
/// If it is none of these, holds no image for this machine, a digest is wrong, or it cannot be
/// stored. Images that were named before the error stay.
pub fn import(store: &Store, path: &Path, name: Option<&Reference>, progress: &dyn Progress) -> Result<Vec<Image>> {
    let source = Source::open(store, path)?;
    let importer = Importer {
        store,
        source,
        progress,
    };
    if let Some(bytes) = importer.source.document("index.json")? {
        return importer.layout(&bytes, name);
    }
    if let Some(bytes) = importer.source.document("manifest.json")? {
        return importer.saved(&bytes, name);
    }
    let why = "it has neither index.json, as an OCI layout, nor manifest.json, as what `docker save` writes";
    Err(Error::document(&importer.source.label, why))
}

struct Importer<'a> {
    store: &'a Store,
    source: Source,
    progress: &'a dyn Progress,
}

impl Importer<'_> {
    fn layout(&self, bytes: &[u8], name: Option<&Reference>) -> Result<Vec<Image>> {
        let index = Index::parse(&format!("{}/index.json", self.source.label), bytes)?;
        // Several without names are one image for several machines.
        let nameless = index.manifests.iter().all(|entry| own_names(entry).is_none());
        let entries: Vec<_> = match index.choose() {
            Some(one) if nameless => vec![one],
            None if nameless => return Err(Error::document(&self.source.label, "it holds no image for linux/amd64")),
            _ => index.manifests.iter().collect(),
        };
        if entries.len() > 1 && name.is_some() {
            return Err(Error::document(
                &self.source.label,
                "it holds several images, which cannot all have one name",
            ));
        }
        let mut images = Vec::new();
        for entry in entries {
            let own = own_names(entry).and_then(|text| own_name(text, &self.source.label));
            let manifest = self.manifest(entry, 0)?;
            images.push(self.store.add(name.or(own.as_ref()), &manifest)?);
        }
        Ok(images)
    }

    /// Brings a manifest and what it names; of an index the manifest for this machine.
    fn manifest(&self, entry: &Descriptor, depth: usize) -> Result<Descriptor> {
        let bytes = self.checked(entry)?;
        let what = entry.digest.to_string();
        if spec::is_index(&entry.media_type) {
            let index = Index::parse(&what, &bytes)?;
            if depth == NESTED {
                return Err(Error::document(what, "indices point at one another too often"));
            }
            let chosen = index
                .choose()
                .ok_or_else(|| Error::document(what, "it has no image for linux/amd64"))?;
            return self.manifest(chosen, depth + 1);
        }
        let manifest = Manifest::parse(&what, &bytes)?;
        self.store.limits().admit(&what, &manifest)?;
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            self.blob(blob)?;
        }
        let media_type = manifest.media_type.as_deref().unwrap_or(spec::MANIFEST);
        self.store.put_bytes(media_type, &bytes)
    }

    /// A document of a layout, its digest checked.
    fn checked(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self.source.document(&blob_name(blob.digest))?;
        let bytes = bytes.ok_or_else(|| self.missing(&blob_name(blob.digest)))?;
        super::super::store::check(
            || format!("{} of {}", blob_name(blob.digest), self.source.label),
            blob,
            Digest::of(&bytes),
            bytes.len() as u64,
        )?;
        Ok(bytes)
    }

    fn blob(&self, blob: &Descriptor) -> Result<()> {
        if self.store.has_blob(blob)? {
            return Ok(());
        }
        let name = blob_name(blob.digest);
        let (file, _) = self.source.file(&name)?.ok_or_else(|| self.missing(&name))?;
        let mut file = Watched::new(file, self.progress, &blob.digest.short(), blob.size);
        self.store.put_blob(blob, &mut file)
    }

    fn missing(&self, name: &str) -> Error {
        Error::document(&self.source.label, format!("{name} is missing"))
    }

    fn saved(&self, bytes: &[u8], name: Option<&Reference>) -> Result<Vec<Image>> {
        let what = format!("{}/manifest.json", self.source.label);
        let all: Vec<Saved> = spec::parse(&what, bytes)?;
        if all.is_empty() {
            return Err(Error::document(&self.source.label, "it holds no image"));
        }
        if all.len() > 1 && name.is_some() {
            return Err(Error::document(
                &self.source.label,
                "it holds several images, which cannot all have one name",
            ));
        }
        let mut images = Vec::new();
        for saved in &all {
            let manifest = self.saved_manifest(saved)?;
            let mut names: Vec<_> = saved
                .repo_tags
                .iter()
                .flatten()
                .filter_map(|tag| tag.parse().ok())
                .collect();
            if let Some(name) = name {
                names = vec![name.clone()];
            }
            for name in &names {
                images.push(self.store.add(Some(name), &manifest)?);
            }
            if names.is_empty() {
                images.push(self.store.add(None, &manifest)?);
            }
        }
        Ok(images)
    }

    /// Brings the parts of a saved image, and writes the manifest that it does not have.
    fn saved_manifest(&self, saved: &Saved) -> Result<Descriptor> {
        let bytes = self
            .source
            .document(&saved.config)?
            .ok_or_else(|| self.missing(&saved.config))?;
        let config = Config::parse(&format!("{}/{}", self.source.label, saved.config), &bytes)?;
        let names = saved.layers.as_deref().unwrap_or_default();
        if names.len() != config.rootfs.diff_ids.len() || names.len() > Limits::LAYERS {
            let why = format!("{} layers for {} diff_ids", names.len(), config.rootfs.diff_ids.len());
            return Err(Error::document(&self.source.label, why));
        }
        let mut layers = Vec::new();
        for (name, diff_id) in names.iter().zip(&config.rootfs.diff_ids) {
            layers.push(self.saved_layer(name, *diff_id)?);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(spec::MANIFEST.to_owned()),
            config: self.store.put_bytes(spec::CONFIG, &bytes)?,
            layers,
            annotations: spec::Annotations::new(),
        };
        self.store
            .put_bytes(spec::MANIFEST, &spec::to_json("manifest", &manifest)?)
    }

    fn saved_layer(&self, name: &str, diff_id: Digest) -> Result<Descriptor> {
        let open = || self.source.file(name)?.ok_or_else(|| self.missing(name));
        let (mut file, size) = open()?;
        let mut first = [0; 4];
        let count = file
            .read(&mut first)
            .doing(|| format!("read {name} of {}", self.source.label))?;
        let compression = Compression::of(&first[..count]);
        let media_type = match compression {
            Compression::None => spec::LAYER,
            Compression::Gzip => spec::LAYER_GZIP,
            Compression::Zstd => spec::LAYER_ZSTD,
        };
        drop(file);
        let (file, _) = open()?;
        let mut file = Watched::new(file, self.progress, &diff_id.short(), size);
        if compression == Compression::None {
            // The digest is known.
            let blob = Descriptor::new(media_type, diff_id, size);
            if !self.store.has_blob(&blob)? {
                self.store.put_blob(&blob, &mut file)?;
            }
            return Ok(blob);
        }
        let mut blob = self.store.new_blob()?;
        blob.fill(&mut file)?;
        blob.finish(media_type)
    }
}

/// What a layout calls an image; containerd writes the whole name elsewhere.
fn own_names(entry: &Descriptor) -> Option<&str> {
    let whole = entry.annotations.get("io.containerd.image.name");
    whole.map(String::as_str).or_else(|| entry.name())
}

/// The name that a layout gives an image: a whole one, or a tag alone, as the specification has it,
/// of an image that is named like the file.
fn own_name(text: &str, label: &str) -> Option<Reference> {
    if text.contains(['/', ':']) {
        return text.parse().ok();
    }
    let stem = Path::new(label).file_name()?.to_str()?;
    let stem = stem.split('.').next()?.to_lowercase();
    format!("{stem}:{text}").parse().or_else(|_| text.parse()).ok()
}
