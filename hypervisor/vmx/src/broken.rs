//! A VMCS that is broken on purpose, to be seen: one case of the entry checker's table, put into the VMCS of a guest.

use alloc::string::ToString;

use chiton_core::physical::{Pages, Physical};
use chiton_core::vmx::VmcsWrite;
use chiton_core::vmx::check::cases::{Case, cases};

use crate::Error;

/// A case, and the page that its fields may lead to.
pub(crate) struct Broken {
    case: Case,
    scratch: Pages,
}

impl Broken {
    /// The case of this name.
    pub(crate) fn of(name: &str, physical: &'static dyn Physical) -> Result<Self, Error> {
        let case = cases().into_iter().find(|case| case.name == name);
        let case = case.ok_or_else(|| Error::NoCase(name.to_string()))?;
        let scratch = Pages::one(physical, "the page that a broken VMCS leads to")?;
        for (offset, bytes) in case.memory {
            scratch.write_u64(*offset as usize, *bytes);
        }
        Ok(Self { case, scratch })
    }

    /// Breaks a VMCS.
    pub(crate) fn apply(&self, vmcs: &mut dyn VmcsWrite) -> Result<(), Error> {
        Ok(self.case.apply(vmcs, self.scratch.address())?)
    }
}
