//! 9P transport: a folder of the host by the protocol 9P2000.L.
//!
//! ```text
//!  pop ─▶ copy the request ─▶ Request::decode ─▶ Session ─▶ Tree ─▶ answer ─▶ push
//! ```
//!
//! A request is copied before it is looked at, and every answer fits the room the driver gave, or
//! becomes an error that does.

mod fids;
mod session;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec;

use chiton_shared::memory::GuestMemory;
use chiton_shared::virtio::id;
use chiton_shared::virtio::p9::{
    Answer, Attributes, Entry, Errno, F_MOUNT_TAG, HEAD, MAX_MESSAGE, MAX_TAG, Request, Statistics, config,
};
use chiton_shared::virtio::ring::{Buffer, Chain};

use super::buffers::{Cursor, Windows};
use super::{Device, DeviceError, Progress, Ring};
use session::Session;

/// Size of the queue.
const QUEUE_SIZE: u16 = 32;

/// How many messages one call answers at most: with one of 64 KiB each way, 1 MiB.
const MESSAGES_PER_CALL: usize = 8;

/// Size of an error, for which there must be room.
const ERROR: u64 = HEAD as u64 + 4;

/// A folder, whatever keeps it. Names are one component each, checked by
/// [`check_name`](chiton_shared::virtio::p9::check_name); nothing leads out of the folder, and
/// symbolic links are not followed.
#[allow(
    clippy::missing_errors_doc,
    reason = "each fails with the number the driver is to see"
)]
pub trait Tree: Send {
    /// A place: a file, a directory, or anything else that has a name.
    type Node: Send;
    /// A file or directory that is open.
    type Open: Send;

    /// The folder itself.
    fn root(&mut self) -> Result<Self::Node, Errno>;

    /// The same place once more.
    fn again(&mut self, node: &Self::Node) -> Result<Self::Node, Errno>;

    /// What has this name in a directory.
    fn child(&mut self, directory: &Self::Node, name: &[u8]) -> Result<Self::Node, Errno>;

    /// What a place is.
    fn attributes(&mut self, node: &Self::Node) -> Result<Attributes, Errno>;

    /// Opens a file or directory, and nothing else.
    fn open(&mut self, node: &Self::Node, access: Access) -> Result<Self::Open, Errno>;

    /// Creates a file, or opens the one that is there unless `exclusive`. Of the mode, permissions
    /// count.
    fn create(
        &mut self,
        directory: &Self::Node,
        name: &[u8],
        access: Access,
        exclusive: bool,
        mode: u32,
    ) -> Result<(Self::Node, Self::Open), Errno>;

    /// Reads at an offset, and returns how much; 0 at the end.
    fn read_at(&mut self, open: &Self::Open, offset: u64, to: &mut [u8]) -> Result<usize, Errno>;

    /// Writes at an offset, and returns how much.
    fn write_at(&mut self, open: &Self::Open, offset: u64, from: &[u8]) -> Result<usize, Errno>;

