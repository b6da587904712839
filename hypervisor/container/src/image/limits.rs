//! How much an image may ask for.

use super::spec::Manifest;
use super::{Error, Result};

/// What an image and a layer of it may hold at most. Beyond it the image is refused, and the error names the layer, the
/// entry and the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers of an image together, as they come.
    pub packed: u64,
    /// Bytes of all files of a layer together, holes included.
    pub bytes: u64,
    /// Entries of a layer.
    pub entries: u64,
    /// Folders above an entry.
    pub depth: u64,
    /// Unpacked bytes for each packed one.
    pub ratio: u64,
    /// From how many unpacked bytes on the ratio counts: small files of zeros are no attack.
    pub ratio_from: u64,
}

impl Limits {
    /// Bytes of a manifest, an index or a configuration: 4 MiB, as the distribution specification
    /// wants registries to take (1.1, Pushing Manifests).
    pub const DOCUMENT: u64 = 4 << 20;
    /// Layers of an image: overlayfs takes 500.
    pub const LAYERS: usize = 500;
    /// Bytes of the extended header of an entry: long names and extended attributes.
    pub const HEADER: u64 = 1 << 20;
    /// Bytes of a path, PATH_MAX.
    pub const PATH: usize = 4096;
    /// Bytes of the history of zstd: `zstd --long`, 128 MiB.
    pub const WINDOW: u64 = 128 << 20;

    /// Refuses an image by its manifest, before anything else of it is fetched or copied.
    pub(super) fn admit(&self, what: &str, manifest: &Manifest) -> Result<()> {
        let config = manifest.config.size;
        if config > Self::DOCUMENT {
            let why = format!("its configuration has {config} bytes, more than a document may have, 4 MiB");
            return Err(Error::document(what, why));
        }
        let layers = manifest.layers.iter();
        let layers = layers.fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        if layers > self.packed {
            let why = format!(
                "its layers have {layers} bytes, more than an image may have, {}",
                self.packed
            );
            return Err(Error::document(what, why));
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packed: 32 << 30,
            bytes: 32 << 30,
            entries: 2_000_000,
            depth: 128,
            ratio: 500,
            ratio_from: 256 << 20,
        }
    }
}
