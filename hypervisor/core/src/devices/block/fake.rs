//! A disk in the test's memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use chiton_shared::memory::Window;
use chiton_shared::virtio::block::{ID_BYTES, SECTOR};

use super::{Disk, DiskError};

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
}

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

    fn discard(&mut self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.fill(offset, len, DISCARDED)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> Result<(), DiskError> {
        self.state().unmaps += usize::from(unmap);
        self.fill(offset, len, 0)
    }
}
