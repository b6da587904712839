//! VMCB clean bits: what of a VMCB has not changed since the last exit, so that a processor may take
//! what it has kept (APM volume 2, section 15.15.3).
//!
//! Each bit stands for a group of fields. [`VmcbWrite::set`](super::VmcbWrite::set) clears the bit of
//! the field that it writes, so nobody has to think of it; after an exit, everything is clean.

use super::field::SAVE_AREA;

/// Declares the groups: a constant for each, and the ranges of offsets that belong to it.
macro_rules! groups {
    ($($(#[$doc:meta])* $name:ident = $bit:literal: $($range:expr),*;)*) => {
        $($(#[$doc])* pub const $name: u32 = 1 << $bit;)*

        /// The bit of the group to which the field at an offset belongs; 0 if the processor keeps
        /// nothing of it.
        #[must_use]
        pub const fn group(offset: u16) -> u32 {
            $(
                $(if $range.0 <= offset && offset < $range.1 { return $name; })*
            )*
            0
        }
    };
}

/// The state-save area's offsets from `start` to `end`.
const fn saved(start: u16, end: u16) -> (u16, u16) {
    (SAVE_AREA + start, SAVE_AREA + end)
}

groups! {
    /// Intercept vectors, TSC offset, pause filter.
    INTERCEPTS = 0: (0x000, 0x040), (0x050, 0x058);
    /// Where the maps of ports and registers are.
    PERMISSION_MAPS = 1: (0x040, 0x050);
    /// ASID.
    ASID = 2: (0x058, 0x05c);
    /// Virtual interrupts.
    VIRTUAL_INTERRUPTS = 3: (0x060, 0x068);
    /// Nested paging: control, nCR3, G_PAT.
    NESTED_PAGING = 4: (0x090, 0x098), (0x0b0, 0x0b8), saved(0x268, 0x270);
    /// CR0, CR3, CR4, EFER.
    CONTROL_REGISTERS = 5: saved(0x0d0, 0x0d8), saved(0x148, 0x160);
    /// DR6, DR7.
    DEBUG_REGISTERS = 6: saved(0x160, 0x170);
    /// GDT, IDT.
    DESCRIPTOR_TABLES = 7: saved(0x060, 0x070), saved(0x080, 0x090);
    /// CS, DS, SS, ES, CPL.
    SEGMENTS = 8: saved(0x000, 0x040), saved(0x0cb, 0x0cc);
    /// CR2.
    CR2 = 9: saved(0x240, 0x248);
    /// Branch records.
    LBR = 10: (0x0b8, 0x0c0), saved(0x270, 0x2a0);
    /// AVIC.
    AVIC = 11: (0x098, 0x0a0), (0x0e0, 0x100);
    /// Shadow stacks.
    CET = 12: saved(0x1e0, 0x1f8);
}

/// Everything is as it was.
pub const ALL: u32 = (1 << 13) - 1;
