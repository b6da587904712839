//! Every field of the VMCS by name: SDM volume 3D, appendix B, a file for each part of the VMCS.

mod control;
mod guest;
mod host;
mod information;
pub mod segments;

pub use control::*;
pub use guest::*;
pub use host::*;
pub use information::*;

use super::field::{AnyField, Encoding};

/// Declares the fields of one table of the appendix: a constant for each, and the list of all.
macro_rules! fields {
    (
        $(#[$table_doc:meta])*
        $table:ident: $width:ident, $access:ident, $kind:ident;
        $($(#[$doc:meta])* $field:ident = $encoding:literal, $name:literal;)*
    ) => {
        $(
            $(#[$doc])*
            pub const $field: $crate::vmx::field::Field<$crate::vmx::field::$width, $crate::vmx::field::$access> =
                $crate::vmx::field::Field::declare($encoding, $crate::vmx::field::Kind::$kind, $name);
        )*
        $(#[$table_doc])*
        pub const $table: &[$crate::vmx::field::AnyField] = &[$($field.any()),*];
    };
}
use fields;

/// The tables of appendix B, in its order.
pub const TABLES: [&[AnyField]; 15] = [
    TABLE_B_1, TABLE_B_2, TABLE_B_3, TABLE_B_4, TABLE_B_5, TABLE_B_6, TABLE_B_7, TABLE_B_8, TABLE_B_9, TABLE_B_10,
    TABLE_B_11, TABLE_B_12, TABLE_B_13, TABLE_B_14, TABLE_B_15,
];

/// All fields, in the order of their encodings.
pub fn all() -> impl Iterator<Item = AnyField> {
    TABLES.into_iter().flatten().copied()
}

/// The field with an encoding, if there is one.
#[must_use]
pub fn find(encoding: Encoding) -> Option<AnyField> {
    let kin = |field: &AnyField| (field.encoding.size(), field.encoding.kind()) == (encoding.size(), encoding.kind());
    let table = TABLES.into_iter().find(|table| table.first().is_some_and(kin))?;
    let at = table.binary_search_by_key(&encoding, |field| field.encoding).ok()?;
    table.get(at).copied()
}
