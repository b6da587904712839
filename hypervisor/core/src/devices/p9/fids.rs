//! The fids of a session.

use alloc::vec::Vec;

use chiton_shared::virtio::p9::{Errno, NO_FID};

/// The most fids a driver may have at a time. Each is up to two descriptors of the host.
pub(super) const MAX_FIDS: usize = 128;

/// What a fid stands for.
pub(super) struct Fid<N, O> {
    pub(super) node: N,
    /// What it was opened as.
    pub(super) open: Option<O>,
}

/// All fids, by the driver's numbers.
pub(super) struct Fids<N, O>(Vec<(u32, Fid<N, O>)>);

impl<N, O> Fids<N, O> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn get(&mut self, number: u32) -> Result<&mut Fid<N, O>, Errno> {
        let found = self.0.iter_mut().find(|(n, _)| *n == number);
        found.map(|(_, fid)| fid).ok_or(Errno::BADF)
    }

    /// Whether one more fid of this number can be.
    pub(super) fn check_new(&self, number: u32) -> Result<(), Errno> {
        if number == NO_FID {
            return Err(Errno::BADF);
        }
        if self.0.iter().any(|(n, _)| *n == number) {
            return Err(Errno::EXIST);
        }
        if self.0.len() >= MAX_FIDS {
            return Err(Errno::MFILE);
        }
        Ok(())
    }

    pub(super) fn add(&mut self, number: u32, node: N) -> Result<(), Errno> {
        self.check_new(number)?;
        self.0.push((number, Fid { node, open: None }));
        Ok(())
    }

    pub(super) fn remove(&mut self, number: u32) -> Result<(), Errno> {
        let at = self.0.iter().position(|(n, _)| *n == number).ok_or(Errno::BADF)?;
        self.0.swap_remove(at);
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
