//! Ways to break a VMCS: for each rule at least one change that breaks it, and a sweep through the
//! fields, bit by bit.
//!
//! They are applied to a VMCS that is good. On the host they prove that each rule finds what it is
//! there for and nothing else; on a machine with VMX, that the processor's verdict is the same.

mod sweep;
mod table;

use alloc::string::String;
use alloc::vec::Vec;

pub use sweep::{LEFT_OUT, sweep};
pub use table::cases;

use crate::vmx::field::AnyField;
use crate::vmx::{NoSuchField, VmcsWrite};

/// A change of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The field.
    pub field: AnyField,
    /// What becomes of it.
    pub to: To,
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// A value.
    Value(u64),
    /// These bits become 1.
    Set(u64),
    /// These bits become 0.
    Clear(u64),
    /// The address of the scratch page, plus a number of bytes.
    Scratch(u64),
    /// The address of the VMCS itself.
    Itself,
}

/// One way to break a VMCS, or not to.
#[derive(Clone, Debug)]
pub struct Case {
    /// The rule that it is meant to break; none for a case of the sweep.
    pub rule: Option<&'static str>,
    /// Rules that break with it, inevitably.
    pub also: &'static [&'static str],
    /// What is done, in words.
    pub name: String,
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// What stands in the scratch page, by byte: 8 bytes each, at multiples of 8. The rest is zero.
    pub memory: &'static [(u64, u64)],
}

impl Case {
    /// Applies the changes.
    ///
    /// # Errors
    ///
    /// When the VMCS has none of a field, or one is to hold where the VMCS is and that is not known; then the case
    /// cannot be tried there. Changes before that have been made.
    pub fn apply(&self, vmcs: &mut dyn VmcsWrite, scratch: u64) -> Result<(), NoSuchField> {
        for change in &self.changes {
            let encoding = change.field.encoding;
            let now = vmcs.read(encoding).ok_or(NoSuchField(encoding))?;
            let value = match change.to {
                To::Value(value) => value,
                To::Set(bits) => now | bits,
                To::Clear(bits) => now & !bits,
                To::Scratch(offset) => scratch + offset,
                To::Itself => vmcs.region().ok_or(NoSuchField(encoding))?,
            };
            vmcs.write(encoding, value & encoding.size().mask())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
