//! Images in files and folders: OCI layouts (image-layout.md) and what `docker save` writes.
//!
//! | file | what |
//! |---|---|
//! | `source` | files by name, in a folder or an archive |
//! | `import` | into the store |
//! | `export` | out of it |

mod export;
mod import;
mod source;

use serde::{Deserialize, Serialize};

use super::Digest;

pub use export::{Format, export};
pub use import::import;

/// `manifest.json` of what `docker save` writes: one for each image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    /// The configuration's file.
    config: String,
    /// The image's names.
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    /// The layers' files, the lowest first.
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Where a layout keeps a blob.
fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
