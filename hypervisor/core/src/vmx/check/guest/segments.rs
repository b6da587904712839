//! Checks on guest segment registers: selectors, bases, limits and access rights (SDM volume 3C, table
//! 26-2).

use crate::vmx::check::entry::{Entry, bit};
use crate::vmx::check::{Broken, Outcome, Rule, Section};
use crate::vmx::fields::segments::{CS, DS, ES, FS, GS, LDTR, SS, SegmentFields, TR};
use crate::vmx::fields::*;

/// The registers that hold code and data.
const CODE_AND_DATA: [SegmentFields; 6] = [CS, SS, DS, ES, FS, GS];
/// Those that hold data alone.
const DATA: [SegmentFields; 4] = [DS, ES, FS, GS];
/// What access rights are in virtual-8086 mode: a present, accessed, writable segment of level 3.
const VIRTUAL_8086_RIGHTS: u32 = 0xf3;

/// Access rights.
#[derive(Clone, Copy)]
struct Rights(u32);

impl Rights {
    /// Bits 3:0: for code and data, accessed 1, writable or readable 2, expand-down or conforming 4, code 8.
    const fn kind(self) -> u32 {
        self.0 & 0xf
    }

    /// Bit 4, S: code or data, not a system segment.
    const fn code_or_data(self) -> bool {
        self.0 >> 4 & 1 != 0
    }

    /// Bits 6:5: the descriptor privilege level.
    const fn level(self) -> u32 {
        self.0 >> 5 & 3
    }

    /// Bit 7, P.
    const fn present(self) -> bool {
        self.0 >> 7 & 1 != 0
    }

    /// Bits 11:8.
    const fn reserved_middle(self) -> u32 {
        self.0 & 0xf00
    }

    /// Bit 13, L: 64-bit code.
    const fn long(self) -> bool {
        self.0 >> 13 & 1 != 0
    }

    /// Bit 14, D/B.
    const fn wide(self) -> bool {
        self.0 >> 14 & 1 != 0
    }

    /// Bit 15, G: whether it fits the limit.
    const fn granularity_fits(self, limit: u32) -> bool {
        if self.0 >> 15 & 1 != 0 {
            limit & 0xfff == 0xfff
        } else {
            limit >> 20 == 0
        }
    }

    /// Bit 16, clear.
    const fn usable(self) -> bool {
        self.0 >> 16 & 1 == 0
    }

    /// Bits 31:17.
    const fn reserved_upper(self) -> u32 {
        self.0 >> 17
    }
}

impl Entry<'_> {
    /// The access rights of a register.
    fn rights(&self, register: SegmentFields) -> Rights {
        Rights(self.get(register.rights))
    }
}

/// Looks at the access rights of code and data registers outside virtual-8086 mode: at CS always, at
/// the others when they are usable.
fn each(entry: &Entry<'_>, broken: &mut Broken<'_>, wrong: impl Fn(SegmentFields, Rights) -> bool) {
    if entry.virtual_8086() {
        return;
    }
    for register in CODE_AND_DATA {
        let rights = entry.rights(register);
        let looked_at = register.rights.encoding() == CS.rights.encoding() || rights.usable();
        broken.when(looked_at && wrong(register, rights), register.rights);
    }
}

