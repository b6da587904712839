//! A session: what a driver has open, and what each request does.

use chiton_shared::virtio::p9::{
    Answer, DATA_HEAD, Entry, Errno, HEAD, MAX_MESSAGE, MIN_MESSAGE, NO_FID, Names, Qids, REMOVE_DIRECTORY, Refused,
    Request, SET_SIZE, SET_TIMES, SetAttributes, VERSION, check_name, open,
};

use super::fids::Fids;
use super::{Access, Tree};

/// The bits of a mode that count: permissions.
const PERMISSIONS: u32 = 0o777;

/// Size of the answer to a read besides its data.
const READ_HEAD: usize = HEAD + 4;

/// What a driver sees of a message that is no request.
pub(super) const fn errno(refused: Refused) -> Errno {
    match refused {
        Refused::Unknown => Errno::OPNOTSUPP,
        Refused::Malformed => Errno::INVAL,
    }
}

pub(super) struct Session<T: Tree> {
    tree: T,
    fids: Fids<T::Node, T::Open>,
    /// The size of messages settled on; 0 before that.
    message: usize,
}

impl<T: Tree> Session<T> {
    pub(super) const fn new(tree: T) -> Self {
        Self {
            tree,
            fids: Fids::new(),
            message: 0,
        }
    }

    /// No session, and no fids.
    pub(super) fn end(&mut self) {
        self.fids.clear();
        self.message = 0;
    }

    /// Does what is asked, and writes the answer into `to`, which it may not exceed.
    pub(super) fn answer(&mut self, tag: u16, request: &Request<'_>, to: &mut [u8]) -> Result<usize, Errno> {
        if let Request::Version { msize, version } = *request {
            return self.begin(msize, version)?.encode(tag, to).ok_or(Errno::MSGSIZE);
        }
        if self.message == 0 {
            return Err(Errno::PROTO);
        }
        let room = to.len().min(self.message);
        let to = &mut to[..room];
        match *request {
            Request::Read { fid, offset, count } => self.read(tag, fid, offset, count, to),
            Request::ReadDirectory { fid, offset, count } => self.list(tag, fid, offset, count, to),
            _ => self.short(request)?.encode(tag, to).ok_or(Errno::MSGSIZE),
        }
    }

