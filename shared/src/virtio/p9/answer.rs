//! What a device answers.

use super::wire::{self, Reader, Writer};
use super::{BASIC, Errno, MAX_NAMES, kind};

/// What a device knows a file by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Qid {
    /// [`DIRECTORY`](Self::DIRECTORY), [`LINK`](Self::LINK) or [`FILE`](Self::FILE).
    pub kind: u8,
    /// Changes when the file does; 0 if nobody counts.
    pub version: u32,
    /// One number for each file.
    pub path: u64,
}

impl Qid {
    /// A directory.
    pub const DIRECTORY: u8 = 0x80;
    /// A symbolic link.
    pub const LINK: u8 = 0x02;
    /// A file.
    pub const FILE: u8 = 0;
    /// Size in a message, in bytes.
    pub const SIZE: usize = 13;

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let (kind, version, path) = (from.u8()?, from.u32()?, from.u64()?);
        Some(Self { kind, version, path })
    }

    fn write<'w, 'b>(&self, to: &'w mut Writer<'b>) -> &'w mut Writer<'b> {
        to.u8(self.kind).u32(self.version).u64(self.path)
    }
}

/// What a walk came by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Qids {
    list: [Qid; MAX_NAMES],
    len: usize,
}

impl Qids {
    /// One more, if there is room.
    pub fn push(&mut self, qid: Qid) {
        if let Some(place) = self.list.get_mut(self.len) {
            *place = qid;
            self.len += 1;
        }
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Qid] {
        &self.list[..self.len]
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The file.
    pub qid: Qid,
    /// Its kind and permissions, as Linux has them.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub links: u64,
    /// Size in bytes.
    pub size: u64,
    /// Size in which input and output go well, in bytes.
    pub block_size: u64,
    /// Number of blocks of 512 bytes.
    pub blocks: u64,
    /// Last access: seconds since 1970 and nanoseconds.
    pub accessed: [u64; 2],
    /// Last modification.
    pub modified: [u64; 2],
    /// Last change of anything.
    pub changed: [u64; 2],
}

/// Numbers of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Linux's number for its kind.
    pub kind: u32,
    /// Size of a block in bytes.
    pub block_size: u32,
    /// Blocks: all, free, free for anybody.
    pub blocks: [u64; 3],
    /// Files: all that can be, free.
    pub files: [u64; 2],
    /// Which one it is.
    pub id: u64,
    /// The longest name, in bytes.
    pub name_len: u32,
}

/// One thing in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is.
    pub qid: Qid,
    /// Where the list goes on behind it.
    pub next: u64,
    /// Linux's number for its kind: 4 directory, 8 file, 10 symbolic link.
    pub kind: u8,
    /// Its name.
    pub name: &'a [u8],
}

impl<'a> Entry<'a> {
    /// A directory's [`kind`](Self::kind).
    pub const DIRECTORY: u8 = 4;
    /// A file's.
    pub const FILE: u8 = 8;
    /// A symbolic link's.
    pub const LINK: u8 = 10;

    /// The next entry of a list; `None` at its end, or if the rest is none.
    pub fn read(from: &mut Reader<'a>) -> Option<Self> {
        let (qid, next, kind, name) = (Qid::read(from)?, from.u64()?, from.u8()?, from.string()?);
        Some(Self { qid, next, kind, name })
    }

    /// Puts the entry into a list, and returns its length there; `None` if it does not fit.
    pub fn write(&self, to: &mut [u8]) -> Option<usize> {
        let mut to = Writer::new(to);
        self.qid
            .write(&mut to)
            .u64(self.next)
            .u8(self.kind)
            .string(self.name)
            .finish()
    }
}

