//! A disk in the test's memory.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use chiton_shared::memory::Window;
use chiton_shared::virtio::block::{ID_BYTES, SECTOR};

use super::{Begun, Disk, DiskError, Operation};

/// What the test's end of a disk sees and sets.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) bytes: Vec<u8>,
    pub(crate) read_only: bool,
    /// Every operation fails.
    pub(crate) fails: bool,
    pub(crate) reads: usize,
    pub(crate) writes: usize,
    pub(crate) flushes: usize,
    /// Fills with zeros that may deallocate.
    pub(crate) unmaps: usize,
    /// Operations are begun, and end when the test says so.
    pub(crate) late: bool,
    /// What has begun and not ended, in order.
    pub(crate) begun: Vec<Later>,
    ended: Vec<(u16, Result<(), DiskError>)>,
    /// How often the device slept until something ended.
    pub(crate) waits: usize,
}

/// An operation under way.
pub(crate) struct Later {
    tag: u16,
    pub(crate) operation: Operation,
    /// Start and length of each window.
    windows: Vec<(SendPtr, usize)>,
}

/// A place in the test's memory.
#[derive(Clone, Copy)]
struct SendPtr(NonNull<u8>);

// SAFETY: it is used as a window, which allows access from any thread.
unsafe impl Send for SendPtr {}

/// What discarded bytes read as.
pub(crate) const DISCARDED: u8 = 0xDD;

/// A disk; clones are the same disk.
#[derive(Clone)]
pub(crate) struct FakeDisk(Arc<Mutex<State>>);

/// What the disk calls itself.
pub(crate) const NAME: &[u8; ID_BYTES] = b"a disk for tests\0\0\0\0";

impl FakeDisk {
    /// A disk of `sectors` sectors, each filled with its number plus one.
    pub(crate) fn new(sectors: usize) -> Self {
        let mut bytes = vec![0; sectors * SECTOR as usize];
        for (sector, bytes) in bytes.chunks_mut(SECTOR as usize).enumerate() {
            bytes.fill((sector as u8).wrapping_add(1));
        }
        Self(Arc::new(Mutex::new(State {
            bytes,
            ..State::default()
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the operation that began as this one of those under way end now, as if it had only now
    /// been done.
    pub(crate) fn end(&self, index: usize) {
        let later = self.state().begun.remove(index);
        let windows: Vec<Window<'_>> = later
            .windows
            .iter()
            // SAFETY: the tests keep their memory longer than the device that has this disk.
            .map(|(start, len)| unsafe { Window::new(start.0, *len) })
            .collect();
        let mut disk = self.clone();
        let result = match later.operation {
            Operation::Read(offset) => disk.read_at(offset, &windows),
            Operation::Write(offset) => disk.write_at(offset, &windows),
            Operation::Flush => disk.flush(),
        };
        self.state().ended.push((later.tag, result));
    }

    /// How often the device slept for the disk, and how many operations are under way.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.waits, state.begun.len())
    }

    fn fill(&self, offset: u64, len: u64, with: u8) -> Result<(), DiskError> {
        let mut state = self.state();
        if state.fails {
            return Err(DiskError);
        }
        state.writes += 1;
        state.bytes[offset as usize..(offset + len) as usize].fill(with);
        Ok(())
    }
}

impl Disk for FakeDisk {
    fn sectors(&self) -> u64 {
        self.state().bytes.len() as u64 / SECTOR
    }

    fn is_read_only(&self) -> bool {
        self.state().read_only
    }

    fn name(&self) -> [u8; ID_BYTES] {
        *NAME
    }

    fn read_at(&mut self, offset: u64, to: &[Window<'_>]) -> Result<(), DiskError> {
        let mut state = self.state();
        state.reads += 1;
        let mut at = offset as usize;
        for window in to {
            window.write(0, &state.bytes[at..at + window.len()]);
            at += window.len();
        }
        if state.fails { Err(DiskError) } else { Ok(()) }
    }

    fn write_at(&mut self, offset: u64, from: &[Window<'_>]) -> Result<(), DiskError> {
        let mut state = self.state();
        state.writes += 1;
        if state.fails {
            return Err(DiskError);
        }
        let mut at = offset as usize;
        for window in from {
            window.read(0, &mut state.bytes[at..at + window.len()]);
            at += window.len();
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        let mut state = self.state();
        state.flushes += 1;
        if state.fails { Err(DiskError) } else { Ok(()) }
    }

    fn begin(&mut self, tag: u16, operation: Operation, windows: &[Window<'_>]) -> Begun {
        if !self.state().late {
            return Begun::Done(match operation {
                Operation::Read(offset) => self.read_at(offset, windows),
                Operation::Write(offset) => self.write_at(offset, windows),
                Operation::Flush => self.flush(),
            });
        }
        let place = |window: &Window<'_>| {
            let start = NonNull::new(window.as_ptr()).expect("a window is somewhere");
            (SendPtr(start), window.len())
        };
        let mut state = self.state();
        assert!(state.begun.iter().all(|other| other.tag != tag), "tag {tag} twice");
        state.begun.push(Later {
            tag,
            operation,
            windows: windows.iter().map(place).collect(),
        });
        Begun::UnderWay
    }

    fn complete(&mut self) -> Option<(u16, Result<(), DiskError>)> {
        self.state().ended.pop()
    }

    fn wait(&mut self) {
        self.state().waits += 1;
        if self.state().ended.is_empty() {
            let last = self.state().begun.len().checked_sub(1);
            self.end(last.expect("it waits for nothing"));
        }
    }

    fn discard(&mut self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.fill(offset, len, DISCARDED)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> Result<(), DiskError> {
        self.state().unmaps += usize::from(unmap);
        self.fill(offset, len, 0)
    }
}
