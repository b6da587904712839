//! The fields of the guest's segment registers, by register.

use super::*;
use crate::vmx::field::{Bits16, Bits32, Field, Natural, ReadWrite};

/// The fields of one segment register.
#[derive(Clone, Copy)]
pub struct SegmentFields {
    /// Selector.
    pub selector: Field<Bits16, ReadWrite>,
    /// Base address.
    pub base: Field<Natural, ReadWrite>,
    /// Limit in bytes.
    pub limit: Field<Bits32, ReadWrite>,
    /// Access rights (SDM volume 3C, table 26-2).
    pub rights: Field<Bits32, ReadWrite>,
}

macro_rules! segment {
    ($register:ident, $selector:ident, $base:ident, $limit:ident, $rights:ident) => {
        #[doc = concat!("The fields of ", stringify!($register), ".")]
        pub const $register: SegmentFields = SegmentFields {
            selector: $selector,
            base: $base,
            limit: $limit,
            rights: $rights,
        };
    };
}

segment!(
    CS,
    GUEST_CS_SELECTOR,
    GUEST_CS_BASE,
    GUEST_CS_LIMIT,
    GUEST_CS_ACCESS_RIGHTS
);
segment!(
    SS,
    GUEST_SS_SELECTOR,
    GUEST_SS_BASE,
    GUEST_SS_LIMIT,
    GUEST_SS_ACCESS_RIGHTS
);
segment!(
    DS,
    GUEST_DS_SELECTOR,
    GUEST_DS_BASE,
    GUEST_DS_LIMIT,
    GUEST_DS_ACCESS_RIGHTS
);
segment!(
    ES,
    GUEST_ES_SELECTOR,
    GUEST_ES_BASE,
    GUEST_ES_LIMIT,
    GUEST_ES_ACCESS_RIGHTS
);
segment!(
    FS,
    GUEST_FS_SELECTOR,
    GUEST_FS_BASE,
    GUEST_FS_LIMIT,
    GUEST_FS_ACCESS_RIGHTS
);
segment!(
    GS,
    GUEST_GS_SELECTOR,
    GUEST_GS_BASE,
    GUEST_GS_LIMIT,
    GUEST_GS_ACCESS_RIGHTS
);
segment!(
    TR,
    GUEST_TR_SELECTOR,
    GUEST_TR_BASE,
    GUEST_TR_LIMIT,
    GUEST_TR_ACCESS_RIGHTS
);
segment!(
    LDTR,
    GUEST_LDTR_SELECTOR,
    GUEST_LDTR_BASE,
    GUEST_LDTR_LIMIT,
    GUEST_LDTR_ACCESS_RIGHTS
);
