//! What a driver asks for.

use super::wire::{self, Reader, Writer};
use super::{HEAD, MAX_NAMES, kind};

/// The names of a walk, one below the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    list: [&'a [u8]; MAX_NAMES],
    len: usize,
}

impl<'a> Names<'a> {
    /// These names; `None` if they are more than [`MAX_NAMES`].
    #[must_use]
    pub fn new(names: &[&'a [u8]]) -> Option<Self> {
        let mut list: [&[u8]; MAX_NAMES] = [&[]; MAX_NAMES];
        list.get_mut(..names.len())?.copy_from_slice(names);
        Some(Self { list, len: names.len() })
    }

    /// The names.
    #[must_use]
    pub fn as_slice(&self) -> &[&'a [u8]] {
        &self.list[..self.len]
    }
}

/// What [`Request::SetAttributes`] changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttributes {
    /// Which of the fields count; [`SET_SIZE`](super::SET_SIZE) is the only one Chiton knows.
    pub valid: u32,
    /// Permissions.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Seconds and nanoseconds of the last access, then of the last modification.
    pub times: [u64; 4],
}

/// A request. Strings are bytes as the other side sent them: unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are those of the protocol")]
#[allow(clippy::large_enum_variant, reason = "there is no heap to put names on")]
pub enum Request<'a> {
    /// Begins a session: no fid is known any more.
    Version { msize: u32, version: &'a [u8] },
    /// Makes `fid` the root.
    Attach {
        fid: u32,
        afid: u32,
        user: &'a [u8],
        tree: &'a [u8],
        uid: u32,
    },
    /// Forgets the request with this tag.
    Flush { old_tag: u16 },
    /// Makes `new_fid` what the names lead to from `fid` on.
    Walk { fid: u32, new_fid: u32, names: Names<'a> },
    /// Opens a file or directory.
    Open { fid: u32, flags: u32 },
    /// Creates a file in the directory `fid`, which then is the open file.
    Create {
        fid: u32,
        name: &'a [u8],
        flags: u32,
        mode: u32,
        gid: u32,
    },
    /// Reads an open file.
    Read { fid: u32, offset: u64, count: u32 },
    /// Writes an open file.
    Write { fid: u32, offset: u64, data: &'a [u8] },
    /// Tells what a file is.
    Attributes { fid: u32, mask: u64 },
    /// Changes what a file is.
    SetAttributes { fid: u32, to: SetAttributes },
    /// Lists an open directory from `offset` on: 0, or that of an entry.
    ReadDirectory { fid: u32, offset: u64, count: u32 },
    /// Makes a directory in the directory `fid`.
    MakeDirectory {
        fid: u32,
        name: &'a [u8],
        mode: u32,
        gid: u32,
    },
    /// Removes from the directory `fid`.
    Remove { fid: u32, name: &'a [u8], flags: u32 },
    /// Moves from one directory to another or the same.
    Rename {
        fid: u32,
        name: &'a [u8],
        new_fid: u32,
        new_name: &'a [u8],
    },
    /// Makes durable what was written to an open file.
    Sync { fid: u32, data_only: u32 },
    /// Forgets a fid.
    Clunk { fid: u32 },
    /// Tells of the file system.
    Statistics { fid: u32 },
}

/// Why a message is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its type is not one that Chiton knows.
    Unknown,
    /// It is cut short, or longer than its fields.
    Malformed,
}

impl<'a> Request<'a> {
    /// Reads a message. The tag is there if the message is long enough for one.
    pub fn decode(message: &'a [u8]) -> (u16, Result<Self, Refused>) {
        let tag = match message.get(5..HEAD) {
            Some(&[low, high]) => u16::from_le_bytes([low, high]),
            _ => super::NO_TAG,
        };
        let Some((kind, _, mut fields)) = wire::open(message) else {
            return (tag, Err(Refused::Malformed));
        };
        let request = match Self::fields(kind, &mut fields) {
            Ok(Some(request)) if fields.rest().is_empty() => Ok(request),
            Ok(_) => Err(Refused::Malformed),
            Err(unknown) => Err(unknown),
        };
        (tag, request)
    }

    fn fields(kind: u8, from: &mut Reader<'a>) -> Result<Option<Self>, Refused> {
        let known = match kind {
            kind::TVERSION => version(from),
            kind::TATTACH => attach(from),
            kind::TFLUSH => from.u16().map(|old_tag| Self::Flush { old_tag }),
            kind::TWALK => walk(from),
            kind::TLOPEN => open(from),
            kind::TLCREATE => create(from),
            kind::TREAD => read(from),
            kind::TWRITE => write(from),
            kind::TGETATTR => attributes(from),
            kind::TSETATTR => set_attributes(from),
            kind::TREADDIR => read_directory(from),
            kind::TMKDIR => make_directory(from),
            kind::TUNLINKAT => remove(from),
            kind::TRENAMEAT => rename(from),
            kind::TFSYNC => sync(from),
            kind::TCLUNK => from.u32().map(|fid| Self::Clunk { fid }),
            kind::TSTATFS => from.u32().map(|fid| Self::Statistics { fid }),
            _ => return Err(Refused::Unknown),
        };
        Ok(known)
    }

    /// The number of this request; that of its answer is one more.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Version { .. } => kind::TVERSION,
            Self::Attach { .. } => kind::TATTACH,
            Self::Flush { .. } => kind::TFLUSH,
            Self::Walk { .. } => kind::TWALK,
            Self::Open { .. } => kind::TLOPEN,
            Self::Create { .. } => kind::TLCREATE,
            Self::Read { .. } => kind::TREAD,
            Self::Write { .. } => kind::TWRITE,
            Self::Attributes { .. } => kind::TGETATTR,
            Self::SetAttributes { .. } => kind::TSETATTR,
            Self::ReadDirectory { .. } => kind::TREADDIR,
            Self::MakeDirectory { .. } => kind::TMKDIR,
            Self::Remove { .. } => kind::TUNLINKAT,
            Self::Rename { .. } => kind::TRENAMEAT,
            Self::Sync { .. } => kind::TFSYNC,
            Self::Clunk { .. } => kind::TCLUNK,
            Self::Statistics { .. } => kind::TSTATFS,
        }
    }

    /// Writes the message, and returns its length; `None` if it does not fit.
    pub fn encode(&self, tag: u16, to: &mut [u8]) -> Option<usize> {
        let mut to = Writer::new(to);
        to.u32(0).u8(self.kind()).u16(tag);
        match *self {
            Self::Version { msize, version } => to.u32(msize).string(version),
            Self::Attach {
                fid,
                afid,
                user,
                tree,
                uid,
            } => to.u32(fid).u32(afid).string(user).string(tree).u32(uid),
            Self::Flush { old_tag } => to.u16(old_tag),
            Self::Walk { fid, new_fid, names } => {
                to.u32(fid).u32(new_fid).u16(names.len as u16);
                names.as_slice().iter().fold(&mut to, |to, name| to.string(name))
            }
            Self::Open { fid, flags } => to.u32(fid).u32(flags),
            Self::Create {
                fid,
                name,
                flags,
                mode,
                gid,
            } => to.u32(fid).string(name).u32(flags).u32(mode).u32(gid),
            Self::Read { fid, offset, count } | Self::ReadDirectory { fid, offset, count } => {
                to.u32(fid).u64(offset).u32(count)
            }
            Self::Write { fid, offset, data } => to.u32(fid).u64(offset).data(data),
            Self::Attributes { fid, mask } => to.u32(fid).u64(mask),
            Self::SetAttributes { fid, to: set } => {
                to.u32(fid)
                    .u32(set.valid)
                    .u32(set.mode)
                    .u32(set.uid)
                    .u32(set.gid)
                    .u64(set.size);
                set.times.iter().fold(&mut to, |to, time| to.u64(*time))
            }
            Self::MakeDirectory { fid, name, mode, gid } => to.u32(fid).string(name).u32(mode).u32(gid),
            Self::Remove { fid, name, flags } => to.u32(fid).string(name).u32(flags),
            Self::Rename {
                fid,
                name,
                new_fid,
                new_name,
            } => to.u32(fid).string(name).u32(new_fid).string(new_name),
            Self::Sync { fid, data_only } => to.u32(fid).u32(data_only),
            Self::Clunk { fid } | Self::Statistics { fid } => to.u32(fid),
        };
        to.seal()
    }
}

