//! What a block device keeps its sectors in.

use chiton_shared::memory::Window;
use chiton_shared::virtio::block::ID_BYTES;

/// What the sectors are kept in. Offsets are bytes, and windows of any length and number up to 64
/// follow one another there; what they name lies within the capacity.
///
/// A disk that works while others do, too, implements [`begin`](Self::begin),
/// [`submit`](Self::submit), [`complete`](Self::complete) and [`wait`](Self::wait). Without them
/// each operation is done when it is asked for.
pub trait Disk: Send {
    /// Capacity, in sectors of 512 bytes. It does not change.
    fn sectors(&self) -> u64;

    /// Whether writing is not allowed. It does not change.
    fn is_read_only(&self) -> bool;

    /// A name: up to 20 bytes of ASCII, the rest zero.
    fn name(&self) -> [u8; ID_BYTES];

    /// Fills all of the windows from byte `offset` on.
    ///
    /// # Errors
    ///
    /// If not all could be read. What the windows then hold does not matter.
    fn read_at(&mut self, offset: u64, to: &[Window<'_>]) -> Result<(), DiskError>;

    /// Writes all of the windows from byte `offset` on.
    ///
    /// # Errors
    ///
    /// If not all could be written. Which part was does not matter.
    fn write_at(&mut self, offset: u64, from: &[Window<'_>]) -> Result<(), DiskError>;

    /// Makes durable what was written.
    ///
    /// # Errors
    ///
    /// If what was written may be lost.
    fn flush(&mut self) -> Result<(), DiskError>;

    /// The `len` bytes from `offset` on, whole sectors, are not needed any more: what they read as
    /// from now on is up to the disk.
    ///
    /// # Errors
    ///
    /// If the disk failed; not if it has no use for the hint.
    fn discard(&mut self, offset: u64, len: u64) -> Result<(), DiskError>;

    /// Fills the `len` bytes from `offset` on, whole sectors, with zeros; with `unmap` their place
    /// need not be kept.
    ///
    /// # Errors
    ///
    /// If not all read as zero now. Which part does is of no matter.
    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> Result<(), DiskError>;

    /// Does an operation at once, or begins it: then [`complete`](Self::complete) tells of its end
    /// under this tag, which no other operation has until then. The memory of the windows stays
    /// guest memory until then, although the windows themselves are gone.
    fn begin(&mut self, _tag: u16, operation: Operation, windows: &[Window<'_>]) -> Begun {
        Begun::Done(match operation {
            Operation::Read(offset) => self.read_at(offset, windows),
            Operation::Write(offset) => self.write_at(offset, windows),
            Operation::Flush => self.flush(),
        })
    }

    /// Everything begun so far has to get under way now.
    fn submit(&mut self) {}

    /// The tag of an operation that was begun and has ended since, and how; each once, in any
    /// order. It never waits.
    fn complete(&mut self) -> Option<(u16, Result<(), DiskError>)> {
        None
    }

    /// Sleeps until [`complete`](Self::complete) has something to tell. It is called only while an
    /// operation is under way, and submits it if need be.
    fn wait(&mut self) {}
}

/// What a disk can [begin](Disk::begin).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Fill all of the windows from this byte on.
    Read(u64),
    /// Write all of the windows from this byte on.
    Write(u64),
    /// Make durable all that was written by operations which had ended when this one began. There
    /// are no windows.
    Flush,
}

/// What came of [`Disk::begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It has ended already.
    Done(Result<(), DiskError>),
    /// It is under way, or will be after [`Disk::submit`].
    UnderWay,
}

/// A disk could not do as told. The guest learns no more than that; who implements a disk logs
/// the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disk failed")]
pub struct DiskError;
