//! What is unpacked, bounded: in bytes, and in bytes for each packed one.

use std::fmt;
use std::io::{self, BufReader, Read};

use super::super::Limits;
use super::compression::Decompress;

/// Reads what is in an archive, whatever it is compressed by, and no more of it than the limits allow.
pub(in super::super) struct Bounded<R: Read> {
    packed: Decompress<Counted<R>>,
    total: u64,
    limits: Limits,
}

/// A limit that was exceeded.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Over {
    pub(in super::super) limit: u64,
    pub(in super::super) of: &'static str,
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {} {}", self.limit, self.of)
    }
}

impl std::error::Error for Over {}

impl Over {
    /// The limit, if an error of [`Bounded`] is about one.
    pub(in super::super) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl<R: Read> Bounded<R> {
    pub(in super::super) fn new(inner: R, limits: Limits) -> io::Result<Self> {
        Ok(Self {
            packed: Decompress::new(Counted { inner, bytes: 0 })?,
            total: 0,
            limits,
        })
    }

    /// What is packed, as far as it has not been read.
    pub(in super::super) fn into_packed(self) -> BufReader<Counted<R>> {
        self.packed.into_inner()
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.packed.read(buffer)?;
        self.total += count as u64;
        let over = |limit, of| Err(io::Error::other(Over { limit, of }));
        if self.total > self.limits.bytes {
            return over(self.limits.bytes, "bytes");
        }
        let packed = self.packed.inner_mut().get_ref().bytes.max(1);
        if self.total > self.limits.ratio_from && self.total / packed > self.limits.ratio {
            return over(self.limits.ratio, "times the bytes that it has packed");
        }
        Ok(count)
    }
}

/// Counts what is read.
pub(in super::super) struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R> Counted<R> {
    pub(in super::super) fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}
