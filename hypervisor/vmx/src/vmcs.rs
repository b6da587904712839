//! The VMCS of a vCPU, where the processor keeps it.
//!
//! A VMCS is a page that only the processor reads and writes. VMREAD and VMWRITE work on the
//! *current* one, and launching differs from resuming; this value keeps track of both.
//!
//! ```text
//!   Page ── revision, VMCLEAR ──▶ clear ── VMPTRLD ──▶ current ── VMLAUNCH ──▶ launched
//!                                   ▲                                             │
//!                                   └────────────────── VMCLEAR ◀─────────────────┘
//! ```

use alloc::rc::Rc;

use chiton_core::physical::Pages;
use chiton_core::vmx::field::Encoding;
use chiton_core::vmx::fields::VM_INSTRUCTION_ERROR;
use chiton_core::vmx::{NoSuchField, VmcsRead, VmcsWrite};

use crate::enable::Processor;
use crate::instructions::{self, Failed};
use crate::{Error, vmcs};

/// A VMCS of this processor.
pub(crate) struct Vmcs {
    region: Pages,
    processor: Rc<Processor>,
    /// Whether it has been launched since it was cleared: then it is to be resumed.
    pub(crate) launched: bool,
}

impl Vmcs {
    /// A VMCS that is clear; it becomes the current one.
    pub(crate) fn new(processor: Rc<Processor>) -> Result<Self, Error> {
        let region = Pages::one(processor.physical, "a VMCS")?;
        region.write_u32(0, processor.capabilities.basic.revision());
        let mut vmcs = Self {
            region,
            processor,
            launched: false,
        };
        vmcs.clear()?;
        vmcs.make_current()?;
        Ok(vmcs)
    }

    /// VMCLEAR, which also begins the life of a VMCS (SDM volume 3C, section 26.11.3).
    fn clear(&mut self) -> Result<(), Error> {
        let address = self.region.address();
        // SAFETY: VMCLEAR (SDM volume 3C, chapter 32) is undefined outside VMX operation, and writes to the region:
        // this value exists in VMX operation alone, and the region is its own.
        unsafe { instructions::vmclear(address) }.map_err(|failed| vmcs::failure("VMCLEAR", failed))?;
        self.launched = false;
        if self.processor.current.get() == address {
            self.processor.current.set(0);
        }
        Ok(())
    }

    /// Makes it the VMCS that the processor works on.
    pub(crate) fn make_current(&self) -> Result<(), Error> {
        let address = self.region.address();
        if self.processor.current.get() != address {
            // SAFETY: as for `clear`. No VMCS may be active on two processors (SDM volume 3C, section 26.11); a vCPU
            // stays on its processor.
            unsafe { instructions::vmptrld(address) }.map_err(|failed| vmcs::failure("VMPTRLD", failed))?;
            self.processor.current.set(address);
        }
        Ok(())
    }
}

impl VmcsRead for Vmcs {
    fn read(&self, encoding: Encoding) -> Option<u64> {
        debug_assert_eq!(self.processor.current.get(), self.region.address());
        // SAFETY: VMREAD (SDM volume 3C, chapter 32) is undefined outside VMX operation, where this value does not
        // exist; of a field that the processor has not, it fails.
        unsafe { instructions::vmread(encoding.number()) }.ok()
    }

    fn region(&self) -> Option<u64> {
        Some(self.region.address())
    }
}

impl VmcsWrite for Vmcs {
    fn write(&mut self, encoding: Encoding, value: u64) -> Result<(), NoSuchField> {
        debug_assert_eq!(self.processor.current.get(), self.region.address());
        // SAFETY: VMWRITE (SDM volume 3C, chapter 32) is undefined outside VMX operation, where this value does not
        // exist. A VM exit loads the host-state fields (section 26.5): `setup::host` writes them, with what this
        // processor has, and so do cases that break them so that no processor loads them; whatever else a field holds
        // is about the guest, or is refused by VM entry.
        unsafe { instructions::vmwrite(encoding.number(), value) }.map_err(|_| NoSuchField(encoding))
    }
}

impl Drop for Vmcs {
    /// The processor must forget the page before somebody else gets it.
    fn drop(&mut self) {
        // A failure would mean that the page is no VMCS; there is nobody to tell.
        let _ = self.clear();
    }
}

/// What a VMX instruction says of its failure: by the flag, and by the number in the current VMCS.
pub(crate) fn failure(instruction: &'static str, failed: Failed) -> Error {
    let number = match failed {
        Failed::Invalid => None,
        // SAFETY: VMfailValid comes in VMX operation alone, and means that there is a current VMCS (SDM volume 3C,
        // section 32.2), which is all that VMREAD wants.
        Failed::Valid => unsafe { instructions::vmread(VM_INSTRUCTION_ERROR.encoding().number()) }.ok(),
    };
    Error::Instruction {
        instruction,
        failed,
        number: number.map(|number| number as u32),
    }
}
