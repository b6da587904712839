//! EPTP switching: a guest changes among views of its memory without an exit (SDM volume 3C, section
//! 27.5.6.3).
//!
//! VMFUNC with EAX 0 takes entry ECX of a list of EPTPs that the hypervisor has made. Any other
//! function, or an entry that is none, exits.

use chiton_core::physical::{Pages, Physical};
use chiton_core::vmx::{NoSuchField, VmcsWrite, fields};

use crate::Error;

/// The VM function "EPTP switching", bit 0 of the VM-function controls.
pub(crate) const EPTP_SWITCHING: u64 = 1 << 0;

/// The views that a guest may choose among.
pub(crate) struct Views {
    list: Pages,
}

impl Views {
    /// A list of no more than 512 EPTPs, of which the first is the view that the guest begins with. An
    /// entry of zero is no EPTP, and exits.
    pub(crate) fn new(physical: &'static dyn Physical, eptps: &[u64]) -> Result<Self, Error> {
        let list = Pages::one(physical, "the EPTP list")?;
        for (entry, eptp) in eptps.iter().take(512).enumerate() {
            list.write_u64(entry * 8, *eptp);
        }
        Ok(Self { list })
    }

    /// Tells the VMCS of it.
    pub(crate) fn write(&self, vmcs: &mut impl VmcsWrite) -> Result<(), NoSuchField> {
        vmcs.set(fields::EPTP_LIST_ADDRESS, self.list.address())?;
        vmcs.set(fields::VM_FUNCTION_CONTROLS, EPTP_SWITCHING)
    }
}
