//! Checks on guest control registers, debug registers, and MSRs.

use crate::vmx::check::entry::{Entry, beyond, bit, valid_pat};
use crate::vmx::check::{Outcome, Rule, Section};
use crate::vmx::controls::entry;
use crate::vmx::fields::*;

/// PE and PG, which an unrestricted guest may have as it likes.
const CR0_PE_PG: u64 = 1 << 31 | 1;
/// NW and CD, which entries and exits do not change, and so do not check.
const CR0_NW_CD: u64 = 3 << 29;
/// Bits of IA32_EFER that exist: SCE, LME, LMA, NXE (SDM volume 4, table 2-2).
const EFER_KNOWN: u64 = 1 | 1 << 8 | 1 << 10 | 1 << 11;
/// Reserved bits of IA32_RTIT_CTL (SDM volume 3C, section 34.2.8.2), whatever the processor.
const RTIT_CTL_RESERVED: u64 = 1 << 18 | 1 << 23 | 7 << 28 | 0x7f << 48 | !0 << 57;
/// Bits of IA32_LBR_CTL that exist (SDM volume 3B, section 20.1): the enables and the filters.
const LBR_CTL_KNOWN: u64 = 0xf | 0x7f << 16;
/// Reserved bits of IA32_FRED_CONFIG.
const FRED_CONFIG_RESERVED: u64 = 1 << 2 | 3 << 4 | 1 << 11;

/// Bits of IA32_SPEC_CTRL that exist (SDM volume 4, table 2-2): IBRS to DDPD_U, and BHI_DIS_S.
const SPEC_CTRL_KNOWN: u64 = 0x1ff | 1 << 10;

/// Whether CR0 has a bit as VMX operation does not support it; `free` bits may be 0 or 1.
pub(in crate::vmx::check) fn bad_cr0(entry: &Entry<'_>, cr0: u64, free: u64) -> bool {
    let must = entry.capabilities.cr0_fixed0 & !free;
    let may = entry.capabilities.cr0_fixed1 | CR0_NW_CD;
    cr0 & must != must || cr0 & !may != 0
}

/// Whether CR4 has a bit as VMX operation does not support it.
pub(in crate::vmx::check) fn bad_cr4(entry: &Entry<'_>, cr4: u64) -> bool {
    let must = entry.capabilities.cr4_fixed0;
    cr4 & must != must || cr4 & !entry.capabilities.cr4_fixed1 != 0
}

/// Whether CR3 has a bit beyond the physical-address width. Bits 62:61 are those of linear-address
/// masking, where the processor has it.
pub(in crate::vmx::check) fn bad_cr3(entry: &Entry<'_>, cr3: u64) -> bool {
    let masking = if entry.capabilities.processor.linear_address_masking {
        3 << 61
    } else {
        0
    };
    beyond(cr3 & !masking, entry.capabilities.processor.physical_bits)
}

/// Whether IA32_EFER has a reserved bit.
pub(in crate::vmx::check) const fn bad_efer(efer: u64) -> bool {
    efer & !EFER_KNOWN != 0
}

/// Whether IA32_SPEC_CTRL has a bit that is reserved on every processor.
pub(in crate::vmx::check) const fn bad_spec_ctrl(spec_ctrl: u64) -> bool {
    spec_ctrl & !SPEC_CTRL_KNOWN != 0
}

/// Whether IA32_S_CET has a reserved bit, or SUPPRESS and TRACKER at once (SDM volume 4, table 2-2).
pub(in crate::vmx::check) fn bad_s_cet(entry: &Entry<'_>, s_cet: u64) -> bool {
    let mut known = 0;
    if entry.capabilities.processor.shadow_stacks {
        known |= 0b11;
    }
    if entry.capabilities.processor.branch_tracking {
        known |= !0xfff | 0xc3c;
    }
    s_cet & !known != 0 || s_cet >> 10 & 3 == 3
}

/// Whether IA32_FRED_CONFIG has a reserved bit or an address that is not canonical.
pub(in crate::vmx::check) fn bad_fred_config(entry: &Entry<'_>, config: u64) -> bool {
    config & FRED_CONFIG_RESERVED != 0 || !entry.canonical(config & !0xfff)
}

