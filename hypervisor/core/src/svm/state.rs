//! Reading and writing a VMCB, whoever keeps it: the processor, or a test.

use alloc::boxed::Box;

use super::clean;
use super::exit::Code;
use super::field::{Field, ReadWrite, VMCB_SIZE, Value};
use super::fields::{EXITCODE, FETCHED_BYTES, FETCHED_COUNT, FETCHED_MAX, SegmentFields, VMCB_CLEAN};
use crate::vcpu::Segment;

/// A VMCB that can be read: a live one, or a copy.
pub trait VmcbRead {
    /// The little-endian number of so many bytes, 1, 2, 4 or 8, at an offset that is a multiple of
    /// that and in the page.
    fn read(&self, offset: u16, bytes: u8) -> u64;
}

/// The fields of a VMCB by their names.
pub trait VmcbFields: VmcbRead {
    /// A field by its name.
    #[must_use]
    fn get<T: Value, A>(&self, field: Field<T, A>) -> T {
        T::of(self.read(field.offset(), T::BYTES))
    }

    /// A segment register.
    #[must_use]
    fn segment(&self, fields: SegmentFields) -> Segment {
        Segment {
            selector: self.get(fields.selector),
            base: self.get(fields.base),
            limit: self.get(fields.limit),
            access: access_of(self.get(fields.attributes)),
        }
    }

    /// The bytes of the instruction that the processor has fetched, and how many there are: none
    /// without DecodeAssists, and none at an exit but a nested page fault, after which those of an earlier one may still be
    /// there (APM volume 2, section 15.8.4).
    #[must_use]
    fn fetched(&self) -> ([u8; FETCHED_MAX], usize) {
        let mut bytes = [0; FETCHED_MAX];
        if Code::of(self.get(EXITCODE)) != Code::NPF {
            return (bytes, 0);
        }
        for (offset, byte) in (FETCHED_BYTES..).zip(&mut bytes) {
            *byte = self.read(offset, 1) as u8;
        }
        (bytes, usize::from(self.get(FETCHED_COUNT)).min(FETCHED_MAX))
    }
}

impl<V: VmcbRead + ?Sized> VmcbFields for V {}

/// A VMCB that can be written.
pub trait VmcbWrite: VmcbRead {
    /// Writes the low bytes of a number, as [`read`](VmcbRead::read) reads them.
    fn write(&mut self, offset: u16, bytes: u8, value: u64);

    /// Writes a field by its name. What the processor may keep of a VMCB is then marked as
    /// changed, where that field belongs to it.
    fn set<T: Value>(&mut self, field: Field<T, ReadWrite>, value: T)
    where
        Self: Sized,
    {
        self.write(field.offset(), T::BYTES, value.into());
        let changed = clean::group(field.offset());
        if changed != 0 {
            let clean = self.get(VMCB_CLEAN) & !changed;
            self.write(VMCB_CLEAN.offset(), u32::BYTES, clean.into());
        }
    }

    /// Writes a segment register.
    fn set_segment(&mut self, fields: SegmentFields, segment: &Segment)
    where
        Self: Sized,
    {
        self.set(fields.selector, segment.selector);
        self.set(fields.attributes, attributes_of(segment.access));
        self.set(fields.limit, segment.limit);
        self.set(fields.base, segment.base);
    }
}

/// Access rights, which have the descriptor's gap of four bits, as the VMCB has them: without it.
const fn attributes_of(access: u16) -> u16 {
    access & 0xff | access >> 4 & 0xf00
}

/// The other way round.
const fn access_of(attributes: u16) -> u16 {
    attributes & 0xff | (attributes & 0xf00) << 4
}

/// A VMCB that no processor keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainVmcb(Box<[u8; VMCB_SIZE]>);

impl Default for PlainVmcb {
    fn default() -> Self {
        Self(Box::new([0; VMCB_SIZE]))
    }
}

impl PlainVmcb {
    /// A copy of another.
    #[must_use]
    pub fn copy(other: &dyn VmcbRead) -> Self {
        let mut copy = Self::default();
        for offset in (0..VMCB_SIZE as u16).step_by(8) {
            copy.write(offset, 8, other.read(offset, 8));
        }
        copy
    }

    /// Sets any field, as the processor does at an exit: also those that no software may write.
    #[must_use]
    pub fn with<T: Value, A>(mut self, field: Field<T, A>, value: T) -> Self {
        self.write(field.offset(), T::BYTES, value.into());
        self
    }
}

impl VmcbRead for PlainVmcb {
    fn read(&self, offset: u16, bytes: u8) -> u64 {
        let mut value = [0; 8];
        let (offset, bytes) = (usize::from(offset), usize::from(bytes));
        value[..bytes].copy_from_slice(&self.0[offset..offset + bytes]);
        u64::from_le_bytes(value)
    }
}

impl VmcbWrite for PlainVmcb {
    fn write(&mut self, offset: u16, bytes: u8, value: u64) {
        let (offset, bytes) = (usize::from(offset), usize::from(bytes));
        self.0[offset..offset + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_an_instruction_are_those_of_the_nested_page_fault() {
        let mut vmcb = PlainVmcb::default().with(EXITCODE, Code::NPF.0).with(FETCHED_COUNT, 2);
        vmcb.write(FETCHED_BYTES + 1, 1, 0x88);
        vmcb.write(FETCHED_BYTES, 1, 0xf3);
        let (bytes, len) = vmcb.fetched();
        assert_eq!(bytes[..len], [0xf3, 0x88]);
        assert_eq!(
            vmcb.with(EXITCODE, Code::CPUID.0).fetched().1,
            0,
            "they were left by the fault before"
        );
    }
}