    /// Passes on what is in a directory, from an offset on (0, or [`Entry::next`]), until `take`
    /// wants no more; the entry it refused is not lost.
    fn list(&mut self, open: &Self::Open, offset: u64, take: &mut dyn FnMut(&Entry<'_>) -> bool) -> Result<(), Errno>;

    /// Makes a directory.
    fn make_directory(&mut self, directory: &Self::Node, name: &[u8], mode: u32) -> Result<Self::Node, Errno>;

    /// Removes a file, or a directory that is empty.
    fn remove(&mut self, directory: &Self::Node, name: &[u8], is_directory: bool) -> Result<(), Errno>;

    /// Moves, over what is there.
    fn rename(&mut self, from: &Self::Node, name: &[u8], to: &Self::Node, new_name: &[u8]) -> Result<(), Errno>;

    /// Gives a file another size.
    fn resize(&mut self, node: &Self::Node, size: u64) -> Result<(), Errno>;

    /// Makes durable what was written.
    fn sync(&mut self, open: &Self::Open) -> Result<(), Errno>;

    /// Numbers of the file system.
    fn statistics(&mut self, node: &Self::Node) -> Result<Statistics, Errno>;
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// To read.
    pub read: bool,
    /// To write.
    pub write: bool,
    /// It becomes empty.
    pub truncate: bool,
}

/// The 9P device.
pub struct P9<T: Tree> {
    session: Session<T>,
    chain: Box<Chain>,
    config: [u8; 2 + MAX_TAG],
    request: Box<[u8]>,
    answer: Box<[u8]>,
}

impl<T: Tree> P9<T> {
    /// A device for this folder, under this name, of which [`MAX_TAG`] bytes count.
    #[must_use]
    pub fn new(tree: T, tag: &[u8]) -> Self {
        let buffer = || vec![0; MAX_MESSAGE].into_boxed_slice();
        Self {
            session: Session::new(tree),
            chain: Box::default(),
            config: config(tag).0,
            request: buffer(),
            answer: buffer(),
        }
    }
}

/// Copies as many bytes as there are in `buffers`, or `to` has room for.
fn copy_in<'m>(
    buffers: &[Buffer],
    memory: &'m (dyn GuestMemory + 'm),
    windows: &mut Windows<'m>,
    to: &mut [u8],
) -> Result<usize, DeviceError> {
    let (mut cursor, mut done) = (Cursor::default(), 0);
    while done < to.len() {
        cursor.gather(buffers, memory, to.len() - done, windows)?;
        if windows.bytes() == 0 {
            break;
        }
        done += windows.read(&mut to[done..]);
        cursor.advance(buffers, windows.bytes());
    }
    Ok(done)
}

/// Copies all bytes to `buffers`, which have room for them.
fn copy_out<'m>(
    buffers: &[Buffer],
    memory: &'m (dyn GuestMemory + 'm),
    windows: &mut Windows<'m>,
    from: &[u8],
) -> Result<(), DeviceError> {
    let (mut cursor, mut done) = (Cursor::default(), 0);
    while done < from.len() {
        cursor.gather(buffers, memory, from.len() - done, windows)?;
        if windows.bytes() == 0 {
            break;
        }
        done += windows.write(&from[done..]);
        cursor.advance(buffers, windows.bytes());
    }
    Ok(())
}

impl<T: Tree> Device for P9<T> {
    fn id(&self) -> u32 {
        id::P9
    }

    fn features(&self) -> u64 {
        F_MOUNT_TAG
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn in_order(&self) -> bool {
        true
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        super::read_bytes(&self.config, offset, data);
    }

    fn process(&mut self, _queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let memory = ring.memory();
        let mut windows = Windows::new();
        for _ in 0..MESSAGES_PER_CALL {
            if !ring.pop(&mut self.chain)? {
                return Ok(Progress::Drained);
            }
            let chain = &self.chain;
            if chain.writable_bytes() < ERROR {
                return Err(DeviceError::NoRoom { head: chain.head() });
            }
            let room = chain.writable_bytes().min(MAX_MESSAGE as u64) as usize;
            let answer = &mut self.answer[..room];
            let (tag, request) = if chain.readable_bytes() > MAX_MESSAGE as u64 {
                let mut head = [0; HEAD];
                copy_in(chain.readable(), memory, &mut windows, &mut head)?;
                (Request::decode(&head).0, Err(Errno::MSGSIZE))
            } else {
                let len = copy_in(chain.readable(), memory, &mut windows, &mut self.request)?;
                let (tag, request) = Request::decode(&self.request[..len]);
                (tag, request.map_err(session::errno))
            };
            let len = match request.and_then(|request| self.session.answer(tag, &request, answer)) {
                Ok(len) => len,
                Err(errno) => Answer::Error(errno).encode(tag, answer).unwrap_or(0),
            };
            copy_out(chain.writable(), memory, &mut windows, &answer[..len])?;
            ring.push(chain.head(), len as u32);
        }
        Ok(Progress::More)
    }

    fn stop(&mut self, _queue: usize) {
        self.session.end();
    }

    fn reset(&mut self) {
        self.session.end();
    }
}
