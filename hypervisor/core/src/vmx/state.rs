//! Reading and writing a VMCS, whoever keeps it: the processor, or a test.

use alloc::collections::BTreeMap;

use super::field::{Encoding, Field, ReadWrite, Width};
use super::fields;

/// A field that this processor does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this processor's VMCS has no field {:#x}{}", .0.number(), Named(*.0))]
pub struct NoSuchField(pub Encoding);

/// The name of a field, in brackets, if it is one of the SDM's.
struct Named(Encoding);

impl core::fmt::Display for Named {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match fields::find(self.0) {
            Some(field) => write!(f, " ({field})"),
            None => Ok(()),
        }
    }
}

/// A VMCS that can be read: the current one of this processor, or a copy.
pub trait VmcsRead {
    /// A field by its encoding; `None` when there is no such field.
    fn read(&self, encoding: Encoding) -> Option<u64>;

    /// Where in physical memory it is, if it is known.
    fn region(&self) -> Option<u64> {
        None
    }
}

/// Reading a field by its name, of any VMCS that can be read.
pub trait VmcsFields: VmcsRead {
    /// A field by its name; zero where the processor has none, as if its feature were off.
    fn get<W: Width, A>(&self, field: Field<W, A>) -> W::Value {
        W::of(self.read(field.encoding()).unwrap_or(0))
    }
}

impl<V: VmcsRead + ?Sized> VmcsFields for V {}

/// A VMCS that can be written.
pub trait VmcsWrite: VmcsRead {
    /// Writes a field by its encoding.
    ///
    /// # Errors
    ///
    /// When there is no such field, or it is read-only and this processor does not let it be written.
    fn write(&mut self, encoding: Encoding, value: u64) -> Result<(), NoSuchField>;

    /// Writes a field by its name.
    ///
    /// # Errors
    ///
    /// When the processor has no such field.
    fn set<W: Width>(&mut self, field: Field<W, ReadWrite>, value: W::Value) -> Result<(), NoSuchField>
    where
        Self: Sized,
    {
        self.write(field.encoding(), value.into())
    }
}

/// A VMCS that no processor keeps: a map of fields. One that was never written reads as zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlainVmcs(BTreeMap<Encoding, u64>);

impl PlainVmcs {
    /// A copy of all fields that `other` has.
    #[must_use]
    pub fn copy(other: &dyn VmcsRead) -> Self {
        Self(
            fields::all()
                .filter_map(|field| Some((field.encoding, other.read(field.encoding)?)))
                .collect(),
        )
    }

    /// Sets any field, as the processor does at an exit: also those that no software may write.
    #[must_use]
    pub fn with<W: Width, A>(mut self, field: Field<W, A>, value: W::Value) -> Self {
        self.0.insert(field.encoding(), value.into());
        self
    }
}

impl VmcsRead for PlainVmcs {
    fn read(&self, encoding: Encoding) -> Option<u64> {
        fields::find(encoding)?;
        Some(self.0.get(&encoding).copied().unwrap_or(0))
    }
}

impl VmcsWrite for PlainVmcs {
    fn write(&mut self, encoding: Encoding, value: u64) -> Result<(), NoSuchField> {
        let field = fields::find(encoding)
            .filter(|field| field.is_writable())
            .ok_or(NoSuchField(encoding))?;
        self.0.insert(encoding, value & field.encoding.size().mask());
        Ok(())
    }
}
