//! Every field of the VMCB by name: APM volume 2, appendix B, a file for each of its two tables.

mod control;
mod save;

pub use control::*;
pub use save::*;

use super::field::{AnyField, SAVE_AREA};

/// Declares fields of one table of the appendix: a constant for each, and the list of all. `$base` is
/// where the table's offsets begin.
macro_rules! fields {
    (
        $(#[$table_doc:meta])*
        $table:ident from $base:expr;
        $($(#[$doc:meta])* $field:ident: $type:ident, $access:ident = $offset:literal, $name:literal;)*
    ) => {
        $(
            $(#[$doc])*
            pub const $field: $crate::svm::field::Field<$type, $crate::svm::field::$access> =
                $crate::svm::field::Field::declare($base + $offset, $name);
        )*
        $(#[$table_doc])*
        pub const $table: &[$crate::svm::field::AnyField] = &[$($field.any()),*];
    };
}
use fields;

/// The two tables of appendix B, in its order.
pub const TABLES: [&[AnyField]; 2] = [CONTROL_AREA, STATE_SAVE_AREA];

/// All fields, in the order of their places.
pub fn all() -> impl Iterator<Item = AnyField> {
    TABLES.into_iter().flatten().copied()
}

/// The field that begins at an offset, if there is one.
#[must_use]
pub fn find(offset: u16) -> Option<AnyField> {
    all().find(|field| field.offset == offset)
}

/// Whether each field begins where the one before it ends, or later, from `start` on, and none ends
/// behind `end`.
const fn in_order(table: &[AnyField], start: u16, end: u16) -> bool {
    let (mut at, mut i) = (start, 0);
    while i < table.len() {
        if table[i].offset < at {
            return false;
        }
        at = table[i].offset + table[i].bytes as u16;
        i += 1;
    }
    at <= end
}

const _: () = assert!(
    in_order(CONTROL_AREA, 0, SAVE_AREA),
    "fields of the control area overlap"
);
const _: () = assert!(
    in_order(STATE_SAVE_AREA, SAVE_AREA, super::field::VMCB_SIZE as u16),
    "fields of the state-save area overlap"
);
