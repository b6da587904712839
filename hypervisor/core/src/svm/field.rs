//! What a field of the VMCB is: a name, a place, a width, and whether software may write it.
//!
//! A VMCB is a page of memory, and any byte of it can be written. What only the processor writes has
//! no write here all the same: the type of a [`Field`] says so to the compiler.
//!
//! ```
//! use chiton_core::svm::{PlainVmcb, VmcbFields, VmcbWrite, fields::{EXITCODE, GUEST_ASID}};
//!
//! let mut vmcb = PlainVmcb::default();
//! vmcb.set(GUEST_ASID, 1_u32);
//! assert_eq!(vmcb.get(GUEST_ASID), 1);
//! assert_eq!(vmcb.get(EXITCODE), 0_u64);
//! ```
//! ```compile_fail,E0308
//! use chiton_core::svm::{PlainVmcb, VmcbWrite, fields::EXITCODE};
//!
//! PlainVmcb::default().set(EXITCODE, 0_u64); // read-only: expected `ReadWrite`
//! ```
//! ```compile_fail,E0308
//! use chiton_core::svm::{PlainVmcb, VmcbWrite, fields::GUEST_ASID};
//!
//! PlainVmcb::default().set(GUEST_ASID, 1_u64); // 32 bits: expected `u32`
//! ```

use core::fmt;
use core::marker::PhantomData;

/// Size of a VMCB, in bytes (APM volume 2, section 15.5.1).
pub const VMCB_SIZE: usize = 4096;

/// Where the state-save area begins (APM volume 2, appendix B).
pub const SAVE_AREA: u16 = 0x400;

/// What a field holds: `u8`, `u16`, `u32` or `u64`.
pub trait Value: Copy + Into<u64> {
    /// In bytes.
    const BYTES: u8;

    /// Takes the low bytes of a number.
    fn of(raw: u64) -> Self;
}

/// Declares what fields hold.
macro_rules! values {
    ($($value:ty),*) => {$(
        impl Value for $value {
            const BYTES: u8 = size_of::<$value>() as u8;

            #[allow(clippy::cast_possible_truncation, reason = "this is what is wanted")]
            fn of(raw: u64) -> Self {
                raw as Self
            }
        }
    )*};
}

values!(u8, u16, u32, u64);

/// A field that software writes.
#[derive(Clone, Copy, Debug)]
pub enum ReadWrite {}

/// A field that only the processor writes.
#[derive(Clone, Copy, Debug)]
pub enum ReadOnly {}

/// A field of the VMCB: `T` is what it holds, `A` who may write it.
pub struct Field<T, A> {
    offset: u16,
    name: &'static str,
    marker: PhantomData<(T, A)>,
}

impl<T, A> Clone for Field<T, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, A> Copy for Field<T, A> {}

impl<T: Value, A> Field<T, A> {
    /// A field by its place.
    ///
    /// # Panics
    ///
    /// When it is not aligned, or not in the page: at compile time, as all fields are constants.
    pub(super) const fn declare(offset: u16, name: &'static str) -> Self {
        assert!(
            offset.is_multiple_of(T::BYTES as u16),
            "a field is aligned to its width"
        );
        assert!(
            offset as usize + T::BYTES as usize <= VMCB_SIZE,
            "a field lies in the page"
        );
        Self {
            offset,
            name,
            marker: PhantomData,
        }
    }

    /// Where it begins, in bytes from the beginning of the VMCB.
    #[must_use]
    pub const fn offset(self) -> u16 {
        self.offset
    }

    /// Its name, as the APM has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The field without its type, for lists.
    #[must_use]
    pub const fn any(self) -> AnyField {
        AnyField {
            offset: self.offset,
            bytes: T::BYTES,
            name: self.name,
        }
    }
}

impl<T: Value, A> From<Field<T, A>> for AnyField {
    fn from(field: Field<T, A>) -> Self {
        field.any()
    }
}

/// A field whose type is known at run time only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnyField {
    /// Where it begins, in bytes from the beginning of the VMCB.
    pub offset: u16,
    /// How wide it is, in bytes.
    pub bytes: u8,
    /// Its name, as the APM has it.
    pub name: &'static str,
}

impl fmt::Display for AnyField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
