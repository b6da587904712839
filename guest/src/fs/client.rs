//! The driver: one message there, one back.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use chiton_shared::virtio::p9::{
    Answer, DATA_HEAD, Entry, HEAD, MAX_MESSAGE, MAX_NAMES, MIN_MESSAGE, NO_FID, NO_TAG, Names, REMOVE_DIRECTORY,
    Reader, Request, VERSION, open,
};
use chiton_shared::virtio::ring::Buffer;

use super::path::Path;
use super::{DirEntry, FsError, Metadata, Reason};
use crate::host::Host;
use crate::queue::Queue;

/// The fid of the folder itself.
const ROOT: u32 = 0;
/// The tag of every message: there is one at a time.
const TAG: u16 = 0;
/// Permissions of new files and directories, of which the host takes away what its user does not
/// give.
const FILE_MODE: u32 = 0o666;
const DIRECTORY_MODE: u32 = 0o777;

/// A session with a folder of the host.
#[derive(Debug)]
pub struct Client<'m, H> {
    queue: Queue<'m, H>,
    request: Box<[u8]>,
    answer: Box<[u8]>,
    /// The size of messages settled on.
    message: usize,
    next_fid: u32,
}

impl<'m, H: Host> Client<'m, H> {
    /// Begins a session on the queue of a 9P device that nothing has used.
    ///
    /// # Errors
    ///
    /// [`Reason::Device`], [`Reason::Answer`], or what the host says.
    pub fn new(queue: Queue<'m, H>) -> Result<Self, Reason> {
        let mut client = Self {
            queue,
            request: vec![0; MAX_MESSAGE].into(),
            answer: vec![0; MAX_MESSAGE].into(),
            message: MAX_MESSAGE,
            next_fid: ROOT + 1,
        };
        let version = Request::Version {
            msize: MAX_MESSAGE as u32,
            version: VERSION,
        };
        match client.call_with(NO_TAG, &version)? {
            Answer::Version { msize, version } if version == VERSION => {
                client.message = msize as usize;
            }
            _ => return Err(Reason::Answer),
        }
        if !(MIN_MESSAGE..=MAX_MESSAGE).contains(&client.message) {
            return Err(Reason::Answer);
        }
        let attach = Request::Attach {
            fid: ROOT,
            afid: NO_FID,
            user: b"",
            tree: b"",
            uid: u32::MAX,
        };
        client.call(&attach)?;
        Ok(client)
    }

