//! Open files.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use chiton_shared::virtio::p9::open;

use super::folders::{find, with_folder};
use super::path::Path;
use super::{Client, FsError, Metadata, Reason};
use crate::host::Doorbells;

/// A file that is open, with a position where the next read or write begins. It is closed when it
/// is dropped.
#[derive(Debug)]
pub struct File {
    folder: usize,
    fid: u32,
    path: String,
    position: u64,
}

impl File {
    /// Opens a file to read it.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn open(path: &str) -> Result<Self, FsError> {
        Self::with(path, |client, path| {
            let fid = client.open(path, open::READ)?;
            // A directory can be opened too, for its list.
            match client.attributes(fid) {
                Ok(metadata) if metadata.kind == super::Kind::Directory => {
                    client.clunk(fid);
                    Err(path.fails(Reason::IsDirectory))
                }
                _ => Ok(fid),
            }
        })
    }

    /// Opens a file to read and write it.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn open_to_write(path: &str) -> Result<Self, FsError> {
        Self::with(path, |client, path| client.open(path, open::READ_WRITE))
    }

    /// Creates a file, or empties the one that is there, to read and write it.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn create(path: &str) -> Result<Self, FsError> {
        Self::with(path, |client, path| client.create(path))
    }

    fn with(
        text: &str,
        work: impl FnOnce(&mut Client<'static, Doorbells>, &Path<'_>) -> Result<u32, FsError>,
    ) -> Result<Self, FsError> {
        let path = Path::new(text)?;
        let folder = find(&path)?;
        let fid = with_folder(folder, text, |client| work(client, &path))?;
        Ok(Self {
            folder,
            fid,
            path: text.to_owned(),
            position: 0,
        })
    }

    fn call<R>(
        &self,
        work: impl FnOnce(&mut Client<'static, Doorbells>, u32) -> Result<R, Reason>,
    ) -> Result<R, FsError> {
        with_folder(self.folder, &self.path, |client| {
            work(client, self.fid).map_err(|reason| FsError::new(&self.path, reason))
        })
    }

    /// Reads from the position on, at most 64 KiB, and returns how much; 0 at the end.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn read(&mut self, to: &mut [u8]) -> Result<usize, FsError> {
        let len = self.call(|client, fid| client.read_at(fid, self.position, to))?;
        self.position += len as u64;
        Ok(len)
    }

    /// Reads from the position to the end, behind what `to` holds.
    ///
    /// # Errors
    ///
    /// [`FsError`]; `to` then has what was read before.
    pub fn read_to_end(&mut self, to: &mut Vec<u8>) -> Result<(), FsError> {
        const PIECE: usize = 32 << 10;
        loop {
            let before = to.len();
            to.resize(before + PIECE, 0);
            let read = self.read(&mut to[before..]);
            to.truncate(before + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Ok(());
            }
        }
    }

    /// Writes at the position, at most 64 KiB, and returns how much.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn write(&mut self, from: &[u8]) -> Result<usize, FsError> {
        let len = self.call(|client, fid| client.write_at(fid, self.position, from))?;
        self.position += len as u64;
        Ok(len)
    }

    /// Writes all of it at the position.
    ///
    /// # Errors
    ///
    /// [`FsError`]; a part may have been written.
    pub fn write_all(&mut self, from: &[u8]) -> Result<(), FsError> {
        let mut rest = from;
        while !rest.is_empty() {
            let done = self.write(rest)?;
            rest = &rest[done..];
        }
        Ok(())
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn flush(&mut self) -> Result<(), FsError> {
        self.call(Client::sync)
    }

    /// What the file is.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn metadata(&self) -> Result<Metadata, FsError> {
        self.call(Client::attributes)
    }

    /// Its size in bytes.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn len(&self) -> Result<u64, FsError> {
        Ok(self.metadata()?.len)
    }

    /// Whether it has no bytes.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn is_empty(&self) -> Result<bool, FsError> {
        Ok(self.len()? == 0)
    }

    /// Where the next read or write begins, in bytes.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Has the next read or write begin there, which may be behind the end.
    pub const fn seek(&mut self, position: u64) {
        self.position = position;
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = with_folder(self.folder, &self.path, |client| {
            client.clunk(self.fid);
            Ok(())
        });
    }
}