/// An answer, of the same name as its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are those of the protocol")]
#[allow(clippy::large_enum_variant, reason = "there is no heap to put qids on")]
pub enum Answer<'a> {
    /// The request failed.
    Error(Errno),
    Version {
        msize: u32,
        version: &'a [u8],
    },
    Attach(Qid),
    Flush,
    Walk(Qids),
    Open {
        qid: Qid,
        unit: u32,
    },
    Create {
        qid: Qid,
        unit: u32,
    },
    Read(&'a [u8]),
    Write(u32),
    Attributes(Attributes),
    SetAttributes,
    /// A list, for [`Entry::read`].
    ReadDirectory(&'a [u8]),
    MakeDirectory(Qid),
    Remove,
    Rename,
    Sync,
    Clunk,
    Statistics(Statistics),
}

impl<'a> Answer<'a> {
    /// The number of this answer.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Error(_) => kind::RLERROR,
            Self::Version { .. } => kind::TVERSION + 1,
            Self::Attach(_) => kind::TATTACH + 1,
            Self::Flush => kind::TFLUSH + 1,
            Self::Walk(_) => kind::TWALK + 1,
            Self::Open { .. } => kind::TLOPEN + 1,
            Self::Create { .. } => kind::TLCREATE + 1,
            Self::Read(_) => kind::TREAD + 1,
            Self::Write(_) => kind::TWRITE + 1,
            Self::Attributes(_) => kind::TGETATTR + 1,
            Self::SetAttributes => kind::TSETATTR + 1,
            Self::ReadDirectory(_) => kind::TREADDIR + 1,
            Self::MakeDirectory(_) => kind::TMKDIR + 1,
            Self::Remove => kind::TUNLINKAT + 1,
            Self::Rename => kind::TRENAMEAT + 1,
            Self::Sync => kind::TFSYNC + 1,
            Self::Clunk => kind::TCLUNK + 1,
            Self::Statistics(_) => kind::TSTATFS + 1,
        }
    }

    /// Writes the message, and returns its length; `None` if it does not fit.
    pub fn encode(&self, tag: u16, to: &mut [u8]) -> Option<usize> {
        let mut to = Writer::new(to);
        to.u32(0).u8(self.kind()).u16(tag);
        match *self {
            Self::Error(Errno(number)) => to.u32(number),
            Self::Version { msize, version } => to.u32(msize).string(version),
            Self::Attach(qid) | Self::MakeDirectory(qid) => qid.write(&mut to),
            Self::Walk(qids) => {
                to.u16(qids.len as u16);
                qids.as_slice().iter().fold(&mut to, |to, qid| qid.write(to))
            }
            Self::Open { qid, unit } | Self::Create { qid, unit } => qid.write(&mut to).u32(unit),
            Self::Read(data) | Self::ReadDirectory(data) => to.data(data),
            Self::Write(count) => to.u32(count),
            Self::Attributes(attributes) => attributes.write(&mut to),
            Self::Statistics(s) => {
                to.u32(s.kind).u32(s.block_size);
                for number in [s.blocks[0], s.blocks[1], s.blocks[2], s.files[0], s.files[1], s.id] {
                    to.u64(number);
                }
                to.u32(s.name_len)
            }
            Self::Flush | Self::SetAttributes | Self::Remove | Self::Rename | Self::Sync | Self::Clunk => &mut to,
        };
        to.seal()
    }

    /// Reads a message with its tag; `None` if it is no answer.
    #[must_use]
    pub fn decode(message: &'a [u8]) -> Option<(u16, Self)> {
        let (kind, tag, mut from) = wire::open(message)?;
        let from = &mut from;
        let answer = match kind.checked_sub(1)? {
            kind::TVERSION => Self::Version {
                msize: from.u32()?,
                version: from.string()?,
            },
            kind::TATTACH => Self::Attach(Qid::read(from)?),
            kind::TFLUSH => Self::Flush,
            kind::TWALK => {
                let mut qids = Qids::default();
                let count = usize::from(from.u16()?);
                if count > MAX_NAMES {
                    return None;
                }
                for _ in 0..count {
                    qids.push(Qid::read(from)?);
                }
                Self::Walk(qids)
            }
            kind::TLOPEN => Self::Open {
                qid: Qid::read(from)?,
                unit: from.u32()?,
            },
            kind::TLCREATE => Self::Create {
                qid: Qid::read(from)?,
                unit: from.u32()?,
            },
            kind::TREAD => Self::Read(from.data()?),
            kind::TWRITE => Self::Write(from.u32()?),
            kind::TGETATTR => Self::Attributes(Attributes::read(from)?),
            kind::TSETATTR => Self::SetAttributes,
            kind::TREADDIR => Self::ReadDirectory(from.data()?),
            kind::TMKDIR => Self::MakeDirectory(Qid::read(from)?),
            kind::TUNLINKAT => Self::Remove,
            kind::TRENAMEAT => Self::Rename,
            kind::TFSYNC => Self::Sync,
            kind::TCLUNK => Self::Clunk,
            kind::TSTATFS => Self::Statistics(Statistics {
                kind: from.u32()?,
                block_size: from.u32()?,
                blocks: [from.u64()?, from.u64()?, from.u64()?],
                files: [from.u64()?, from.u64()?],
                id: from.u64()?,
                name_len: from.u32()?,
            }),
            _ if kind == kind::RLERROR => Self::Error(Errno(from.u32()?)),
            _ => return None,
        };
        from.rest().is_empty().then_some((tag, answer))
    }
}

impl Attributes {
    fn write<'w, 'b>(&self, to: &'w mut Writer<'b>) -> &'w mut Writer<'b> {
        self.qid.write(to.u64(BASIC)).u32(self.mode).u32(self.uid).u32(self.gid);
        to.u64(self.links)
            .u64(0)
            .u64(self.size)
            .u64(self.block_size)
            .u64(self.blocks);
        for time in [self.accessed, self.modified, self.changed, [0; 2]] {
            to.u64(time[0]).u64(time[1]);
        }
        // Generation and data version, which nobody counts.
        to.u64(0).u64(0)
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let _valid = from.u64()?;
        let (qid, mode, uid, gid, links) = (Qid::read(from)?, from.u32()?, from.u32()?, from.u32()?, from.u64()?);
        let _device = from.u64()?;
        let (size, block_size, blocks) = (from.u64()?, from.u64()?, from.u64()?);
        let [accessed, modified, changed] = [
            [from.u64()?, from.u64()?],
            [from.u64()?, from.u64()?],
            [from.u64()?, from.u64()?],
        ];
        // Birth, generation and data version.
        from.bytes(32)?;
        Some(Self {
            qid,
            mode,
            uid,
            gid,
            links,
            size,
            block_size,
            blocks,
            accessed,
            modified,
            changed,
        })
    }
}
