//! Out of the store: an OCI layout, in a folder or an archive, or what `docker load` reads.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use tar::{EntryType, Header};

use super::super::error::Doing;
use super::super::layer::compression::Decompress;
use super::super::progress::{Progress, Watched};
use super::super::spec::{self, Descriptor, Index, REF_NAME};
use super::super::store::{Image, LAYOUT, Store};
use super::super::{Digest, Error, Hashing, Result};
use super::{Saved, blob_name};

/// What an image is exported as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A folder with an OCI layout.
    OciFolder,
    /// An archive with an OCI layout.
    OciArchive,
    /// An archive as `docker save` writes it and `docker load` reads it.
    DockerArchive,
}

/// Exports an image to `path`, which must not be there yet; `-` is standard output.
///
/// # Errors
///
/// If a part is missing or damaged, or cannot be written. Then there is nothing at `path`.
pub fn export(store: &Store, image: &Image, format: Format, path: &Path, progress: &dyn Progress) -> Result<()> {
    let exporter = Exporter { store, image, progress };
    if path == Path::new("-") {
        if format == Format::OciFolder {
            return Err(Error::document(
                "standard output",
                "a folder cannot be written there: export an archive",
            ));
        }
        return exporter.archive(format, &mut io::stdout().lock());
    }
    if path.symlink_metadata().is_ok() {
        return Err(Error::document(path.display(), "it exists: give a name that is free"));
    }
    // Beside its place, so that it can be renamed there when it is whole.
    let mut name = path
        .file_name()
        .ok_or_else(|| Error::document(path.display(), "it is no name"))?
        .to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = match format {
        Format::OciFolder => exporter.folder(&part),
        _ => File::create_new(&part).at("write", &part).and_then(|mut file| {
            exporter.archive(format, &mut io::BufWriter::new(&mut file))?;
            file.sync_all().at("write", &part)
        }),
    };
    let placed = written.and_then(|()| fs::rename(&part, path).at("write", path));
    if placed.is_err() {
        // The first error is the one to tell.
        let _ = if format == Format::OciFolder {
            fs::remove_dir_all(&part)
        } else {
            fs::remove_file(&part)
        };
    }
    placed
}

struct Exporter<'a> {
    store: &'a Store,
    image: &'a Image,
    progress: &'a dyn Progress,
}

impl Exporter<'_> {
    fn blobs(&self) -> Vec<&Descriptor> {
        let mut blobs = vec![&self.image.descriptor, &self.image.manifest.config];
        for layer in &self.image.manifest.layers {
            if !blobs.iter().any(|blob| blob.digest == layer.digest) {
                blobs.push(layer);
            }
        }
        blobs
    }

    fn index(&self) -> Result<Vec<u8>> {
        let mut entry = self.image.descriptor.clone();
        entry.annotations.clear();
        if let Some(name) = &self.image.name {
            entry.annotations.insert(REF_NAME.to_owned(), name.to_string());
        }
        let index = Index {
            manifests: vec![entry],
            ..Index::default()
        };
        spec::to_json("index.json", &index)
    }

    fn folder(&self, top: &Path) -> Result<()> {
        let blobs = top.join("blobs/sha256");
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&blobs)
            .at("make folder", &blobs)?;
        for (name, bytes) in [("oci-layout", LAYOUT.to_vec()), ("index.json", self.index()?)] {
            fs::write(top.join(name), bytes).at("write", &top.join(name))?;
        }
        for blob in self.blobs() {
            let path = top.join(blob_name(blob.digest));
            let mut file = File::create_new(&path).at("write", &path)?;
            self.copy(blob, &mut file)?;
            file.sync_all().at("write", &path)?;
        }
        Ok(())
    }

    /// Copies a blob and checks it meanwhile.
    fn copy(&self, blob: &Descriptor, to: &mut dyn Write) -> Result<()> {
        let reader = Watched::new(
            self.store.open_blob(blob)?,
            self.progress,
            &blob.digest.short(),
            blob.size,
        );
        let mut reader = Hashing::new(reader);
        io::copy(&mut reader, to).doing(|| format!("copy blob {}", blob.digest))?;
        let (_, digest, size) = reader.finish();
        super::super::store::check(|| format!("blob {}", blob.digest), blob, digest, size)
    }

    fn archive(&self, format: Format, to: &mut dyn Write) -> Result<()> {
        if format == Format::DockerArchive {
            self.docker(to)?;
        } else {
            member(to, "oci-layout", LAYOUT)?;
            member(to, "index.json", &self.index()?)?;
            for blob in self.blobs() {
                header(to, &blob_name(blob.digest), blob.size)?;
                self.copy(blob, to)?;
                pad(to, blob.size)?;
            }
        }
        to.write_all(&[0; 1024])
            .and_then(|()| to.flush())
            .doing(|| "write the archive".into())
    }

    fn docker(&self, to: &mut dyn Write) -> Result<()> {
        let config = &self.image.manifest.config;
        let mut saved = Saved {
            config: format!("{}.json", config.digest.hex()),
            repo_tags: self.image.name.as_ref().map(|name| vec![name.familiar()]),
            layers: Some(Vec::new()),
        };
        member(to, &saved.config, &self.store.document(config)?)?;
        let mut names = Vec::new();
        for (layer, diff_id) in self
            .image
            .manifest
            .layers
            .iter()
            .zip(&self.image.config.rootfs.diff_ids)
        {
            let name = format!("{}/layer.tar", diff_id.hex());
            if !names.contains(&name) {
                let (mut file, size) = self.unpacked(layer, *diff_id)?;
                header(to, &name, size)?;
                io::copy(&mut file, to).doing(|| "write the archive".into())?;
                pad(to, size)?;
            }
            names.push(name);
        }
        saved.layers = Some(names);
        member(to, "manifest.json", &spec::to_json("manifest.json", &[saved])?)
    }

    /// A layer's archive, not compressed, in a file that goes by itself: its size stands before it.
    fn unpacked(&self, layer: &Descriptor, diff_id: Digest) -> Result<(File, u64)> {
        let doing = || format!("unpack layer {}", layer.digest);
        let reader = Watched::new(
            self.store.open_blob(layer)?,
            self.progress,
            &layer.digest.short(),
            layer.size,
        );
        let limit = self.store.limits().bytes;
        let mut reader = Hashing::new(Decompress::new(reader).doing(doing)?.take(limit));
        let mut file = self.store.scratch()?;
        io::copy(&mut reader, &mut file).doing(doing)?;
        file.rewind().doing(doing)?;
        let (_, found, size) = reader.finish();
        if found != diff_id {
            return Err(Error::Mismatch {
                what: format!("layer {}, unpacked,", layer.digest),
                wanted: diff_id,
                found,
            });
        }
        Ok((file, size))
    }
}

fn member(to: &mut dyn Write, name: &str, bytes: &[u8]) -> Result<()> {
    header(to, name, bytes.len() as u64)?;
    to.write_all(bytes).doing(|| "write the archive".into())?;
    pad(to, bytes.len() as u64)
}

/// Names here are short, so a plain header does.
fn header(to: &mut dyn Write, name: &str, size: u64) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_path(name).doing(|| format!("write `{name}`"))?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    to.write_all(header.as_bytes()).doing(|| "write the archive".into())
}

fn pad(to: &mut dyn Write, size: u64) -> Result<()> {
    let padding = size.next_multiple_of(512) - size;
    to.write_all(&[0; 512][..padding as usize])
        .doing(|| "write the archive".into())
}
