//! The state-save area: loaded by VMRUN or VMLOAD, saved by exits or VMSAVE (APM volume 2, table B-2).
//!
//! VMRUN and exits exchange what decides the mode and the next instruction. FS, GS, TR, LDTR, and the
//! registers of `syscall` and `sysenter` are left to VMLOAD and VMSAVE (APM volume 2, section 15.5.2).

use super::super::field::{Field, ReadWrite, SAVE_AREA};
use super::fields;

fields! {
    /// The state-save area (APM volume 2, table B-2), but for the records of branches and of performance.
    STATE_SAVE_AREA from SAVE_AREA;
    /// Of ES.
    ES_SELECTOR: u16, ReadWrite = 0x000, "ES selector";
    /// Of ES: bits 40 to 47 and 52 to 55 of the descriptor, together.
    ES_ATTRIBUTES: u16, ReadWrite = 0x002, "ES attributes";
    /// Of ES.
    ES_LIMIT: u32, ReadWrite = 0x004, "ES limit";
    /// Of ES.
    ES_BASE: u64, ReadWrite = 0x008, "ES base";
    /// Of CS.
    CS_SELECTOR: u16, ReadWrite = 0x010, "CS selector";
    /// Of CS: bits 40 to 47 and 52 to 55 of the descriptor, together.
    CS_ATTRIBUTES: u16, ReadWrite = 0x012, "CS attributes";
    /// Of CS.
    CS_LIMIT: u32, ReadWrite = 0x014, "CS limit";
    /// Of CS.
    CS_BASE: u64, ReadWrite = 0x018, "CS base";
    /// Of SS.
    SS_SELECTOR: u16, ReadWrite = 0x020, "SS selector";
    /// Of SS: bits 40 to 47 and 52 to 55 of the descriptor, together.
    SS_ATTRIBUTES: u16, ReadWrite = 0x022, "SS attributes";
    /// Of SS.
    SS_LIMIT: u32, ReadWrite = 0x024, "SS limit";
    /// Of SS.
    SS_BASE: u64, ReadWrite = 0x028, "SS base";
    /// Of DS.
    DS_SELECTOR: u16, ReadWrite = 0x030, "DS selector";
    /// Of DS: bits 40 to 47 and 52 to 55 of the descriptor, together.
    DS_ATTRIBUTES: u16, ReadWrite = 0x032, "DS attributes";
    /// Of DS.
    DS_LIMIT: u32, ReadWrite = 0x034, "DS limit";
    /// Of DS.
    DS_BASE: u64, ReadWrite = 0x038, "DS base";
    /// Of FS.
    FS_SELECTOR: u16, ReadWrite = 0x040, "FS selector";
    /// Of FS: bits 40 to 47 and 52 to 55 of the descriptor, together.
    FS_ATTRIBUTES: u16, ReadWrite = 0x042, "FS attributes";
    /// Of FS.
    FS_LIMIT: u32, ReadWrite = 0x044, "FS limit";
    /// Of FS.
    FS_BASE: u64, ReadWrite = 0x048, "FS base";
    /// Of GS.
    GS_SELECTOR: u16, ReadWrite = 0x050, "GS selector";
    /// Of GS: bits 40 to 47 and 52 to 55 of the descriptor, together.
    GS_ATTRIBUTES: u16, ReadWrite = 0x052, "GS attributes";
    /// Of GS.
    GS_LIMIT: u32, ReadWrite = 0x054, "GS limit";
    /// Of GS.
    GS_BASE: u64, ReadWrite = 0x058, "GS base";
    /// Of GDTR.
    GDTR_LIMIT: u32, ReadWrite = 0x064, "GDTR limit";
    /// Of GDTR.
    GDTR_BASE: u64, ReadWrite = 0x068, "GDTR base";
    /// Of LDTR.
    LDTR_SELECTOR: u16, ReadWrite = 0x070, "LDTR selector";
    /// Of LDTR: bits 40 to 47 and 52 to 55 of the descriptor, together.
    LDTR_ATTRIBUTES: u16, ReadWrite = 0x072, "LDTR attributes";
    /// Of LDTR.
    LDTR_LIMIT: u32, ReadWrite = 0x074, "LDTR limit";
    /// Of LDTR.
    LDTR_BASE: u64, ReadWrite = 0x078, "LDTR base";
    /// Of IDTR.
    IDTR_LIMIT: u32, ReadWrite = 0x084, "IDTR limit";
    /// Of IDTR.
    IDTR_BASE: u64, ReadWrite = 0x088, "IDTR base";
    /// Of TR.
    TR_SELECTOR: u16, ReadWrite = 0x090, "TR selector";
    /// Of TR: bits 40 to 47 and 52 to 55 of the descriptor, together.
    TR_ATTRIBUTES: u16, ReadWrite = 0x092, "TR attributes";
    /// Of TR.
    TR_LIMIT: u32, ReadWrite = 0x094, "TR limit";
    /// Of TR.
    TR_BASE: u64, ReadWrite = 0x098, "TR base";
    /// The ring.
    CPL: u8, ReadWrite = 0x0cb, "CPL";
    /// With SVME set, whatever the guest thinks.
    EFER: u64, ReadWrite = 0x0d0, "EFER";
    /// The register of this name.
    CR4: u64, ReadWrite = 0x148, "CR4";
    /// The register of this name.
    CR3: u64, ReadWrite = 0x150, "CR3";
    /// The register of this name.
    CR0: u64, ReadWrite = 0x158, "CR0";
    /// The register of this name.
    DR7: u64, ReadWrite = 0x160, "DR7";
    /// The register of this name.
    DR6: u64, ReadWrite = 0x168, "DR6";
    /// The register of this name.
    RFLAGS: u64, ReadWrite = 0x170, "RFLAGS";
    /// The register of this name.
    RIP: u64, ReadWrite = 0x178, "RIP";
    /// The register of this name.
    RSP: u64, ReadWrite = 0x1d8, "RSP";
    /// With shadow stacks.
    S_CET: u64, ReadWrite = 0x1e0, "S_CET";
    /// With shadow stacks.
    SSP: u64, ReadWrite = 0x1e8, "SSP";
    /// With shadow stacks.
    ISST_ADDR: u64, ReadWrite = 0x1f0, "ISST_ADDR";
    /// The other general registers are the hypervisor's to exchange.
    RAX: u64, ReadWrite = 0x1f8, "RAX";
    /// By VMLOAD.
    STAR: u64, ReadWrite = 0x200, "STAR";
    /// By VMLOAD.
    LSTAR: u64, ReadWrite = 0x208, "LSTAR";
    /// By VMLOAD.
    CSTAR: u64, ReadWrite = 0x210, "CSTAR";
    /// By VMLOAD.
    SFMASK: u64, ReadWrite = 0x218, "SFMASK";
    /// By VMLOAD.
    KERNEL_GS_BASE: u64, ReadWrite = 0x220, "KernelGsBase";
    /// By VMLOAD.
    SYSENTER_CS: u64, ReadWrite = 0x228, "SYSENTER_CS";
    /// By VMLOAD.
    SYSENTER_ESP: u64, ReadWrite = 0x230, "SYSENTER_ESP";
    /// By VMLOAD.
    SYSENTER_EIP: u64, ReadWrite = 0x238, "SYSENTER_EIP";
    /// The register of this name.
    CR2: u64, ReadWrite = 0x240, "CR2";
    /// The guest's PAT; with nested paging.
    G_PAT: u64, ReadWrite = 0x268, "G_PAT";
    /// With LBR virtualization.
    DBGCTL: u64, ReadWrite = 0x270, "DBGCTL";
    /// With LBR virtualization.
    BR_FROM: u64, ReadWrite = 0x278, "BR_FROM";
    /// With LBR virtualization.
    BR_TO: u64, ReadWrite = 0x280, "BR_TO";
    /// With LBR virtualization.
    LASTEXCPFROM: u64, ReadWrite = 0x288, "LASTEXCPFROM";
    /// With LBR virtualization.
    LASTEXCPTO: u64, ReadWrite = 0x290, "LASTEXCPTO";
    /// With LBR virtualization.
    DBGEXTNCTL: u64, ReadWrite = 0x298, "DBGEXTNCTL";
    /// With SpecCtrl virtualization.
    SPEC_CTRL: u64, ReadWrite = 0x2e0, "SPEC_CTRL";
}

