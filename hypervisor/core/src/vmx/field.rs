//! What a field of the VMCS is: a name, a width, and whether software may write it.
//!
//! The encoding that VMREAD and VMWRITE take says all of that itself (SDM volume 3C, section 26.11.2):
//!
//! ```text
//! 31      15 14  13  12  11  10  9        1   0
//! ┌─────────┬──────┬────┬──────┬──────────┬──────┐
//! │    0    │width │ 0  │ kind │  index   │ high │
//! └─────────┴──────┴────┴──────┴──────────┴──────┘
//! ```
//!
//! The type of a [`Field`] says it to the compiler. A value of the wrong width does not fit, and what
//! the processor alone writes cannot be written:
//!
//! ```
//! use chiton_core::vmx::{PlainVmcs, VmcsFields, VmcsWrite, fields::{GUEST_CS_SELECTOR, EXIT_REASON}};
//!
//! let mut vmcs = PlainVmcs::default();
//! vmcs.set(GUEST_CS_SELECTOR, 0x08_u16)?;
//! assert_eq!(vmcs.get(GUEST_CS_SELECTOR), 8);
//! assert_eq!(vmcs.get(EXIT_REASON), 0_u32);
//! # Ok::<(), chiton_core::vmx::NoSuchField>(())
//! ```
//! ```compile_fail,E0308
//! use chiton_core::vmx::{PlainVmcs, VmcsWrite, fields::EXIT_REASON};
//!
//! PlainVmcs::default().set(EXIT_REASON, 0_u32); // read-only: expected `ReadWrite`
//! ```
//! ```compile_fail,E0308
//! use chiton_core::vmx::{PlainVmcs, VmcsWrite, fields::GUEST_CS_SELECTOR};
//!
//! PlainVmcs::default().set(GUEST_CS_SELECTOR, 0x08_u32); // 16 bits: expected `u16`
//! ```

use core::fmt;
use core::marker::PhantomData;

/// How wide a field is (SDM volume 3C, section 26.11.2, bits 14:13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the widths' own names")]
pub enum Size {
    Bits16 = 0,
    Bits64 = 1,
    Bits32 = 2,
    /// 64 bits on a processor that supports Intel 64 architecture, 32 on others.
    Natural = 3,
}

impl Size {
    /// The bits that a field of this width has.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Self::Bits16 => 0xffff,
            Self::Bits32 => 0xffff_ffff,
            Self::Bits64 | Self::Natural => u64::MAX,
        }
    }

    /// How many hexadecimal digits show it.
    #[must_use]
    pub const fn digits(self) -> usize {
        match self {
            Self::Bits16 => 4,
            Self::Bits32 => 8,
            Self::Bits64 | Self::Natural => 16,
        }
    }
}

/// To which part of the VMCS a field belongs (SDM volume 3C, section 26.11.2, bits 11:10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Controls of execution, VM exits and VM entries.
    Control = 0,
    /// What a VM exit leaves: read-only data.
    Information = 1,
    /// The guest-state area.
    Guest = 2,
    /// The host-state area.
    Host = 3,
}

/// The number of a field, as VMREAD and VMWRITE take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Encoding(u32);

impl Encoding {
    /// An encoding by its number, which may be that of no field.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// How wide the field is.
    #[must_use]
    pub const fn size(self) -> Size {
        match self.0 >> 13 & 3 {
            0 => Size::Bits16,
            1 => Size::Bits64,
            2 => Size::Bits32,
            _ => Size::Natural,
        }
    }

    /// Where the field belongs.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self.0 >> 10 & 3 {
            0 => Kind::Control,
            1 => Kind::Information,
            2 => Kind::Guest,
            _ => Kind::Host,
        }
    }

    /// Which field of its width and kind.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 >> 1 & 0x1ff
    }

    /// Whether this is the upper half of a 64-bit field, for processors that can only take 32 bits at
    /// a time. No name here has one: these processors are not for us.
    #[must_use]
    pub const fn is_high(self) -> bool {
        self.0 & 1 != 0
    }
}

/// The width of a field as a type.
pub trait Width {
    /// What a field of this width holds.
    type Value: Copy + Into<u64>;
    /// The width as a value.
    const SIZE: Size;

    /// Takes what VMREAD gave, which has no more bits than the field.
    fn of(raw: u64) -> Self::Value;
}

/// Declares the widths.
macro_rules! widths {
    ($($(#[$doc:meta])* $name:ident = $value:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}

        impl Width for $name {
            type Value = $value;
            const SIZE: Size = Size::$name;

            #[allow(clippy::cast_possible_truncation, reason = "the processor reads the bits above as zero")]
            fn of(raw: u64) -> $value {
                raw as $value
            }
        }
    )*};
}

widths! {
    /// 16 bits.
    Bits16 = u16;
    /// 32 bits.
    Bits32 = u32;
    /// 64 bits.
    Bits64 = u64;
    /// As wide as a register.
    Natural = u64;
}

/// A field that software writes.
#[derive(Clone, Copy, Debug)]
pub enum ReadWrite {}

/// A field that only the processor writes.
#[derive(Clone, Copy, Debug)]
pub enum ReadOnly {}

/// A field of the VMCS: `W` is its width, `A` who may write it.
pub struct Field<W, A> {
    /// Its number.
    encoding: Encoding,
    /// Its name, as the SDM has it.
    name: &'static str,
    /// Its type.
    marker: PhantomData<(W, A)>,
}

impl<W, A> Clone for Field<W, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W, A> Copy for Field<W, A> {}

impl<W: Width, A> Field<W, A> {
    /// A field by its number.
    ///
    /// # Panics
    ///
    /// When the number says another width or kind: at compile time, as all fields are constants.
    pub(super) const fn declare(encoding: u32, kind: Kind, name: &'static str) -> Self {
        let encoding = Encoding::new(encoding);
        assert!(
            encoding.size() as u32 == W::SIZE as u32,
            "the encoding says another width"
        );
        assert!(encoding.kind() as u32 == kind as u32, "the encoding says another kind");
        assert!(
            encoding.number() & !0x6ffe == 0,
            "a reserved bit, or the upper half of a field"
        );
        Self {
            encoding,
            name,
            marker: PhantomData,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn encoding(self) -> Encoding {
        self.encoding
    }

    /// Its name, as the SDM has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The field without its type, for lists.
    #[must_use]
    pub const fn any(self) -> AnyField {
        AnyField {
            encoding: self.encoding,
            name: self.name,
        }
    }
}

impl<W: Width, A> From<Field<W, A>> for AnyField {
    fn from(field: Field<W, A>) -> Self {
        field.any()
    }
}

/// A field whose type is known at run time only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnyField {
    /// Its number.
    pub encoding: Encoding,
    /// Its name, as the SDM has it.
    pub name: &'static str,
}

impl AnyField {
    /// Whether software may write it.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        !matches!(self.encoding.kind(), Kind::Information)
    }
}

impl fmt::Display for AnyField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