    fn call(&mut self, request: &Request<'_>) -> Result<Answer<'_>, Reason> {
        self.call_with(TAG, request)
    }

    /// Sends a request and sleeps until its answer is there.
    fn call_with(&mut self, tag: u16, request: &Request<'_>) -> Result<Answer<'_>, Reason> {
        let room = self.message;
        let len = request.encode(tag, &mut self.request[..room]).ok_or(Reason::Path)?;
        let buffers = [
            Buffer::readable(self.request.as_ptr().expose_provenance() as u64, len as u32),
            Buffer::writable(self.answer.as_mut_ptr().expose_provenance() as u64, room as u32),
        ];
        // SAFETY: both buffers are this client's own, and untouched until the chain is back or the
        // queue is given up.
        let taken = unsafe { self.queue.add(&buffers) }.and_then(|_| self.queue.wait());
        let written = taken.inspect_err(|_| self.queue.give_up())?.1 as usize;
        let message = self.answer.get(..written).ok_or(Reason::Answer)?;
        match Answer::decode(message) {
            Some((found, Answer::Error(errno))) if found == tag => Err(errno.into()),
            Some((found, answer)) if found == tag && answer.kind() == request.kind() + 1 => Ok(answer),
            _ => Err(Reason::Answer),
        }
    }

    /// A fid that is not in use.
    fn new_fid(&mut self) -> u32 {
        let fid = self.next_fid;
        self.next_fid = if fid == NO_FID - 1 { ROOT + 1 } else { fid + 1 };
        fid
    }

    /// A fid for these names below the folder.
    fn walk(&mut self, names: &[&str]) -> Result<u32, Reason> {
        let new_fid = self.new_fid();
        let (mut fid, mut rest) = (ROOT, names);
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_NAMES));
            let bytes: Vec<_> = now.iter().map(|name| name.as_bytes()).collect();
            let names = Names::new(&bytes).ok_or(Reason::Path)?;
            let found = match self.call(&Request::Walk { fid, new_fid, names }) {
                Ok(Answer::Walk(qids)) => Ok(qids),
                Ok(_) => Err(Reason::Answer),
                Err(reason) => Err(reason),
            };
            let result = found.and_then(|qids| match qids.as_slice() {
                qids if qids.len() == now.len() => Ok(()),
                // The device told how far it came; the rest of it is asked for by itself.
                qids => match now.get(qids.len()) {
                    Some(_) if now.len() > 1 => Err(Reason::NotFound),
                    _ => Err(Reason::Answer),
                },
            });
            if let Err(reason) = result {
                // With a fid of an earlier part of the path there is something to forget.
                if fid == new_fid {
                    self.clunk(new_fid);
                }
                return Err(reason);
            }
            (fid, rest) = (new_fid, later);
            if rest.is_empty() {
                return Ok(new_fid);
            }
        }
    }

    /// Forgets a fid.
    pub(super) fn clunk(&mut self, fid: u32) {
        // There is nothing to be done about an error, and the fid is gone all the same.
        let _ = self.call(&Request::Clunk { fid });
    }

    /// Does something with a fid for these names, and forgets it.
    fn at<R>(&mut self, names: &[&str], work: impl FnOnce(&mut Self, u32) -> Result<R, Reason>) -> Result<R, Reason> {
        let fid = self.walk(names)?;
        let result = work(self, fid);
        self.clunk(fid);
        result
    }

    /// Opens a file, and returns its fid.
    pub(super) fn open(&mut self, path: &Path<'_>, flags: u32) -> Result<u32, FsError> {
        let fid = self.walk(path.below()).map_err(|reason| path.fails(reason))?;
        self.finish_open(path, fid, &Request::Open { fid, flags })
    }

    /// Creates a file or empties the one that is there, and returns its fid.
    pub(super) fn create(&mut self, path: &Path<'_>) -> Result<u32, FsError> {
        let (directory, name) = path.split().ok_or_else(|| path.fails(Reason::IsDirectory))?;
        let fid = self.walk(directory).map_err(|reason| path.fails(reason))?;
        let create = Request::Create {
            fid,
            name: name.as_bytes(),
            flags: open::READ_WRITE | open::TRUNCATE,
            mode: FILE_MODE,
            gid: 0,
        };
        self.finish_open(path, fid, &create)
    }

    fn finish_open(&mut self, path: &Path<'_>, fid: u32, request: &Request<'_>) -> Result<u32, FsError> {
        match self.call(request).map(|_| ()) {
            Ok(()) => Ok(fid),
            Err(reason) => {
                self.clunk(fid);
                Err(path.fails(reason))
            }
        }
    }

    /// Reads at an offset; 0 at the end.
    pub(super) fn read_at(&mut self, fid: u32, offset: u64, to: &mut [u8]) -> Result<usize, Reason> {
        let count = to.len().min(self.message - DATA_HEAD) as u32;
        match self.call(&Request::Read { fid, offset, count })? {
            Answer::Read(data) => {
                to.get_mut(..data.len()).ok_or(Reason::Answer)?.copy_from_slice(data);
                Ok(data.len())
            }
            _ => Err(Reason::Answer),
        }
    }

    /// Writes at an offset, and returns how much.
    pub(super) fn write_at(&mut self, fid: u32, offset: u64, from: &[u8]) -> Result<usize, Reason> {
        let data = &from[..from.len().min(self.message - DATA_HEAD)];
        match self.call(&Request::Write { fid, offset, data })? {
            Answer::Write(0) if !data.is_empty() => Err(Reason::NothingWritten),
            Answer::Write(count) if count as usize <= data.len() => Ok(count as usize),
            _ => Err(Reason::Answer),
        }
    }

    /// Makes durable what was written.
    pub(super) fn sync(&mut self, fid: u32) -> Result<(), Reason> {
        self.call(&Request::Sync { fid, data_only: 0 }).map(|_| ())
    }

    /// What an open file is.
    pub(super) fn attributes(&mut self, fid: u32) -> Result<Metadata, Reason> {
        match self.call(&Request::Attributes { fid, mask: u64::MAX })? {
            Answer::Attributes(attributes) => Ok(attributes.into()),
            _ => Err(Reason::Answer),
        }
    }

    /// What is at a path.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn metadata(&mut self, path: &Path<'_>) -> Result<Metadata, FsError> {
        let found = self.at(path.below(), |client, fid| client.attributes(fid));
        found.map_err(|reason| path.fails(reason))
    }

    /// What is in a directory.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn read_dir(&mut self, path: &Path<'_>) -> Result<Vec<DirEntry>, FsError> {
        let list = self.at(path.below(), Self::list);
        list.map_err(|reason| path.fails(reason))
    }

    fn list(&mut self, fid: u32) -> Result<Vec<DirEntry>, Reason> {
        self.call(&Request::Open { fid, flags: open::READ })?;
        let mut entries = Vec::new();
        let mut offset = 0;
        loop {
            let count = (self.message - HEAD - 4) as u32;
            let Answer::ReadDirectory(list) = self.call(&Request::ReadDirectory { fid, offset, count })? else {
                return Err(Reason::Answer);
            };
            if list.is_empty() {
                return Ok(entries);
            }
            let mut reader = Reader::new(list);
            let before = entries.len();
            while let Some(entry) = Entry::read(&mut reader) {
                offset = entry.next;
                if !matches!(entry.name, b"." | b"..") {
                    entries.push(DirEntry::from(&entry));
                }
            }
            if entries.len() == before {
                return Err(Reason::Answer);
            }
        }
    }

    /// Makes a directory.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn create_dir(&mut self, path: &Path<'_>) -> Result<(), FsError> {
        let (directory, name) = path.split().ok_or_else(|| path.fails(Reason::Exists))?;
        let made = self.at(directory, |client, fid| {
            let make = Request::MakeDirectory {
                fid,
                name: name.as_bytes(),
                mode: DIRECTORY_MODE,
                gid: 0,
            };
            client.call(&make).map(|_| ())
        });
        made.map_err(|reason| path.fails(reason))
    }

    /// Removes a file, or a directory that is empty.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn remove(&mut self, path: &Path<'_>) -> Result<(), FsError> {
        let (directory, name) = path.split().ok_or_else(|| path.fails(Reason::Denied))?;
        let removed = self.at(directory, |client, fid| {
            let name = name.as_bytes();
            let remove = |flags| Request::Remove { fid, name, flags };
            match client.call(&remove(0)).map(|_| ()) {
                Err(Reason::IsDirectory) => client.call(&remove(REMOVE_DIRECTORY)).map(|_| ()),
                result => result,
            }
        });
        removed.map_err(|reason| path.fails(reason))
    }

    /// Moves what is at one path to another of the same folder.
    ///
    /// # Errors
    ///
    /// [`FsError`].
    pub fn rename(&mut self, from: &Path<'_>, to: &Path<'_>) -> Result<(), FsError> {
        let (directory, name) = from.split().ok_or_else(|| from.fails(Reason::Denied))?;
        let (new_directory, new_name) = to.split().ok_or_else(|| to.fails(Reason::Exists))?;
        let source = self.walk(directory).map_err(|reason| from.fails(reason))?;
        let result = match self.walk(new_directory) {
            Ok(target) => {
                let rename = Request::Rename {
                    fid: source,
                    name: name.as_bytes(),
                    new_fid: target,
                    new_name: new_name.as_bytes(),
                };
                let result = self.call(&rename).map(|_| ());
                self.clunk(target);
                result.map_err(|reason| from.fails(reason))
            }
            Err(reason) => Err(to.fails(reason)),
        };
        self.clunk(source);
        result
    }
}