/// The rules.
pub const REGISTERS: Section = Section {
    number: "28.3.1.1",
    title: "Guest control registers, debug registers, and MSRs",
    outcome: Outcome::InvalidGuest,
    rules: &[
        Rule::new(
            "guest_cr0_fixed",
            "each bit but CD and NW is as IA32_VMX_CR0_FIXED0 and IA32_VMX_CR0_FIXED1 have it (with \"unrestricted \
             guest\" PE and PG may be 0)",
            |entry, broken| {
                let free = if entry.unrestricted() { CR0_PE_PG } else { 0 };
                broken.when(bad_cr0(entry, entry.get(GUEST_CR0), free), GUEST_CR0);
            },
        ),
        Rule::new(
            "guest_paging_needs_protection",
            "PG (bit 31) needs PE (bit 0)",
            |entry, broken| {
                let cr0 = entry.get(GUEST_CR0);
                broken.when(bit(cr0, 31) && !bit(cr0, 0), GUEST_CR0);
            },
        ),
        Rule::new(
            "guest_cr4_fixed",
            "each bit is as IA32_VMX_CR4_FIXED0 and IA32_VMX_CR4_FIXED1 have it",
            |entry, broken| broken.when(bad_cr4(entry, entry.get(GUEST_CR4)), GUEST_CR4),
        ),
        Rule::new(
            "guest_cet_needs_write_protection",
            "CR4.CET (bit 23) needs CR0.WP (bit 16)",
            |entry, broken| {
                broken.when(
                    bit(entry.get(GUEST_CR4), 23) && !bit(entry.get(GUEST_CR0), 16),
                    GUEST_CR4,
                )
            },
        ),
        Rule::new(
            "guest_debugctl",
            "with \"load debug controls\", reserved bits are 0",
            |e, broken| {
                let wrong = e.get(GUEST_DEBUGCTL) & !e.capabilities.processor.debugctl != 0;
                broken.when(e.entry(entry::LOAD_DEBUG_CONTROLS) && wrong, GUEST_DEBUGCTL);
            },
        ),
        Rule::new(
            "long_guest_paging",
            "with \"IA-32e mode guest\", CR0.PG (bit 31) is 1",
            |entry, broken| broken.when(entry.long() && !bit(entry.get(GUEST_CR0), 31), GUEST_CR0),
        ),
        Rule::new(
            "long_guest_pae",
            "with \"IA-32e mode guest\", CR4.PAE (bit 5) is 1",
            |entry, broken| broken.when(entry.long() && !bit(entry.get(GUEST_CR4), 5), GUEST_CR4),
        ),
        Rule::new(
            "short_guest_cr4",
            "without \"IA-32e mode guest\", CR4.PCIDE (bit 17) and CR4.FRED (bit 32) are 0",
            |entry, broken| {
                let cr4 = entry.get(GUEST_CR4);
                broken.when(!entry.long() && (bit(cr4, 17) || bit(cr4, 32)), GUEST_CR4);
            },
        ),
        Rule::new(
            "guest_cr3_width",
            "no bit beyond the physical-address width is set",
            |entry, broken| broken.when(bad_cr3(entry, entry.get(GUEST_CR3)), GUEST_CR3),
        ),
        Rule::new(
            "guest_dr7",
            "with \"load debug controls\", bits 63:32 are 0",
            |e, broken| {
                broken.when(
                    e.entry(entry::LOAD_DEBUG_CONTROLS) && e.get(GUEST_DR7) >> 32 != 0,
                    GUEST_DR7,
                );
            },
        ),
        Rule::new(
            "guest_sysenter_canonical",
            "it is a canonical address",
            |entry, broken| {
                for field in [GUEST_SYSENTER_ESP, GUEST_SYSENTER_EIP] {
                    broken.when(!entry.canonical(entry.get(field)), field);
                }
            },
        ),
        Rule::new(
            "guest_s_cet",
            "with \"load CET state\", reserved bits are 0, and SUPPRESS (bit 10) and TRACKER (bit 11) are not both 1",
            |e, broken| {
                broken.when(
                    e.entry(entry::LOAD_CET_STATE) && bad_s_cet(e, e.get(GUEST_S_CET)),
                    GUEST_S_CET,
                )
            },
        ),
        Rule::new(
            "guest_cet_canonical",
            "with \"load CET state\", it is a canonical address",
            |e, broken| {
                if e.entry(entry::LOAD_CET_STATE) {
                    for field in [GUEST_S_CET, GUEST_INTERRUPT_SSP_TABLE_ADDRESS] {
                        broken.when(!e.canonical(e.get(field)), field);
                    }
                }
            },
        ),
        Rule::new(
            "guest_perf_global_ctrl",
            "with \"load IA32_PERF_GLOBAL_CTRL\", reserved bits are 0",
            |e, broken| {
                let wrong = e.get(GUEST_PERF_GLOBAL_CTRL) & !e.capabilities.processor.perf_global_ctrl != 0;
                broken.when(
                    e.entry(entry::LOAD_IA32_PERF_GLOBAL_CTRL) && wrong,
                    GUEST_PERF_GLOBAL_CTRL,
                );
            },
        ),
        Rule::new(
            "guest_pat",
            "with \"load IA32_PAT\", each byte is 0, 1, 4, 5, 6 or 7",
            |e, broken| broken.when(e.entry(entry::LOAD_IA32_PAT) && !valid_pat(e.get(GUEST_PAT)), GUEST_PAT),
        ),
        Rule::new(
            "guest_efer_reserved",
            "with \"load IA32_EFER\", reserved bits are 0",
            |e, broken| {
                broken.when(
                    e.entry(entry::LOAD_IA32_EFER) && bad_efer(e.get(GUEST_EFER)),
                    GUEST_EFER,
                )
            },
        ),
        Rule::new(
            "guest_efer_lma",
            "with \"load IA32_EFER\", LMA (bit 10) is as \"IA-32e mode guest\"",
            |e, broken| {
                let wrong = bit(e.get(GUEST_EFER), 10) != e.long();
                broken.when(e.entry(entry::LOAD_IA32_EFER) && wrong, GUEST_EFER);
            },
        ),
        Rule::new(
            "guest_efer_lme",
            "with \"load IA32_EFER\" and CR0.PG, LMA (bit 10) and LME (bit 8) are alike",
            |e, broken| {
                let efer = e.get(GUEST_EFER);
                let wrong = bit(e.get(GUEST_CR0), 31) && bit(efer, 10) != bit(efer, 8);
                broken.when(e.entry(entry::LOAD_IA32_EFER) && wrong, GUEST_EFER);
            },
        ),
        Rule::new(
            "guest_bndcfgs",
            "with \"load IA32_BNDCFGS\", bits 11:2 are 0, and the address in bits 63:12 is canonical",
            |e, broken| {
                let value = e.get(GUEST_BNDCFGS);
                let wrong = value & 0xffc != 0 || !e.canonical(value & !0xfff);
                broken.when(e.entry(entry::LOAD_IA32_BNDCFGS) && wrong, GUEST_BNDCFGS);
            },
        ),
        Rule::new(
            "guest_rtit_ctl",
            "with \"load IA32_RTIT_CTL\", reserved bits are 0",
            |e, broken| {
                let wrong = e.get(GUEST_RTIT_CTL) & RTIT_CTL_RESERVED != 0;
                broken.when(e.entry(entry::LOAD_IA32_RTIT_CTL) && wrong, GUEST_RTIT_CTL);
            },
        ),
        Rule::new(
            "guest_lbr_ctl",
            "with \"load guest IA32_LBR_CTL\", reserved bits are 0",
            |e, broken| {
                let wrong = e.get(GUEST_LBR_CTL) & !LBR_CTL_KNOWN != 0;
                broken.when(e.entry(entry::LOAD_GUEST_IA32_LBR_CTL) && wrong, GUEST_LBR_CTL);
            },
        ),
        Rule::new("guest_pkrs", "with \"load PKRS\", bits 63:32 are 0", |e, broken| {
            broken.when(e.entry(entry::LOAD_PKRS) && e.get(GUEST_PKRS) >> 32 != 0, GUEST_PKRS)
        }),
        Rule::new(
            "guest_uinv",
            "with \"load UINV\", it is a vector: bits 15:8 are 0",
            |e, broken| broken.when(e.entry(entry::LOAD_UINV) && e.get(GUEST_UINV) > 0xff, GUEST_UINV),
        ),
        Rule::new(
            "guest_fred",
            "with \"load FRED\", reserved bits are 0, and the addresses are canonical",
            |e, broken| {
                if e.entry(entry::LOAD_FRED) {
                    broken.when(bad_fred_config(e, e.get(GUEST_FRED_CONFIG)), GUEST_FRED_CONFIG);
                    for field in [GUEST_FRED_RSP1, GUEST_FRED_RSP2, GUEST_FRED_RSP3] {
                        let address = e.get(field);
                        broken.when(address & 0x3f != 0 || !e.canonical(address), field);
                    }
                    for field in [GUEST_FRED_SSP1, GUEST_FRED_SSP2, GUEST_FRED_SSP3] {
                        let address = e.get(field);
                        broken.when(address & 7 != 0 || !e.canonical(address), field);
                    }
                }
            },
        ),
        Rule::new(
            "guest_spec_ctrl",
            "with \"load IA32_SPEC_CTRL\", reserved bits are 0",
            |e, broken| {
                let wrong = bad_spec_ctrl(e.get(GUEST_SPEC_CTRL));
                broken.when(e.entry(entry::LOAD_IA32_SPEC_CTRL) && wrong, GUEST_SPEC_CTRL);
            },
        ),
    ],
};
