//! The upper folder of an overlay becomes a new layer on top of an image.

use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::error::Doing;
use super::layer::{self, Owners};
use super::spec::{self, Config, History, Manifest};
use super::store::{Image, Store};
use super::{Digest, Error, Reference, Result};

/// What a commit says besides the layer.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// The new image's name.
    pub name: Option<Reference>,
    /// By what command it came to be.
    pub created_by: String,
    /// When, RFC 3339; without it the same content has the same digest.
    pub created: Option<String>,
    /// What is to be said of it.
    pub comment: Option<String>,
}

/// Makes an image of `base` and what `upper` holds. `owners` says by how much the ids in `upper` are
/// shifted. Everything else of the base's documents stays as it is, known here or not.
///
/// # Errors
///
/// If `upper` cannot be packed, see [`layer::pack`], or the image cannot be stored.
pub fn commit(store: &Store, base: &Image, upper: &Path, owners: Owners, commit: &Commit) -> Result<Image> {
    let mut encoder = GzEncoder::new(store.new_blob()?, Compression::default());
    let packed = layer::pack(upper, &mut encoder, owners)?;
    let blob = encoder
        .finish()
        .doing(|| "write the layer".into())?
        .finish(spec::LAYER_GZIP)?;

    let history = History {
        created: commit.created.clone(),
        created_by: Some(commit.created_by.clone()),
        comment: commit.comment.clone(),
        empty_layer: false,
    };
    let config = extend_config(&store.document(&base.manifest.config)?, packed.diff_id, &history)?;
    // It must still be one that we read.
    Config::parse("configuration", &config)?;
    let mut layers = base.manifest.layers.clone();
    layers.push(blob);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(spec::MANIFEST.to_owned()),
        config: store.put_bytes(spec::CONFIG, &config)?,
        layers,
        annotations: base.manifest.annotations.clone(),
    };
    let bytes = spec::to_json("manifest", &manifest)?;
    Manifest::parse("manifest", &bytes)?;
    let manifest = store.put_bytes(spec::MANIFEST, &bytes)?;
    store.add(commit.name.as_ref(), &manifest)
}

/// Adds a layer to a configuration, fields that are not known here included.
fn extend_config(bytes: &[u8], diff_id: Digest, history: &History) -> Result<Vec<u8>> {
    use serde_json::Value;
    let mut config: Value = spec::parse("configuration", bytes)?;
    let wrong = || Error::document("configuration", "rootfs.diff_ids or history is no list");
    let to_value = |error| Error::document("configuration", error);
    let diff_id = serde_json::to_value(diff_id).map_err(to_value)?;
    let history_entry = serde_json::to_value(history).map_err(to_value)?;
    let ids = config.pointer_mut("/rootfs/diff_ids").ok_or_else(wrong)?;
    if ids.is_null() {
        *ids = Value::Array(Vec::new());
    }
    ids.as_array_mut().ok_or_else(wrong)?.push(diff_id);
    let all = config.as_object_mut().ok_or_else(wrong)?;
    let list = all.entry("history").or_insert(Value::Null);
    if list.is_null() {
        *list = Value::Array(Vec::new());
    }
    list.as_array_mut().ok_or_else(wrong)?.push(history_entry);
    if let Some(created) = &history.created {
        all.insert("created".to_owned(), Value::String(created.clone()));
    }
    spec::to_json("configuration", &config)
}