/// The fields of a segment register.
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "the parts of a segment register")]
pub struct SegmentFields {
    pub selector: Field<u16, ReadWrite>,
    pub attributes: Field<u16, ReadWrite>,
    pub limit: Field<u32, ReadWrite>,
    pub base: Field<u64, ReadWrite>,
}

/// Names the four fields of a segment register.
macro_rules! segments {
    ($($register:ident = $selector:ident, $attributes:ident, $limit:ident, $base:ident;)*) => {$(
        #[doc = concat!("All of ", stringify!($register), ".")]
        pub const $register: SegmentFields = SegmentFields {
            selector: $selector,
            attributes: $attributes,
            limit: $limit,
            base: $base,
        };
    )*};
}

segments! {
    ES = ES_SELECTOR, ES_ATTRIBUTES, ES_LIMIT, ES_BASE;
    CS = CS_SELECTOR, CS_ATTRIBUTES, CS_LIMIT, CS_BASE;
    SS = SS_SELECTOR, SS_ATTRIBUTES, SS_LIMIT, SS_BASE;
    DS = DS_SELECTOR, DS_ATTRIBUTES, DS_LIMIT, DS_BASE;
    FS = FS_SELECTOR, FS_ATTRIBUTES, FS_LIMIT, FS_BASE;
    GS = GS_SELECTOR, GS_ATTRIBUTES, GS_LIMIT, GS_BASE;
    LDTR = LDTR_SELECTOR, LDTR_ATTRIBUTES, LDTR_LIMIT, LDTR_BASE;
    TR = TR_SELECTOR, TR_ATTRIBUTES, TR_LIMIT, TR_BASE;
}
