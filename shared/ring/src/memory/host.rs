//! Windows over real memory.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// What bulk copies move at a time, in bytes.
const WORD: usize = size_of::<u64>();

/// A bounded piece of memory shared with the other side.
#[derive(Clone, Copy, Debug)]
pub struct Window<'m> {
    start: NonNull<u8>,
    len: usize,
    memory: PhantomData<&'m core::cell::UnsafeCell<[u8]>>,
}

// SAFETY: a window allows nothing but atomic access to memory that is shared by intent; a racing
// writer yields a strange value, which every reader has to expect anyway.
unsafe impl Send for Window<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for Window<'_> {}

impl<'m> Window<'m> {
    /// The window of `len` bytes from `start` on.
    ///
    /// # Safety
    ///
    /// For the lifetime `'m`
    /// - the bytes must be readable and writable, and in one allocation;
    /// - nobody may hold a Rust reference to any of them;
    /// - whoever else accesses them does so through a window, or from outside this program (a
    ///   guest, a device, the kernel);
    /// - if two threads of this program access the same bytes with different widths, one of them
    ///   writing, something must order the two (as the ring protocol orders a driver's and a
    ///   device's), or the bytes must be memory that the language did not allocate, such as a
    ///   mapping shared with a guest.
    #[must_use]
    pub const unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self {
            start,
            len,
            memory: PhantomData,
        }
    }

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

    /// Where the window is in this program's address space, for a system call's `iovec`.
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Whether the window begins at a multiple of `alignment` in this program's address space.
    pub(crate) fn is_aligned(&self, alignment: usize) -> bool {
        self.start.addr().get().is_multiple_of(alignment)
    }

    /// The part of `len` bytes from `offset` on; `None` if it would reach beyond the end.
    #[must_use]
    pub fn part(&self, offset: usize, len: usize) -> Option<Window<'m>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: the part lies within this window (checked), whose promise holds for it.
        Some(unsafe { Window::new(self.start.add(offset), len) })
    }

    /// Address of an aligned `T` at `offset`.
    #[inline]
    fn place<T>(&self, offset: usize) -> *mut T {
        assert!(
            offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.len),
            "access at {offset} of a window of {} bytes",
            self.len
        );
        // SAFETY: in bounds, by the assertion.
        let place = unsafe { self.start.as_ptr().add(offset) }.cast::<T>();
        assert!(place.is_aligned(), "access at {offset} is not aligned");
        place
    }

    /// Reads a 16-bit little-endian value; what the other side wrote before it published the
    /// value is visible afterwards.
    ///
    /// # Panics
    ///
    /// If `offset` is not aligned or not within the window: the offset is the caller's own, never
    /// the other side's.
    #[inline]
    #[must_use]
    pub fn load_u16(&self, offset: usize) -> u16 {
        // SAFETY: in bounds and aligned (`place`), valid for `'m`, and accessed only atomically or
        // from outside the program (`new`).
        let cell = unsafe { AtomicU16::from_ptr(self.place(offset)) };
        u16::from_le(cell.load(Ordering::Acquire))
    }

    /// Publishes a 16-bit little-endian value, and everything written before it.
    ///
    /// # Panics
    ///
    /// As [`load_u16`](Self::load_u16).
    #[inline]
    pub fn store_u16(&self, offset: usize, value: u16) {
        // SAFETY: as in `load_u16`.
        let cell = unsafe { AtomicU16::from_ptr(self.place(offset)) };
        cell.store(value.to_le(), Ordering::Release);
    }

    /// Reads a 16-bit little-endian value, without ordering.
    ///
    /// # Panics
    ///
    /// As [`load_u16`](Self::load_u16).
    #[inline]
    #[must_use]
    pub fn read_u16(&self, offset: usize) -> u16 {
        // SAFETY: as in `load_u16`.
        let cell = unsafe { AtomicU16::from_ptr(self.place(offset)) };
        u16::from_le(cell.load(Ordering::Relaxed))
    }

    /// Writes a 16-bit little-endian value, without ordering.
    ///
    /// # Panics
    ///
    /// As [`load_u16`](Self::load_u16).
    #[inline]
    pub fn write_u16(&self, offset: usize, value: u16) {
        // SAFETY: as in `load_u16`.
        let cell = unsafe { AtomicU16::from_ptr(self.place(offset)) };
        cell.store(value.to_le(), Ordering::Relaxed);
    }

    /// Reads a 64-bit little-endian value, without ordering.
    ///
    /// # Panics
    ///
    /// As [`load_u16`](Self::load_u16).
    #[inline]
    #[must_use]
    pub fn read_u64(&self, offset: usize) -> u64 {
        // SAFETY: as in `load_u16`.
        let cell = unsafe { AtomicU64::from_ptr(self.place(offset)) };
        u64::from_le(cell.load(Ordering::Relaxed))
    }

    /// Writes a 64-bit little-endian value, without ordering.
    ///
    /// # Panics
    ///
    /// As [`load_u16`](Self::load_u16).
    #[inline]
    pub fn write_u64(&self, offset: usize, value: u64) {
        // SAFETY: as in `load_u16`.
        let cell = unsafe { AtomicU64::from_ptr(self.place(offset)) };
        cell.store(value.to_le(), Ordering::Relaxed);
    }

    /// Copies `N` bytes out of the window, without ordering; fast where they are aligned words.
    ///
    /// # Panics
    ///
    /// If the window is shorter than `offset + N`.
    #[inline]
    #[must_use]
    pub fn read_array<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        if offset.is_multiple_of(WORD) && N.is_multiple_of(WORD) && self.is_aligned(WORD) {
            for (i, word) in bytes.as_chunks_mut::<WORD>().0.iter_mut().enumerate() {
                *word = self.read_u64(offset + i * WORD).to_le_bytes();
            }
        } else {
            self.read(offset, &mut bytes);
        }
        bytes
    }

    /// Reads a 32-bit little-endian value, without ordering.
    ///
    /// # Panics
    ///
    /// As [`load_u16`](Self::load_u16).
    #[inline]
    #[must_use]
    pub fn read_u32(&self, offset: usize) -> u32 {
        // SAFETY: as in `load_u16`.
        let cell = unsafe { AtomicU32::from_ptr(self.place(offset)) };
        u32::from_le(cell.load(Ordering::Relaxed))
    }

    /// Writes a 32-bit little-endian value, without ordering.
    ///
    /// # Panics
    ///
    /// As [`load_u16`](Self::load_u16).
    #[inline]
    pub fn write_u32(&self, offset: usize, value: u32) {
        // SAFETY: as in `load_u16`.
        let cell = unsafe { AtomicU32::from_ptr(self.place(offset)) };
        cell.store(value.to_le(), Ordering::Relaxed);
    }

    /// Copies bytes out of the window, as many as `to` holds, without ordering.
    ///
    /// # Panics
    ///
    /// If the window is shorter than `offset + to.len()`.
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        let from = self.part(offset, to.len()).expect("a read within the window");
        let (head, rest) = to.split_at_mut(from.bytes_before_word());
        let words = head.len();
        let (rest, tail) = rest.as_chunks_mut::<WORD>();
        let end = words + rest.len() * WORD;
        for (i, byte) in head.iter_mut().enumerate() {
            *byte = from.byte(i).load(Ordering::Relaxed);
        }
        for (i, word) in rest.iter_mut().enumerate() {
            *word = from.word(words + i * WORD).load(Ordering::Relaxed).to_ne_bytes();
        }
        for (i, byte) in tail.iter_mut().enumerate() {
            *byte = from.byte(end + i).load(Ordering::Relaxed);
        }
    }

    /// Copies bytes into the window, without ordering.
    ///
    /// # Panics
    ///
    /// If the window is shorter than `offset + from.len()`.
    pub fn write(&self, offset: usize, from: &[u8]) {
        let to = self.part(offset, from.len()).expect("a write within the window");
        let (head, rest) = from.split_at(to.bytes_before_word());
        let words = head.len();
        let (rest, tail) = rest.as_chunks::<WORD>();
        let end = words + rest.len() * WORD;
        for (i, byte) in head.iter().enumerate() {
            to.byte(i).store(*byte, Ordering::Relaxed);
        }
        for (i, word) in rest.iter().enumerate() {
            to.word(words + i * WORD)
                .store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        }
        for (i, byte) in tail.iter().enumerate() {
            to.byte(end + i).store(*byte, Ordering::Relaxed);
        }
    }

    /// How many bytes come before the first aligned word, or before the end.
    fn bytes_before_word(&self) -> usize {
        self.start.align_offset(WORD).min(self.len)
    }

    #[inline]
    fn byte(&self, offset: usize) -> &AtomicU8 {
        debug_assert!(offset < self.len);
        // SAFETY: `read` and `write` stay within the window; the rest as in `load_u16`.
        unsafe { AtomicU8::from_ptr(self.start.as_ptr().add(offset)) }
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset + WORD <= self.len);
        // SAFETY: `read` and `write` stay within the window and begin where it is aligned
        // (`bytes_before_word`); the rest as in `load_u16`.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 48;
    /// What is compared is compared at one go: Miri is slow with each step.
    const BYTES: [u8; LEN] = {
        let mut bytes = [0; LEN];
        let mut at = 0;
        while at < LEN {
            bytes[at] = at as u8;
            at += 1;
        }
        bytes
    };

    #[repr(align(16))]
    struct Aligned(core::cell::UnsafeCell<[u8; LEN]>);

    impl Aligned {
        fn new() -> Self {
            Self(core::cell::UnsafeCell::new(BYTES))
        }

        fn window(&self) -> Window<'_> {
            // SAFETY: the bytes live as long as `self`, and only the window reaches them.
            unsafe { Window::new(NonNull::new_unchecked(self.0.get().cast()), LEN) }
        }
    }

    #[test]
    fn a_copy_of_any_length_from_any_place_is_exact() {
        let memory = Aligned::new();
        for offset in 0..if cfg!(miri) { 9 } else { LEN } {
            let most = LEN - offset;
            for len in (0..=most).filter(|len| !cfg!(miri) || *len < 18 || *len == most) {
                let mut copy = vec![0xEE; len];
                memory.window().read(offset, &mut copy);
                assert!(copy == BYTES[offset..offset + len]);
            }
        }
    }

    #[test]
    fn a_write_changes_exactly_its_own_bytes() {
        for offset in 0..if cfg!(miri) { 9 } else { LEN } {
            for len in [0, 1, 7, 8, 9, 16, 17, 31] {
                let memory = Aligned::new();
                let window = memory.window();
                if offset + len > LEN {
                    assert!(window.part(offset, len).is_none());
                    continue;
                }
                window.write(offset, &vec![0xEE; len]);
                let mut all = [0; LEN];
                window.read(0, &mut all);
                let mut expected = BYTES;
                expected[offset..offset + len].fill(0xEE);
                assert_eq!(all, expected);
            }
        }
    }

    #[test]
    fn numbers_are_little_endian() {
        let memory = Aligned::new();
        let window = memory.window();
        assert_eq!(window.load_u16(2), 0x0302);
        assert_eq!(window.read_u32(4), 0x0706_0504);
        window.store_u16(0, 0xABCD);
        window.write_u32(8, 0x1234_5678);
        let mut bytes = [0; 12];
        window.read(0, &mut bytes);
        assert_eq!(bytes, [0xCD, 0xAB, 2, 3, 4, 5, 6, 7, 0x78, 0x56, 0x34, 0x12]);
    }

    #[test]
    fn a_part_never_reaches_beyond_its_window() {
        let memory = Aligned::new();
        let window = memory.window();
        assert_eq!(window.part(8, 8).map(|part| part.load_u16(0)), Some(0x0908));
        assert!(window.part(LEN, 0).is_some_and(|part| part.is_empty()));
        assert!(window.part(LEN, 1).is_none());
        assert!(window.part(usize::MAX, 2).is_none());
    }

    #[test]
    #[should_panic(expected = "not aligned")]
    fn an_offset_of_the_caller_that_is_not_aligned_is_a_bug() {
        let _ = Aligned::new().window().load_u16(1);
    }
}
