//! Who is told how far something is.

use std::io::{self, Read};

/// Somebody who shows how far things are: progress bars, or nobody.
pub trait Progress {
    /// Something begins; `total` is how many bytes it will take, where that is known.
    fn begin(&self, what: &str, total: Option<u64>) -> Box<dyn Step>;
}

/// One thing that is under way. It is over when dropped.
pub trait Step {
    /// So many bytes more are done.
    fn advance(&self, bytes: u64);
}

/// Nobody.
#[derive(Clone, Copy, Debug)]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _: &str, _: Option<u64>) -> Box<dyn Step> {
        Box::new(Self)
    }
}

impl Step for Quiet {
    fn advance(&self, _: u64) {}
}

/// Tells how many bytes were read.
pub(super) struct Watched<R> {
    inner: R,
    step: Box<dyn Step>,
}

impl<R> Watched<R> {
    pub(super) fn new(inner: R, progress: &dyn Progress, what: &str, total: u64) -> Self {
        let step = progress.begin(what, Some(total));
        Self { inner, step }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.step.advance(count as u64);
        Ok(count)
    }
}
