//! OCI images: a content-addressed store, and the ways into it and out of it.
//!
//! ```text
//!   build ──┐                                   ┌──▶ layers/<diff-id>/fs   for overlay mounts
//!   import ─┼──▶ blobs/sha256/…  + index.json ──┼──▶ export
//!   pull ───┘        the store                  └──▶ push
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`mod@reference`] | names: `hello`, `quay.io/a/b:1`, `hello@sha256:…` |
//! | [`spec`] | the documents of the OCI image specification 1.1 that are read and written here |
//! | [`store`] | blobs, the index, unpacked layers; what dead writers left is swept |
//! | [`layer`] | an archive to a folder for overlayfs, and an overlay's upper folder to an archive |
//! | [`archive`] | OCI layouts and what `docker save` writes, in both directions |
//! | [`registry`] | registries, by the OCI distribution specification 1.1 |
//! | [`build`] | a guest and files to an image |
//! | [`commit`] | an upper folder to an image |
//! | [`diff`] | what differs between two images |
//!
//! Everything in an image is taken to be hostile: digests are checked whenever a blob is used, and
//! each size, count and path has a limit, see [`Limits`].

pub mod archive;
pub mod build;
pub mod commit;
pub mod diff;
mod digest;
mod error;
pub mod layer;
mod limits;
pub mod progress;
pub mod reference;
pub mod registry;
pub mod spec;
pub mod store;

pub use digest::{Digest, Hashing};
pub use error::{Error, Result};
pub use limits::Limits;
pub use progress::Progress;
pub use reference::Reference;
pub use store::{Image, Store};
