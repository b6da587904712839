//! How much an image may ask for.

/// What a layer may hold at most. Beyond it the layer is refused, and the error names the layer, the
/// entry and the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 32 << 30,
            entries: 2_000_000,
            depth: 128,
            ratio: 500,
            ratio_from: 256 << 20,
        }
    }
}
