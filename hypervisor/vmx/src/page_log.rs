//! Page-modification logging: which pages a guest has written to (SDM volume 3C, section 30.3.6).
//!
//! Whenever the processor sets the dirty flag of an EPT entry, it writes the guest-physical address of
//! the page into a log of 512 entries, from the last down, and exits when the log is full. A page is
//! logged once, until its dirty flag is cleared.

use alloc::vec::Vec;

use chiton_core::physical::{Pages, Physical};
use chiton_core::vmx::{NoSuchField, VmcsFields, VmcsWrite, fields};

use crate::Error;

/// The entry that is written first.
const FIRST: u16 = 511;

/// The log of a guest.
pub(crate) struct PageLog {
    page: Pages,
    pages: Vec<u64>,
}

impl PageLog {
    pub(crate) fn new(physical: &'static dyn Physical) -> Result<Self, Error> {
        Ok(Self {
            page: Pages::one(physical, "the page-modification log")?,
            pages: Vec::new(),
        })
    }

    /// Tells the VMCS of it.
    pub(crate) fn write(&self, vmcs: &mut impl VmcsWrite) -> Result<(), NoSuchField> {
        vmcs.set(fields::PML_ADDRESS, self.page.address())?;
        vmcs.set(fields::PML_INDEX, FIRST)
    }

    /// Takes what the processor has written, and lets it begin anew.
    pub(crate) fn drain(&mut self, vmcs: &mut (impl VmcsFields + VmcsWrite)) -> Result<(), NoSuchField> {
        // The index is that of the entry to be written next; below 0 it is 0xffff.
        let next = vmcs.get(fields::PML_INDEX);
        let last = if next > FIRST { 0 } else { next + 1 };
        for entry in (last..=FIRST).rev() {
            // Bits 11:0 are zero; Bochs leaves those of the write in them.
            self.pages.push(self.page.read_u64(usize::from(entry) * 8) & !0xfff);
        }
        vmcs.set(fields::PML_INDEX, FIRST)
    }

    /// The pages so far, in the order in which they were first written to; they are forgotten.
    pub(crate) fn take(&mut self) -> Vec<u64> {
        core::mem::take(&mut self.pages)
    }
}
