//! Windows over memory that the `loom` model checker watches, for the tests in `tests/loom.rs`.
//!
//! A 16-bit field accessed with ordering is one of loom's atomics: each load may see any value
//! that the memory model allows. Everything else is plain memory: two accesses that nothing
//! orders, one of them a write, end the test. So a test that passes proves that the ordered
//! fields order all the rest.

extern crate std;

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU16, Ordering};
use std::vec::Vec;

use super::GuestMemory;

/// Memory of a model, from address 0 on.
#[derive(Debug)]
pub struct Memory(Vec<Unit>);

/// Two bytes, either a field with ordering or plain memory.
#[derive(Debug)]
struct Unit {
    ordered: AtomicU16,
    plain: UnsafeCell<[u8; 2]>,
    kind: AtomicU8,
}

const ORDERED: u8 = 1;
const PLAIN: u8 = 2;

impl Unit {
    /// A unit is used in one way only, as the two ways do not see each other's values.
    fn is(&self, kind: u8) -> &Self {
        let before = self.kind.swap(kind, Relaxed);
        assert!(
            before == 0 || before == kind,
            "a field is accessed with ordering and without"
        );
        self
    }
}

impl Memory {
    /// Zeroed memory of `len` bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let unit = |_| Unit {
            ordered: AtomicU16::new(0),
            plain: UnsafeCell::new([0; 2]),
            kind: AtomicU8::new(0),
        };
        Self((0..len.div_ceil(2)).map(unit).collect())
    }
}

impl GuestMemory for Memory {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        let start = usize::try_from(address).ok()?;
        (start.checked_add(len)? <= self.0.len() * 2).then_some(Window {
            memory: self,
            start,
            len,
        })
    }
}

/// A bounded piece of a model's memory.
#[derive(Clone, Copy, Debug)]
pub struct Window<'m> {
    memory: &'m Memory,
    start: usize,
    len: usize,
}

impl<'m> Window<'m> {
    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the window has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn is_aligned(&self, alignment: usize) -> bool {
        self.start.is_multiple_of(alignment)
    }

    /// The part of `len` bytes from `offset` on; `None` if it would reach beyond the end.
    #[must_use]
    pub fn part(&self, offset: usize, len: usize) -> Option<Window<'m>> {
        let inside = offset.checked_add(len)? <= self.len;
        inside.then_some(Window {
            memory: self.memory,
            start: self.start + offset,
            len,
        })
    }

    fn ordered(&self, offset: usize) -> &'m AtomicU16 {
        assert!(offset + 2 <= self.len && (self.start + offset).is_multiple_of(2));
        &self.memory.0[(self.start + offset) / 2].is(ORDERED).ordered
    }

    /// Reads a 16-bit value, and acquires.
    #[must_use]
    pub fn load_u16(&self, offset: usize) -> u16 {
        self.ordered(offset).load(Ordering::Acquire)
    }

    /// Writes a 16-bit value, and releases.
    pub fn store_u16(&self, offset: usize, value: u16) {
        self.ordered(offset).store(value, Ordering::Release);
    }

    /// Reads a 16-bit value, without ordering.
    #[must_use]
    pub fn read_u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.read_array(offset))
    }

    /// Writes a 16-bit value, without ordering.
    pub fn write_u16(&self, offset: usize, value: u16) {
        self.write(offset, &value.to_le_bytes());
    }

    /// Reads a 64-bit value, without ordering.
    #[must_use]
    pub fn read_u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.read_array(offset))
    }

    /// Writes a 64-bit value, without ordering.
    pub fn write_u64(&self, offset: usize, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }

    /// Copies `N` bytes out of the window, without ordering.
    #[must_use]
    pub fn read_array<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes);
        bytes
    }

    /// Reads a 32-bit value, without ordering.
    #[must_use]
    pub fn read_u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Writes a 32-bit value, without ordering.
    pub fn write_u32(&self, offset: usize, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }

    /// Copies bytes out of the window, without ordering.
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        assert!(offset + to.len() <= self.len);
        for (i, byte) in to.iter_mut().enumerate() {
            let at = self.start + offset + i;
            // SAFETY: loom ends the test at a racing write, and keeps the place alive.
            *byte = self.memory.0[at / 2]
                .is(PLAIN)
                .plain
                .with(|bytes| unsafe { (*bytes)[at % 2] });
        }
    }

    /// Copies bytes into the window, without ordering.
    pub fn write(&self, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= self.len);
        for (i, byte) in from.iter().enumerate() {
            let at = self.start + offset + i;
            // SAFETY: loom ends the test at any racing access, and keeps the place alive.
            self.memory.0[at / 2]
                .is(PLAIN)
                .plain
                .with_mut(|bytes| unsafe { (*bytes)[at % 2] = *byte });
        }
    }
}

// SAFETY: loom watches every access to the plain units, and ends the test at a race.
unsafe impl Sync for Memory {}
// SAFETY: as for `Sync`.
unsafe impl Send for Memory {}
