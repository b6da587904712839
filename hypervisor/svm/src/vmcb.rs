//! The VMCB as the processor has it: a page of memory that VMRUN reads, and an exit writes.

use chiton_core::physical::{Pages, Physical};
use chiton_core::svm::{VmcbRead, VmcbWrite};

use crate::Error;

/// The VMCB of a guest, or a page for what VMSAVE saves of the host.
pub(crate) struct Vmcb(Pages);

impl Vmcb {
    /// Full of zeroes.
    pub(crate) fn new(physical: &'static dyn Physical) -> Result<Self, Error> {
        Ok(Self(Pages::one(physical, "a VMCB")?))
    }

    /// Its physical address.
    pub(crate) const fn address(&self) -> u64 {
        self.0.address()
    }
}

impl VmcbRead for Vmcb {
    fn read(&self, offset: u16, bytes: u8) -> u64 {
        let offset = usize::from(offset);
        // SAFETY: `at` has checked place and alignment; the page is this value's own, and volatile
        // accesses say that the processor writes it too.
        unsafe {
            match bytes {
                1 => self.0.at::<u8>(offset).read_volatile().into(),
                2 => self.0.at::<u16>(offset).read_volatile().into(),
                4 => self.0.at::<u32>(offset).read_volatile().into(),
                _ => self.0.at::<u64>(offset).read_volatile(),
            }
        }
    }
}

impl VmcbWrite for Vmcb {
    #[allow(clippy::cast_possible_truncation, reason = "only the low bytes are meant")]
    fn write(&mut self, offset: u16, bytes: u8, value: u64) {
        let offset = usize::from(offset);
        // SAFETY: as for `read`. What a field makes the processor do is for whoever sets it; no
        // field can make it write memory but the guest's, through nested tables.
        unsafe {
            match bytes {
                1 => self.0.at::<u8>(offset).write_volatile(value as u8),
                2 => self.0.at::<u16>(offset).write_volatile(value as u16),
                4 => self.0.at::<u32>(offset).write_volatile(value as u32),
                _ => self.0.at::<u64>(offset).write_volatile(value),
            }
        }
    }
}
