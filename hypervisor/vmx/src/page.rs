//! A page of the machine that the processor itself reads or writes: VMXON region, VMCS, bitmaps.

use chiton_core::physical::Physical;

use crate::Error;

/// Size of a page, in bytes.
pub(crate) const SIZE: usize = 4096;

/// A page of its own, given back at the end.
pub(crate) struct Page {
    physical: &'static dyn Physical,
    address: u64,
}

impl Page {
    /// A zeroed page; `what` it is for is said when there is none.
    pub(crate) fn new(physical: &'static dyn Physical, what: &'static str) -> Result<Self, Error> {
        let address = physical.allocate().ok_or(Error::NoMemory(what))?;
        Ok(Self { physical, address })
    }

    /// A page with the same byte everywhere.
    pub(crate) fn filled(physical: &'static dyn Physical, what: &'static str, byte: u8) -> Result<Self, Error> {
        let page = Self::new(physical, what)?;
        // SAFETY: the page is mapped there, is this value's own, and no reference to it exists.
        unsafe { page.pointer().write_bytes(byte, SIZE) };
        Ok(page)
    }

    /// Its physical address.
    pub(crate) const fn address(&self) -> u64 {
        self.address
    }

    /// Where it is mapped.
    pub(crate) fn pointer(&self) -> *mut u8 {
        self.physical.pointer(self.address)
    }

    /// Writes the 32 bits at an offset.
    ///
    /// # Panics
    ///
    /// When they are not an aligned word of the page.
    pub(crate) fn write_u32(&self, offset: usize, value: u32) {
        assert!(offset.is_multiple_of(4) && offset < SIZE);
        // SAFETY: within the page, aligned (checked), and volatile since the processor reads it.
        unsafe { self.pointer().add(offset).cast::<u32>().write_volatile(value) }
    }

    /// Writes the 64 bits at an offset.
    ///
    /// # Panics
    ///
    /// As [`write_u32`](Self::write_u32).
    pub(crate) fn write_u64(&self, offset: usize, value: u64) {
        assert!(offset.is_multiple_of(8) && offset < SIZE);
        // SAFETY: as for `write_u32`.
        unsafe { self.pointer().add(offset).cast::<u64>().write_volatile(value) }
    }

    /// Reads the 64 bits at an offset.
    ///
    /// # Panics
    ///
    /// As [`write_u32`](Self::write_u32).
    pub(crate) fn read_u64(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8) && offset < SIZE);
        // SAFETY: as for `write_u32`.
        unsafe { self.pointer().add(offset).cast::<u64>().read_volatile() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.physical.release(self.address);
    }
}