/// The rules.
pub const SEGMENTS: Section = Section {
    number: "28.3.1.2",
    title: "Guest segment registers",
    outcome: Outcome::InvalidGuest,
    rules: &[
        Rule::new(
            "tr_table_indicator",
            "the table indicator (bit 2) is 0: a task is in the GDT",
            |entry, broken| broken.when(entry.get(TR.selector) & 4 != 0, TR.selector),
        ),
        Rule::new(
            "ldtr_table_indicator",
            "if LDTR is usable, the table indicator (bit 2) is 0",
            |entry, broken| {
                broken.when(
                    entry.rights(LDTR).usable() && entry.get(LDTR.selector) & 4 != 0,
                    LDTR.selector,
                );
            },
        ),
        Rule::new(
            "ss_requested_level",
            "outside virtual-8086 mode and without \"unrestricted guest\", the requested privilege level (bits 1:0) is \
             that of CS",
            |entry, broken| {
                let apart = (entry.get(SS.selector) ^ entry.get(CS.selector)) & 3 != 0;
                broken.when(!entry.virtual_8086() && !entry.unrestricted() && apart, SS.selector);
            },
        ),
        Rule::new(
            "virtual_8086_base",
            "in virtual-8086 mode it is the selector times 16",
            |entry, broken| {
                if entry.virtual_8086() {
                    for register in CODE_AND_DATA {
                        let base = u64::from(entry.get(register.selector)) << 4;
                        broken.when(entry.get(register.base) != base, register.base);
                    }
                }
            },
        ),
        Rule::new(
            "segment_base_canonical",
            "it is a canonical address (that of LDTR if it is usable)",
            |entry, broken| {
                for register in [TR, FS, GS, LDTR] {
                    let ldtr = register.rights.encoding() == LDTR.rights.encoding();
                    let looked_at = !ldtr || entry.rights(LDTR).usable();
                    broken.when(looked_at && !entry.canonical(entry.get(register.base)), register.base);
                }
            },
        ),
        Rule::new(
            "segment_base_upper",
            "bits 63:32 are 0 (those of SS, DS and ES if they are usable)",
            |entry, broken| {
                for register in [CS, SS, DS, ES] {
                    let cs = register.rights.encoding() == CS.rights.encoding();
                    let looked_at = cs || entry.rights(register).usable();
                    broken.when(looked_at && entry.get(register.base) >> 32 != 0, register.base);
                }
            },
        ),
        Rule::new(
            "virtual_8086_limit",
            "in virtual-8086 mode it is 0xffff",
            |entry, broken| {
                if entry.virtual_8086() {
                    for register in CODE_AND_DATA {
                        broken.when(entry.get(register.limit) != 0xffff, register.limit);
                    }
                }
            },
        ),
        Rule::new(
            "virtual_8086_rights",
            "in virtual-8086 mode they are 0xf3: present, level 3, writable data",
            |entry, broken| {
                if entry.virtual_8086() {
                    for register in CODE_AND_DATA {
                        broken.when(entry.get(register.rights) != VIRTUAL_8086_RIGHTS, register.rights);
                    }
                }
            },
        ),
        Rule::new(
            "cs_type",
            "the type (bits 3:0) is that of accessed code: 9, 11, 13 or 15 (with \"unrestricted guest\" also 3, \
             writable data)",
            |entry, broken| {
                let allowed = match entry.rights(CS).kind() {
                    9 | 11 | 13 | 15 => true,
                    3 => entry.unrestricted(),
                    _ => false,
                };
                broken.when(!entry.virtual_8086() && !allowed, CS.rights);
            },
        ),
        Rule::new(
            "ss_type",
            "if SS is usable, the type (bits 3:0) is that of accessed writable data: 3 or 7",
            |entry, broken| {
                let rights = entry.rights(SS);
                let wrong = rights.usable() && !matches!(rights.kind(), 3 | 7);
                broken.when(!entry.virtual_8086() && wrong, SS.rights);
            },
        ),
        Rule::new(
            "data_type",
            "if it is usable, the type (bits 3:0) is accessed (bit 0), and readable (bit 1) if it is code (bit 3)",
            |entry, broken| {
                for register in DATA {
                    let rights = entry.rights(register);
                    let wrong = rights.usable() && (rights.kind() & 1 == 0 || rights.kind() & 0xa == 8);
                    broken.when(!entry.virtual_8086() && wrong, register.rights);
                }
            },
        ),
        Rule::new(
            "segment_is_code_or_data",
            "S (bit 4) is 1, of CS and of those that are usable",
            |entry, broken| each(entry, broken, |_, rights| !rights.code_or_data()),
        ),
        Rule::new(
            "cs_level",
            "the privilege level (bits 6:5) is that of SS if the code is not conforming (types 9, 11), not above it if it \
             is (13, 15), and 0 for data (3)",
            |entry, broken| {
                let (rights, stack) = (entry.rights(CS), entry.rights(SS).level());
                let wrong = match rights.kind() {
                    3 => rights.level() != 0,
                    9 | 11 => rights.level() != stack,
                    13 | 15 => rights.level() > stack,
                    _ => false,
                };
                broken.when(!entry.virtual_8086() && wrong, CS.rights);
            },
        ),
        Rule::new(
            "ss_level_is_requested",
            "without \"unrestricted guest\", the privilege level (bits 6:5) is the requested one of the selector",
            |entry, broken| {
                let wrong = entry.rights(SS).level() != u32::from(entry.get(SS.selector) & 3);
                broken.when(!entry.virtual_8086() && !entry.unrestricted() && wrong, SS.rights);
            },
        ),
        Rule::new(
            "ss_level_is_zero",
            "the privilege level (bits 6:5) is 0 in real mode (CR0.PE is 0) and where CS holds data (type 3)",
            |entry, broken| {
                let real = !bit(entry.get(GUEST_CR0), 0) || entry.rights(CS).kind() == 3;
                broken.when(
                    !entry.virtual_8086() && real && entry.rights(SS).level() != 0,
                    SS.rights,
                );
            },
        ),
        Rule::new(
            "fred_level",
            "with CR4.FRED (bit 32), the privilege level (bits 6:5) is 0, with L (bit 13) of CS, or 3, with RFLAGS.IOPL \
             (bits 13:12) 0 and no blocking by STI",
            |entry, broken| {
                let wrong = match entry.rights(SS).level() {
                    0 => !entry.rights(CS).long(),
                    3 => {
                        let io_level = entry.get(GUEST_RFLAGS) >> 12 & 3;
                        io_level != 0 || entry.get(GUEST_INTERRUPTIBILITY_STATE) & 1 != 0
                    }
                    _ => true,
                };
                broken.when(!entry.virtual_8086() && entry.uses_fred() && wrong, SS.rights);
            },
        ),
        Rule::new(
            "data_level",
            "without \"unrestricted guest\", if it is usable and not conforming code, the privilege level (bits 6:5) is \
             not below the requested one of the selector",
            |entry, broken| {
                for register in DATA {
                    let rights = entry.rights(register);
                    let wrong = rights.usable()
                        && rights.kind() < 12
                        && rights.level() < u32::from(entry.get(register.selector) & 3);
                    broken.when(!entry.virtual_8086() && !entry.unrestricted() && wrong, register.rights);
                }
            },
        ),
        Rule::new(
            "segment_is_present",
            "P (bit 7) is 1, of CS and of those that are usable",
            |entry, broken| each(entry, broken, |_, rights| !rights.present()),
        ),
        Rule::new(
            "segment_rights_reserved",
            "bits 11:8 and 31:17 are 0, of CS and of those that are usable",
            |entry, broken| {
                each(entry, broken, |_, rights| {
                    rights.reserved_middle() != 0 || rights.reserved_upper() != 0
                });
            },
        ),
        Rule::new(
            "cs_default_size",
            "in 64-bit mode (\"IA-32e mode guest\" and L, bit 13) D/B (bit 14) is 0",
            |entry, broken| {
                let rights = entry.rights(CS);
                let wrong = entry.long() && rights.long() && rights.wide();
                broken.when(!entry.virtual_8086() && wrong, CS.rights);
            },
        ),
        Rule::new(
            "segment_granularity",
            "G (bit 15) is 0 if any of bits 11:0 of the limit is 0, and 1 if any of bits 31:20 is 1, of CS and of those \
             that are usable",
            |entry, broken| {
                each(entry, broken, |register, rights| {
                    !rights.granularity_fits(entry.get(register.limit))
                });
            },
        ),
        Rule::new(
            "tr_type",
            "the type (bits 3:0) is that of a busy TSS: 11 (without \"IA-32e mode guest\" also 3, of 16 bits)",
            |entry, broken| {
                let allowed = match entry.rights(TR).kind() {
                    11 => true,
                    3 => !entry.long(),
                    _ => false,
                };
                broken.when(!allowed, TR.rights);
            },
        ),
        Rule::new(
            "tr_rights",
            "S (bit 4), bits 11:8 and bits 31:17 are 0, P (bit 7) is 1, and TR is usable (bit 16 is 0)",
            |entry, broken| {
                let rights = entry.rights(TR);
                broken.when(!proper_system_segment(rights) || !rights.usable(), TR.rights);
            },
        ),
        Rule::new(
            "tr_granularity",
            "G (bit 15) is 0 if any of bits 11:0 of the limit is 0, and 1 if any of bits 31:20 is 1",
            |entry, broken| {
                broken.when(!entry.rights(TR).granularity_fits(entry.get(TR.limit)), TR.rights);
            },
        ),
        Rule::new(
            "ldtr_rights",
            "if LDTR is usable, the type is 2, S (bit 4), bits 11:8 and bits 31:17 are 0, and P (bit 7) is 1",
            |entry, broken| {
                let rights = entry.rights(LDTR);
                let proper = proper_system_segment(rights) && rights.kind() == 2;
                broken.when(rights.usable() && !proper, LDTR.rights);
            },
        ),
        Rule::new(
            "ldtr_granularity",
            "if LDTR is usable, G (bit 15) is 0 if any of bits 11:0 of the limit is 0, and 1 if any of bits 31:20 is 1",
            |entry, broken| {
                let rights = entry.rights(LDTR);
                broken.when(
                    rights.usable() && !rights.granularity_fits(entry.get(LDTR.limit)),
                    LDTR.rights,
                );
            },
        ),
    ],
};

/// Whether a system segment is present, and no reserved bit is set.
fn proper_system_segment(rights: Rights) -> bool {
    !rights.code_or_data() && rights.present() && rights.reserved_middle() == 0 && rights.reserved_upper() == 0
}
