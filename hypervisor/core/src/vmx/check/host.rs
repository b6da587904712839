//! Checks on host state and address-space size (SDM volume 3C, sections 28.2.2 to 28.2.4).

use super::entry::{bit, canonical, valid_pat};
use super::guest::registers::{bad_cr0, bad_cr3, bad_cr4, bad_efer, bad_fred_config, bad_s_cet, bad_spec_ctrl};
use super::{Outcome, Rule, Section};
use crate::vmx::controls::{entry, exit, secondary_exit};
use crate::vmx::fields::*;

/// Control registers, MSRs and SSP.
pub const REGISTERS: Section = Section {
    number: "28.2.2",
    title: "Host control registers, MSRs, and SSP",
    outcome: Outcome::InvalidHost,
    rules: &[
        Rule::new(
            "host_cr0_fixed",
            "each bit but CD and NW is as IA32_VMX_CR0_FIXED0 and IA32_VMX_CR0_FIXED1 have it",
            |entry, broken| broken.when(bad_cr0(entry, entry.get(HOST_CR0), 0), HOST_CR0),
        ),
        Rule::new(
            "host_cr4_fixed",
            "each bit is as IA32_VMX_CR4_FIXED0 and IA32_VMX_CR4_FIXED1 have it",
            |entry, broken| broken.when(bad_cr4(entry, entry.get(HOST_CR4)), HOST_CR4),
        ),
        Rule::new(
            "host_cet_needs_write_protection",
            "CR4.CET (bit 23) needs CR0.WP (bit 16)",
            |entry, broken| broken.when(bit(entry.get(HOST_CR4), 23) && !bit(entry.get(HOST_CR0), 16), HOST_CR4),
        ),
        Rule::new(
            "host_cr3_width",
            "no bit beyond the physical-address width is set",
            |entry, broken| broken.when(bad_cr3(entry, entry.get(HOST_CR3)), HOST_CR3),
        ),
        Rule::new(
            "host_sysenter_canonical",
            "it is a canonical address",
            |entry, broken| {
                for field in [HOST_SYSENTER_ESP, HOST_SYSENTER_EIP] {
                    broken.when(!entry.canonical(entry.get(field)), field);
                }
            },
        ),
        Rule::new(
            "host_perf_global_ctrl",
            "with \"load IA32_PERF_GLOBAL_CTRL\", reserved bits are 0",
            |entry, broken| {
                let wrong = entry.get(HOST_PERF_GLOBAL_CTRL) & !entry.capabilities.processor.perf_global_ctrl != 0;
                broken.when(
                    entry.exit(exit::LOAD_IA32_PERF_GLOBAL_CTRL) && wrong,
                    HOST_PERF_GLOBAL_CTRL,
                );
            },
        ),
        Rule::new(
            "host_pat",
            "with \"load IA32_PAT\", each byte is 0, 1, 4, 5, 6 or 7",
            |entry, broken| {
                broken.when(
                    entry.exit(exit::LOAD_IA32_PAT) && !valid_pat(entry.get(HOST_PAT)),
                    HOST_PAT,
                );
            },
        ),
        Rule::new(
            "host_efer_reserved",
            "with \"load IA32_EFER\", reserved bits are 0",
            |entry, broken| {
                broken.when(
                    entry.exit(exit::LOAD_IA32_EFER) && bad_efer(entry.get(HOST_EFER)),
                    HOST_EFER,
                );
            },
        ),
        Rule::new(
            "host_efer_mode",
            "with \"load IA32_EFER\", LMA (bit 10) and LME (bit 8) are each as \"host address-space size\"",
            |entry, broken| {
                let efer = entry.get(HOST_EFER);
                let long = entry.exit(exit::HOST_ADDRESS_SPACE_SIZE);
                let wrong = bit(efer, 10) != long || bit(efer, 8) != long;
                broken.when(entry.exit(exit::LOAD_IA32_EFER) && wrong, HOST_EFER);
            },
        ),
        Rule::new(
            "host_s_cet",
            "with \"load CET state\", reserved bits are 0, and SUPPRESS (bit 10) and TRACKER (bit 11) are not both 1",
            |entry, broken| {
                broken.when(
                    entry.exit(exit::LOAD_CET_STATE) && bad_s_cet(entry, entry.get(HOST_S_CET)),
                    HOST_S_CET,
                );
            },
        ),
        Rule::new(
            "host_ssp_aligned",
            "with \"load CET state\", bits 1:0 are 0",
            |entry, broken| {
                broken.when(
                    entry.exit(exit::LOAD_CET_STATE) && entry.get(HOST_SSP) & 3 != 0,
                    HOST_SSP,
                )
            },
        ),
        Rule::new(
            "host_cet_canonical",
            "with \"load CET state\", it is a canonical address",
            |entry, broken| {
                if entry.exit(exit::LOAD_CET_STATE) {
                    for field in [HOST_S_CET, HOST_SSP, HOST_INTERRUPT_SSP_TABLE_ADDRESS] {
                        broken.when(!entry.canonical(entry.get(field)), field);
                    }
                }
            },
        ),
        Rule::new("host_pkrs", "with \"load PKRS\", bits 63:32 are 0", |entry, broken| {
            broken.when(
                entry.exit(exit::LOAD_PKRS) && entry.get(HOST_PKRS) >> 32 != 0,
                HOST_PKRS,
            )
        }),
        Rule::new(
            "host_fred",
            "with \"load FRED\", reserved bits are 0, and the addresses are canonical",
            |entry, broken| {
                if entry.secondary_exit(secondary_exit::LOAD_FRED) {
                    broken.when(bad_fred_config(entry, entry.get(HOST_FRED_CONFIG)), HOST_FRED_CONFIG);
                    for field in [HOST_FRED_RSP1, HOST_FRED_RSP2, HOST_FRED_RSP3] {
                        let address = entry.get(field);
                        broken.when(address & 0x3f != 0 || !entry.canonical(address), field);
                    }
                    for field in [HOST_FRED_SSP1, HOST_FRED_SSP2, HOST_FRED_SSP3] {
                        let address = entry.get(field);
                        broken.when(address & 7 != 0 || !entry.canonical(address), field);
                    }
                }
            },
        ),
        Rule::new(
            "host_spec_ctrl",
            "with \"load IA32_SPEC_CTRL\", reserved bits are 0",
            |entry, broken| {
                let loaded = entry.secondary_exit(secondary_exit::LOAD_IA32_SPEC_CTRL);
                broken.when(loaded && bad_spec_ctrl(entry.get(HOST_SPEC_CTRL)), HOST_SPEC_CTRL);
            },
        ),
    ],
};

