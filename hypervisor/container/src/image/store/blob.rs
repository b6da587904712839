//! Blobs: written once, under the digest of their bytes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::super::error::Doing;
use super::super::spec::Descriptor;
use super::super::{Digest, Error, Hashing, Limits, Result};
use super::{Store, sync_folder};

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

impl Store {
    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// Where a blob is, if it is there.
    pub(super) fn blob_path(&self, digest: Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Opens a blob to be read as it is; whoever reads it checks it.
    ///
    /// # Errors
    ///
    /// If it is missing, has another size or cannot be opened.
    pub fn open_blob(&self, blob: &Descriptor) -> Result<File> {
        let path = self.blob_path(blob.digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NoBlob { digest: blob.digest }),
            opened => opened.at("open", &path)?,
        };
        let found = file.metadata().at("look at", &path)?.len();
        if found != blob.size {
            return Err(Error::Size {
                what: format!("blob {}", blob.digest),
                wanted: blob.size,
                found,
            });
        }
        Ok(file)
    }

    /// A blob that is a document, checked.
    ///
    /// # Errors
    ///
    /// If it is missing, too large for a document, or not what its digest says.
    pub fn document(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        let what = || format!("blob {}", blob.digest);
        if blob.size > Limits::DOCUMENT {
            return Err(Error::document(
                what(),
                format!("{} bytes are too many for a document", blob.size),
            ));
        }
        let file = self.open_blob(blob)?;
        // As long as it is, which is no more than a document may have.
        let mut bytes = Vec::with_capacity(blob.size as usize);
        let mut file = file.take(Limits::DOCUMENT);
        file.read_to_end(&mut bytes).doing(|| format!("read {}", what()))?;
        check(what, blob, Digest::of(&bytes), bytes.len() as u64)?;
        Ok(bytes)
    }

    /// Whether a blob is there and right; reads all of it.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        match self.check_blob(blob) {
            Ok(()) => Ok(true),
            Err(Error::NoBlob { .. } | Error::Size { .. } | Error::Mismatch { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Checks that a blob is there and right; reads all of it.
    pub(in super::super) fn check_blob(&self, blob: &Descriptor) -> Result<()> {
        let what = || format!("blob {}", blob.digest);
        let mut reader = Hashing::new(self.open_blob(blob)?);
        io::copy(&mut reader, &mut io::sink()).doing(|| format!("read {}", what()))?;
        let (_, digest, size) = reader.finish();
        check(what, blob, digest, size)
    }

    /// Stores these bytes as a blob.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub fn put_bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let blob = Descriptor::of(media_type, bytes);
        if !self.has_blob(&blob)? {
            self.put_blob(&blob, &mut &bytes[..])?;
        }
        Ok(blob)
    }

    /// Stores what is read as the blob that is described.
    ///
    /// # Errors
    ///
    /// If it is not what is described, or cannot be written. Then nothing is stored.
    pub fn put_blob(&self, blob: &Descriptor, reader: &mut dyn Read) -> Result<()> {
        let what = || format!("blob {}", blob.digest);
        let mut writer = self.new_blob()?;
        // One byte more shows that there are more.
        writer.fill(&mut reader.take(blob.size.saturating_add(1)))?;
        check(what, blob, writer.hash.digest(), writer.hash.count())?;
        writer.finish(&blob.media_type).map(|_| ())
    }

    /// Begins a blob whose digest is not known yet.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn new_blob(&self) -> Result<BlobWriter<'_>> {
        let path = self.session()?.path("blob");
        let file = File::create_new(&path).at("write", &path)?;
        Ok(BlobWriter {
            store: self,
            path,
            hash: Hashing::new(file),
        })
    }

    /// A file without a name in the way of others, for what is in between; it goes with the session.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn scratch(&self) -> Result<File> {
        let path = self.session()?.path("scratch");
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = file.at("write", &path)?;
        fs::remove_file(&path).at("write", &path)?;
        Ok(file)
    }
}

/// Compares digest and size of what was read with what they should be.
pub(in super::super) fn check(what: impl Fn() -> String, wanted: &Descriptor, digest: Digest, size: u64) -> Result<()> {
    if size != wanted.size {
        return Err(Error::Size {
            what: what(),
            wanted: wanted.size,
            found: size,
        });
    }
    if digest != wanted.digest {
        return Err(Error::Mismatch {
            what: what(),
            wanted: wanted.digest,
            found: digest,
        });
    }
    Ok(())
}

/// A blob that is being written. Dropped before it is finished, it never was.
#[derive(Debug)]
pub struct BlobWriter<'a> {
    store: &'a Store,
    path: PathBuf,
    hash: Hashing<File>,
}

impl BlobWriter<'_> {
    /// Writes all that is read.
    ///
    /// # Errors
    ///
    /// If reading or writing fails.
    pub fn fill(&mut self, reader: &mut dyn Read) -> Result<u64> {
        let mut buffer = vec![0; CHUNK];
        let mut total = 0;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(total),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).doing(|| "read a blob".into()),
            };
            self.write_all(&buffer[..count]).at("write", &self.path)?;
            total += count as u64;
        }
    }

    /// Makes it a blob of the store.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn finish(mut self, media_type: &str) -> Result<Descriptor> {
        let digest = self.hash.digest();
        let target = self.store.blob_path(digest);
        self.hash.inner_mut().sync_all().at("write", &self.path)?;
        fs::rename(&self.path, &target).at("write", &target)?;
        sync_folder(&self.store.blobs())?;
        Ok(Descriptor::new(media_type, digest, self.hash.count()))
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hash.flush()
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        // After `finish` it is not there any more; if it stays, the session's end removes it.
        let _ = fs::remove_file(&self.path);
    }
}