    fn begin(&mut self, msize: u32, version: &[u8]) -> Result<Answer<'static>, Errno> {
        self.end();
        if version != VERSION {
            let version = b"unknown";
            return Ok(Answer::Version { msize, version });
        }
        let message = (msize as usize).min(MAX_MESSAGE);
        if message < MIN_MESSAGE {
            return Err(Errno::MSGSIZE);
        }
        self.message = message;
        Ok(Answer::Version {
            msize: message as u32,
            version: VERSION,
        })
    }

    /// The answer to a request that needs no buffer.
    fn short(&mut self, request: &Request<'_>) -> Result<Answer<'static>, Errno> {
        let unit = self.unit();
        let Self { tree, fids, .. } = self;
        Ok(match *request {
            Request::Attach { fid, afid, .. } => {
                if afid != NO_FID {
                    return Err(Errno::OPNOTSUPP);
                }
                fids.check_new(fid)?;
                let root = tree.root()?;
                let qid = tree.attributes(&root)?.qid;
                fids.add(fid, root)?;
                Answer::Attach(qid)
            }
            Request::Flush { .. } => Answer::Flush,
            Request::Walk { fid, new_fid, names } => self.walk(fid, new_fid, &names)?,
            Request::Open { fid, flags } => {
                let access = access(flags)?;
                let fid = fids.get(fid)?;
                if fid.open.is_some() {
                    return Err(Errno::BADF);
                }
                let qid = tree.attributes(&fid.node)?.qid;
                fid.open = Some(tree.open(&fid.node, access)?);
                Answer::Open { qid, unit }
            }
            Request::Create {
                fid, name, flags, mode, ..
            } => {
                check_name(name)?;
                let (access, exclusive) = (access(flags)?, flags & open::EXCLUSIVE != 0);
                let fid = fids.get(fid)?;
                if fid.open.is_some() {
                    return Err(Errno::BADF);
                }
                let (node, open) = tree.create(&fid.node, name, access, exclusive, mode & PERMISSIONS)?;
                let qid = tree.attributes(&node)?.qid;
                (fid.node, fid.open) = (node, Some(open));
                Answer::Create { qid, unit }
            }
            Request::Write { fid, offset, data } => {
                let open = fids.get(fid)?.open.as_ref().ok_or(Errno::BADF)?;
                Answer::Write(tree.write_at(open, checked(offset, data.len())?, data)? as u32)
            }
            Request::Attributes { fid, .. } => Answer::Attributes(tree.attributes(&fids.get(fid)?.node)?),
            Request::SetAttributes { fid, to } => {
                set(tree, &fids.get(fid)?.node, &to)?;
                Answer::SetAttributes
            }
            Request::MakeDirectory { fid, name, mode, .. } => {
                check_name(name)?;
                let node = tree.make_directory(&fids.get(fid)?.node, name, mode & PERMISSIONS)?;
                Answer::MakeDirectory(tree.attributes(&node)?.qid)
            }
            Request::Remove { fid, name, flags } => {
                check_name(name)?;
                if flags & !REMOVE_DIRECTORY != 0 {
                    return Err(Errno::INVAL);
                }
                tree.remove(&fids.get(fid)?.node, name, flags != 0)?;
                Answer::Remove
            }
            Request::Rename {
                fid,
                name,
                new_fid,
                new_name,
            } => {
                check_name(name)?;
                check_name(new_name)?;
                let to = tree.again(&fids.get(new_fid)?.node)?;
                tree.rename(&fids.get(fid)?.node, name, &to, new_name)?;
                Answer::Rename
            }
            Request::Sync { fid, .. } => {
                tree.sync(fids.get(fid)?.open.as_ref().ok_or(Errno::BADF)?)?;
                Answer::Sync
            }
            Request::Clunk { fid } => {
                fids.remove(fid)?;
                Answer::Clunk
            }
            Request::Statistics { fid } => Answer::Statistics(tree.statistics(&fids.get(fid)?.node)?),
            Request::Version { .. } | Request::Read { .. } | Request::ReadDirectory { .. } => {
                return Err(Errno::INVAL);
            }
        })
    }

    /// How many bytes one read or write moves at most.
    const fn unit(&self) -> u32 {
        (self.message - DATA_HEAD) as u32
    }

    fn walk(&mut self, fid: u32, new_fid: u32, names: &Names<'_>) -> Result<Answer<'static>, Errno> {
        let Self { tree, fids, .. } = self;
        if new_fid != fid {
            fids.check_new(new_fid)?;
        }
        let from = fids.get(fid)?;
        if from.open.is_some() {
            return Err(Errno::BADF);
        }
        let mut at = tree.again(&from.node)?;
        let mut qids = Qids::default();
        for name in names.as_slice() {
            let step = check_name(name).and_then(|()| tree.child(&at, name));
            let step = step.and_then(|node| Ok((tree.attributes(&node)?.qid, node)));
            match step {
                Ok((qid, node)) => {
                    at = node;
                    qids.push(qid);
                }
                // If the first name fails, that is the answer; else what was found before.
                Err(errno) if qids.as_slice().is_empty() => return Err(errno),
                Err(_) => return Ok(Answer::Walk(qids)),
            }
        }
        if new_fid == fid {
            fids.get(fid)?.node = at;
        } else {
            fids.add(new_fid, at)?;
        }
        Ok(Answer::Walk(qids))
    }

    fn read(&mut self, tag: u16, fid: u32, offset: u64, count: u32, to: &mut [u8]) -> Result<usize, Errno> {
        let Self { tree, fids, .. } = self;
        let open = fids.get(fid)?.open.as_ref().ok_or(Errno::BADF)?;
        let data = data(to, count)?;
        let len = tree.read_at(open, checked(offset, data.len())?, data)?;
        finish(tag, to, len, Answer::Read(&[]))
    }

    fn list(&mut self, tag: u16, fid: u32, offset: u64, count: u32, to: &mut [u8]) -> Result<usize, Errno> {
        let Self { tree, fids, .. } = self;
        let open = fids.get(fid)?.open.as_ref().ok_or(Errno::BADF)?;
        let data = data(to, count)?;
        let (mut len, mut refused) = (0, false);
        tree.list(open, offset, &mut |entry: &Entry<'_>| {
            match data.get_mut(len..).and_then(|rest| entry.write(rest)) {
                Some(more) => len += more,
                None => refused = true,
            }
            !refused
        })?;
        // An empty answer means the end, so it must not stand for an entry that does not fit.
        if refused && len == 0 {
            return Err(Errno::INVAL);
        }
        finish(tag, to, len, Answer::ReadDirectory(&[]))
    }
}

/// The part of an answer that is for data: as much as was asked for, or there is room for.
fn data(to: &mut [u8], count: u32) -> Result<&mut [u8], Errno> {
    let data = to.get_mut(READ_HEAD..).ok_or(Errno::MSGSIZE)?;
    let len = data.len().min(count as usize);
    Ok(&mut data[..len])
}

/// Puts the head before `len` bytes of data that are in place; `empty` is the answer without any.
fn finish(tag: u16, to: &mut [u8], len: usize, empty: Answer<'_>) -> Result<usize, Errno> {
    empty.encode(tag, to).ok_or(Errno::MSGSIZE)?;
    let size = READ_HEAD + len;
    to[..4].copy_from_slice(&(size as u32).to_le_bytes());
    to[HEAD..READ_HEAD].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(size)
}

/// An offset from which so many bytes end within what a file can have.
fn checked(offset: u64, len: usize) -> Result<u64, Errno> {
    let end = offset.checked_add(len as u64).ok_or(Errno::INVAL)?;
    if end > i64::MAX as u64 {
        return Err(Errno::INVAL);
    }
    Ok(offset)
}

const fn access(flags: u32) -> Result<Access, Errno> {
    let access = flags & open::ACCESS;
    if access > open::READ_WRITE {
        return Err(Errno::INVAL);
    }
    Ok(Access {
        read: access != open::WRITE,
        write: access != open::READ,
        truncate: flags & open::TRUNCATE != 0,
    })
}

/// Changes a file's size. Times are the host's; nothing else can be changed.
fn set<T: Tree>(tree: &mut T, node: &T::Node, to: &SetAttributes) -> Result<(), Errno> {
    if to.valid & !(SET_SIZE | SET_TIMES) != 0 {
        return Err(Errno::OPNOTSUPP);
    }
    if to.valid & SET_SIZE != 0 {
        tree.resize(node, checked(to.size, 0)?)?;
    }
    Ok(())
}