/// Segment and descriptor-table registers.
pub const SEGMENTS: Section = Section {
    number: "28.2.3",
    title: "Host segment and descriptor-table registers",
    outcome: Outcome::InvalidHost,
    rules: &[
        Rule::new(
            "host_selector_bits",
            "the requested privilege level (bits 1:0) and the table indicator (bit 2) are 0",
            |entry, broken| {
                for field in [
                    HOST_ES_SELECTOR,
                    HOST_CS_SELECTOR,
                    HOST_SS_SELECTOR,
                    HOST_DS_SELECTOR,
                    HOST_FS_SELECTOR,
                    HOST_GS_SELECTOR,
                    HOST_TR_SELECTOR,
                ] {
                    broken.when(entry.get(field) & 7 != 0, field);
                }
            },
        ),
        Rule::new("host_selector_null", "it is not 0", |entry, broken| {
            for field in [HOST_CS_SELECTOR, HOST_TR_SELECTOR] {
                broken.when(entry.get(field) == 0, field);
            }
        }),
        Rule::new(
            "host_ss_null",
            "without \"host address-space size\", it is not 0",
            |entry, broken| {
                let long = entry.exit(exit::HOST_ADDRESS_SPACE_SIZE);
                broken.when(!long && entry.get(HOST_SS_SELECTOR) == 0, HOST_SS_SELECTOR);
            },
        ),
        Rule::new("host_base_canonical", "it is a canonical address", |entry, broken| {
            for field in [HOST_FS_BASE, HOST_GS_BASE, HOST_TR_BASE, HOST_GDTR_BASE, HOST_IDTR_BASE] {
                broken.when(!entry.canonical(entry.get(field)), field);
            }
        }),
    ],
};

/// Address-space size. The hypervisor is taken to be in IA-32e mode: there is no other here.
pub const ADDRESS_SPACE: Section = Section {
    number: "28.2.4",
    title: "Address-space size",
    outcome: Outcome::InvalidHost,
    rules: &[
        Rule::new(
            "host_stays_long",
            "a hypervisor in IA-32e mode stays there: \"host address-space size\" is 1",
            |entry, broken| broken.when(!entry.exit(exit::HOST_ADDRESS_SPACE_SIZE), EXIT_CONTROLS),
        ),
        Rule::new(
            "long_guest_needs_long_host",
            "\"IA-32e mode guest\" needs \"host address-space size\"",
            |e, broken| {
                let wrong = e.entry(entry::IA32E_MODE_GUEST) && !e.exit(exit::HOST_ADDRESS_SPACE_SIZE);
                broken.when(wrong, ENTRY_CONTROLS);
            },
        ),
        Rule::new(
            "short_host_cr4",
            "without \"host address-space size\", PCIDE (bit 17) and FRED (bit 32) are 0",
            |entry, broken| {
                let cr4 = entry.get(HOST_CR4);
                let long = entry.exit(exit::HOST_ADDRESS_SPACE_SIZE);
                broken.when(!long && (bit(cr4, 17) || bit(cr4, 32)), HOST_CR4);
            },
        ),
        Rule::new(
            "short_host_rip",
            "without \"host address-space size\", bits 63:32 are 0",
            |entry, broken| {
                let long = entry.exit(exit::HOST_ADDRESS_SPACE_SIZE);
                broken.when(!long && entry.get(HOST_RIP) >> 32 != 0, HOST_RIP);
            },
        ),
        Rule::new(
            "short_host_cet",
            "without \"host address-space size\", with \"load CET state\", bits 63:32 are 0",
            |entry, broken| {
                if !entry.exit(exit::HOST_ADDRESS_SPACE_SIZE) && entry.exit(exit::LOAD_CET_STATE) {
                    for field in [HOST_S_CET, HOST_SSP] {
                        broken.when(entry.get(field) >> 32 != 0, field);
                    }
                }
            },
        ),
        Rule::new(
            "long_host_pae",
            "with \"host address-space size\", PAE (bit 5) is 1",
            |entry, broken| {
                let long = entry.exit(exit::HOST_ADDRESS_SPACE_SIZE);
                broken.when(long && !bit(entry.get(HOST_CR4), 5), HOST_CR4);
            },
        ),
        Rule::new(
            "long_host_rip",
            "with \"host address-space size\", it is a canonical address",
            |entry, broken| {
                // With LA57 (bit 12 of CR4) a linear address has 57 bits.
                let bits = if bit(entry.get(HOST_CR4), 12) { 57 } else { 48 };
                let long = entry.exit(exit::HOST_ADDRESS_SPACE_SIZE);
                broken.when(long && !canonical(entry.get(HOST_RIP), bits), HOST_RIP);
            },
        ),
    ],
};
