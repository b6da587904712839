//! Is the store what it should be?

use std::collections::{BTreeMap, BTreeSet};

use super::super::spec::Descriptor;
use super::super::{Digest, Result, layer};
use super::Store;

/// How the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries of the index.
    pub images: usize,
    /// Blobs that an image needs.
    pub blobs: usize,
    /// Unpacked layers.
    pub layers: usize,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

impl Store {
    /// Reads everything: each blob that an image needs must be there with its digest, what comes out of each layer must
    /// have its diff-id, each unpacked layer must hold what it held when it was unpacked, and nothing may be in `tmp` that is
    /// nobody's.
    ///
    /// # Errors
    ///
    /// If the store itself cannot be read; what is wrong within it is in the report.
    pub fn verify(&self) -> Result<Report> {
        let mut report = Report::default();
        let mut blobs: BTreeMap<_, Descriptor> = BTreeMap::new();
        // What comes out of each layer; images may not agree on it.
        let mut layers: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for entry in self.entries()? {
            report.images += 1;
            let name = entry.name().unwrap_or("an image without a name").to_owned();
            match self.load(entry.clone()) {
                Ok(image) => {
                    for (layer, diff_id) in image.manifest.layers.iter().zip(image.config.rootfs.diff_ids) {
                        layers.entry(layer.digest).or_default().insert(diff_id);
                    }
                    let parts = [entry, image.manifest.config].into_iter().chain(image.manifest.layers);
                    blobs.extend(parts.map(|blob| (blob.digest, blob)));
                }
                Err(error) => report.problems.push(format!("{name}: {error}")),
            }
        }
        report.blobs = blobs.len();
        for (digest, blob) in &blobs {
            let checks: Vec<Result<()>> = match layers.get(digest) {
                None => vec![self.check_blob(blob)],
                Some(diff_ids) => {
                    let check =
                        |diff_id: &Digest| layer::verify(&mut self.open_blob(blob)?, blob, *diff_id, self.limits);
                    diff_ids.iter().map(check).collect()
                }
            };
            let wrong = checks.into_iter().filter_map(Result::err);
            report.problems.extend(wrong.map(|error| error.to_string()));
        }
        // What no image needs is no fault if it is whole: an image may be about to need it.
        for (path, digest) in self.listed("blobs/sha256")? {
            let whole = digest.is_some_and(|digest| {
                let size = std::fs::metadata(&path).map_or(0, |found| found.len());
                blobs.contains_key(&digest) || self.check_blob(&Descriptor::new("", digest, size)).is_ok()
            });
            if !whole {
                report.problems.push(format!("{} is no whole blob", path.display()));
            }
        }
        for (path, digest) in self.listed("layers")? {
            let Some(digest) = digest else {
                report.problems.push(format!("{} is no layer", path.display()));
                continue;
            };
            report.layers += 1;
            if let Err(error) = self.check_layer(digest) {
                report.problems.push(error.to_string());
            }
        }
        Ok(report)
    }
}
