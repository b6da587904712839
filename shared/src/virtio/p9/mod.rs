//! 9P transport (device ID 9): files of the host by the protocol 9P2000.L.
//!
//! A chain holds one message each way: first the request, which the device reads, then room for the
//! answer, which it writes. A message is its size (4 bytes, these included), its type (1), a tag (2)
//! that the answer repeats, and its fields, little-endian. A string is its length (2) and its bytes.
//!
//! A *fid* is a number that the driver gives to a file or directory; a *qid* is what the device
//! knows a file by.

mod answer;
mod request;
#[cfg(test)]
mod tests;
mod wire;

pub use answer::{Answer, Attributes, Entry, Qid, Qids, Statistics};
pub use request::{Names, Refused, Request, SetAttributes};
pub use wire::{Reader, Writer};

/// Feature `VIRTIO_9P_MOUNT_TAG`: the configuration has the folder's name.
pub const F_MOUNT_TAG: u64 = 1 << 0;

/// Index of the only queue.
pub const REQUEST: usize = 0;
/// How many queues there are.
pub const QUEUES: usize = 1;

/// The most bytes that a folder's name has here. The configuration is the name's length (2 bytes)
/// and its bytes.
pub const MAX_TAG: usize = 30;

/// Size of a message's head: size, type and tag.
pub const HEAD: usize = 7;
/// The largest message that Chiton's device takes or gives, in bytes.
pub const MAX_MESSAGE: usize = 64 << 10;
/// The smallest size of messages that a driver may settle on, in bytes.
pub const MIN_MESSAGE: usize = 4096;
/// What a message of data has besides the data, at the most: the head of a write request.
pub const DATA_HEAD: usize = HEAD + 16;
/// The name of the protocol.
pub const VERSION: &[u8] = b"9P2000.L";
/// No fid at all.
pub const NO_FID: u32 = u32::MAX;
/// The tag of a message that begins a session.
pub const NO_TAG: u16 = u16::MAX;
/// The most names of one walk.
pub const MAX_NAMES: usize = 16;
/// The longest name of a file, in bytes.
pub const MAX_NAME: usize = 255;

/// The types of requests; the answer's is one more.
pub mod kind {
    /// The answer to whatever failed.
    pub const RLERROR: u8 = 7;
    /// Numbers of file systems.
    pub const TSTATFS: u8 = 8;
    /// Open.
    pub const TLOPEN: u8 = 12;
    /// Create and open a file.
    pub const TLCREATE: u8 = 14;
    /// What a file is.
    pub const TGETATTR: u8 = 24;
    /// Change what a file is.
    pub const TSETATTR: u8 = 26;
    /// List a directory.
    pub const TREADDIR: u8 = 40;
    /// Make durable.
    pub const TFSYNC: u8 = 50;
    /// Make a directory.
    pub const TMKDIR: u8 = 72;
    /// Rename.
    pub const TRENAMEAT: u8 = 74;
    /// Remove.
    pub const TUNLINKAT: u8 = 76;
    /// Begin a session.
    pub const TVERSION: u8 = 100;
    /// The root.
    pub const TATTACH: u8 = 104;
    /// Forget a request.
    pub const TFLUSH: u8 = 108;
    /// From a directory to what is in it.
    pub const TWALK: u8 = 110;
    /// Read.
    pub const TREAD: u8 = 116;
    /// Write.
    pub const TWRITE: u8 = 118;
    /// Forget a fid.
    pub const TCLUNK: u8 = 120;
}

/// Flags of opening: Linux's, as the protocol has them.
pub mod open {
    /// The bits that say what the file is opened for.
    pub const ACCESS: u32 = 3;
    /// To read.
    pub const READ: u32 = 0;
    /// To write.
    pub const WRITE: u32 = 1;
    /// To do both.
    pub const READ_WRITE: u32 = 2;
    /// The file must not exist yet.
    pub const EXCLUSIVE: u32 = 0o200;
    /// The file becomes empty.
    pub const TRUNCATE: u32 = 0o1000;
}

/// The flag of [`Request::Remove`] for a directory.
pub const REMOVE_DIRECTORY: u32 = 0x200;
/// In [`SetAttributes::valid`]: the size.
pub const SET_SIZE: u32 = 1 << 3;
/// In [`SetAttributes::valid`]: time of access, change or modification.
pub const SET_TIMES: u32 = 0x1F0;
/// In [`Attributes`]: mode, links, user, group, device, times, inode, size and blocks are valid.
pub const BASIC: u64 = 0x7FF;

/// What went wrong: a Linux error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u32);

impl Errno {
    /// Not allowed.
    pub const PERM: Self = Self(1);
    /// There is no such file.
    pub const NOENT: Self = Self(2);
    /// Input or output failed.
    pub const IO: Self = Self(5);
    /// Neither a file nor a directory.
    pub const NXIO: Self = Self(6);
    /// No such fid, or one that is not open for this.
    pub const BADF: Self = Self(9);
    /// No permission.
    pub const ACCES: Self = Self(13);
    /// The fid or the file is there already.
    pub const EXIST: Self = Self(17);
    /// Another file system.
    pub const XDEV: Self = Self(18);
    /// Not a directory.
    pub const NOTDIR: Self = Self(20);
    /// A directory.
    pub const ISDIR: Self = Self(21);
    /// A message that means nothing.
    pub const INVAL: Self = Self(22);
    /// Too many fids.
    pub const MFILE: Self = Self(24);
    /// The host's disk is full.
    pub const NOSPC: Self = Self(28);
    /// Read-only.
    pub const ROFS: Self = Self(30);
    /// The name is too long.
    pub const NAMETOOLONG: Self = Self(36);
    /// The directory is not empty.
    pub const NOTEMPTY: Self = Self(39);
    /// A symbolic link.
    pub const LOOP: Self = Self(40);
    /// No session.
    pub const PROTO: Self = Self(71);
    /// The answer does not fit.
    pub const MSGSIZE: Self = Self(90);
    /// No such request.
    pub const OPNOTSUPP: Self = Self(95);
}

/// The configuration for this name, of which [`MAX_TAG`] bytes count, and its length.
#[must_use]
pub fn config(tag: &[u8]) -> ([u8; 2 + MAX_TAG], usize) {
    let mut bytes = [0; 2 + MAX_TAG];
    let len = tag.len().min(MAX_TAG);
    bytes[..2].copy_from_slice(&(len as u16).to_le_bytes());
    bytes[2..2 + len].copy_from_slice(&tag[..len]);
    (bytes, 2 + len)
}

/// The name in a configuration; `None` if it is cut short.
#[must_use]
pub fn tag(config: &[u8]) -> Option<&[u8]> {
    let (len, rest) = config.split_first_chunk()?;
    rest.get(..usize::from(u16::from_le_bytes(*len)))
}

/// Whether this is the name of one thing in a directory: neither empty nor too long, no path, and
/// not the directory itself or the one above.
///
/// # Errors
///
/// [`Errno::NAMETOOLONG`] or [`Errno::INVAL`].
pub fn check_name(name: &[u8]) -> Result<(), Errno> {
    if name.len() > MAX_NAME {
        return Err(Errno::NAMETOOLONG);
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| matches!(b, 0 | b'/')) {
        return Err(Errno::INVAL);
    }
    Ok(())
}