fn version<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (msize, version) = (from.u32()?, from.string()?);
    Some(Request::Version { msize, version })
}

fn attach<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (fid, afid, user, tree, uid) = (from.u32()?, from.u32()?, from.string()?, from.string()?, from.u32()?);
    Some(Request::Attach {
        fid,
        afid,
        user,
        tree,
        uid,
    })
}

fn walk<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (fid, new_fid, count) = (from.u32()?, from.u32()?, from.u16()?);
    let mut list: [&[u8]; MAX_NAMES] = [&[]; MAX_NAMES];
    let list = list.get_mut(..usize::from(count))?;
    for name in &mut *list {
        *name = from.string()?;
    }
    let names = Names::new(list)?;
    Some(Request::Walk { fid, new_fid, names })
}

fn open<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (fid, flags) = (from.u32()?, from.u32()?);
    Some(Request::Open { fid, flags })
}

fn create<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (fid, name, flags, mode, gid) = (from.u32()?, from.string()?, from.u32()?, from.u32()?, from.u32()?);
    Some(Request::Create {
        fid,
        name,
        flags,
        mode,
        gid,
    })
}

fn read<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (fid, offset, count) = (from.u32()?, from.u64()?, from.u32()?);
    Some(Request::Read { fid, offset, count })
}

fn write<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (fid, offset, data) = (from.u32()?, from.u64()?, from.data()?);
    Some(Request::Write { fid, offset, data })
}

fn attributes<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (fid, mask) = (from.u32()?, from.u64()?);
    Some(Request::Attributes { fid, mask })
}

fn set_attributes<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (fid, valid, mode, uid, gid, size) = (
        from.u32()?,
        from.u32()?,
        from.u32()?,
        from.u32()?,
        from.u32()?,
        from.u64()?,
    );
    let times = [from.u64()?, from.u64()?, from.u64()?, from.u64()?];
    let to = SetAttributes {
        valid,
        mode,
        uid,
        gid,
        size,
        times,
    };
    Some(Request::SetAttributes { fid, to })
}

fn read_directory<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (fid, offset, count) = (from.u32()?, from.u64()?, from.u32()?);
    Some(Request::ReadDirectory { fid, offset, count })
}

fn make_directory<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (fid, name, mode, gid) = (from.u32()?, from.string()?, from.u32()?, from.u32()?);
    Some(Request::MakeDirectory { fid, name, mode, gid })
}

fn remove<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (fid, name, flags) = (from.u32()?, from.string()?, from.u32()?);
    Some(Request::Remove { fid, name, flags })
}

fn rename<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (fid, name, new_fid, new_name) = (from.u32()?, from.string()?, from.u32()?, from.string()?);
    Some(Request::Rename {
        fid,
        name,
        new_fid,
        new_name,
    })
}

fn sync<'a>(from: &mut Reader<'a>) -> Option<Request<'a>> {
    let (fid, data_only) = (from.u32()?, from.u32()?);
    Some(Request::Sync { fid, data_only })
}
