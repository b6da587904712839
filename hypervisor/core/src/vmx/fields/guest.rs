//! The guest-state area: loaded by VM entries, saved by VM exits (SDM volume 3C, section 26.4).

use super::fields;

fields! {
    /// 16-bit guest-state fields (SDM volume 3D, table B-2).
    TABLE_B_2: Bits16, ReadWrite, Guest;
    /// Of ES.
    GUEST_ES_SELECTOR = 0x0800, "guest ES selector";
    /// Of CS.
    GUEST_CS_SELECTOR = 0x0802, "guest CS selector";
    /// Of SS.
    GUEST_SS_SELECTOR = 0x0804, "guest SS selector";
    /// Of DS.
    GUEST_DS_SELECTOR = 0x0806, "guest DS selector";
    /// Of FS.
    GUEST_FS_SELECTOR = 0x0808, "guest FS selector";
    /// Of GS.
    GUEST_GS_SELECTOR = 0x080a, "guest GS selector";
    /// Of LDTR.
    GUEST_LDTR_SELECTOR = 0x080c, "guest LDTR selector";
    /// Of TR.
    GUEST_TR_SELECTOR = 0x080e, "guest TR selector";
    /// Requested (RVI) and served (SVI) virtual interrupt; with "virtual-interrupt delivery".
    GUEST_INTERRUPT_STATUS = 0x0810, "guest interrupt status";
    /// The next entry of the log, counted down; with "enable PML".
    PML_INDEX = 0x0812, "PML index";
    /// With "load UINV" or "clear UINV".
    GUEST_UINV = 0x0814, "guest UINV";
}

fields! {
    /// 64-bit guest-state fields (SDM volume 3D, table B-6).
    TABLE_B_6: Bits64, ReadWrite, Guest;
    /// All ones, unless there is a shadow VMCS.
    VMCS_LINK_POINTER = 0x2800, "VMCS link pointer";
    /// Loaded with "load debug controls".
    GUEST_DEBUGCTL = 0x2802, "guest IA32_DEBUGCTL";
    /// With "load IA32_PAT" or "save IA32_PAT".
    GUEST_PAT = 0x2804, "guest IA32_PAT";
    /// With "load IA32_EFER" or "save IA32_EFER".
    GUEST_EFER = 0x2806, "guest IA32_EFER";
    /// With "load IA32_PERF_GLOBAL_CTRL".
    GUEST_PERF_GLOBAL_CTRL = 0x2808, "guest IA32_PERF_GLOBAL_CTRL";
    /// Of PAE paging; with "enable EPT".
    GUEST_PDPTE0 = 0x280a, "guest PDPTE0";
    /// Of PAE paging; with "enable EPT".
    GUEST_PDPTE1 = 0x280c, "guest PDPTE1";
    /// Of PAE paging; with "enable EPT".
    GUEST_PDPTE2 = 0x280e, "guest PDPTE2";
    /// Of PAE paging; with "enable EPT".
    GUEST_PDPTE3 = 0x2810, "guest PDPTE3";
    /// With "load IA32_BNDCFGS" or "clear IA32_BNDCFGS".
    GUEST_BNDCFGS = 0x2812, "guest IA32_BNDCFGS";
    /// With "load IA32_RTIT_CTL" or "clear IA32_RTIT_CTL".
    GUEST_RTIT_CTL = 0x2814, "guest IA32_RTIT_CTL";
    /// With "load IA32_LBR_CTL" or "clear IA32_LBR_CTL".
    GUEST_LBR_CTL = 0x2816, "guest IA32_LBR_CTL";
    /// With "load PKRS".
    GUEST_PKRS = 0x2818, "guest IA32_PKRS";
    /// With "load FRED" or "save FRED".
    GUEST_FRED_CONFIG = 0x281a, "guest IA32_FRED_CONFIG";
    /// With "load FRED" or "save FRED".
    GUEST_FRED_RSP1 = 0x281c, "guest IA32_FRED_RSP1";
    /// With "load FRED" or "save FRED".
    GUEST_FRED_RSP2 = 0x281e, "guest IA32_FRED_RSP2";
    /// With "load FRED" or "save FRED".
    GUEST_FRED_RSP3 = 0x2820, "guest IA32_FRED_RSP3";
    /// With "load FRED" or "save FRED".
    GUEST_FRED_STKLVLS = 0x2822, "guest IA32_FRED_STKLVLS";
    /// With "load FRED" or "save FRED".
    GUEST_FRED_SSP1 = 0x2824, "guest IA32_FRED_SSP1";
    /// With "load FRED" or "save FRED".
    GUEST_FRED_SSP2 = 0x2826, "guest IA32_FRED_SSP2";
    /// With "load FRED" or "save FRED".
    GUEST_FRED_SSP3 = 0x2828, "guest IA32_FRED_SSP3";
    /// With "load IA32_SPEC_CTRL".
    GUEST_SPEC_CTRL = 0x282e, "guest IA32_SPEC_CTRL";
    /// By the machine's time-stamp counter; with "APIC-timer virtualization".
    GUEST_DEADLINE = 0x2830, "guest deadline";
}

fields! {
    /// 32-bit guest-state fields (SDM volume 3D, table B-10).
    TABLE_B_10: Bits32, ReadWrite, Guest;
    /// In bytes, less one.
    GUEST_ES_LIMIT = 0x4800, "guest ES limit";
    /// In bytes, less one.
    GUEST_CS_LIMIT = 0x4802, "guest CS limit";
    /// In bytes, less one.
    GUEST_SS_LIMIT = 0x4804, "guest SS limit";
    /// In bytes, less one.
    GUEST_DS_LIMIT = 0x4806, "guest DS limit";
    /// In bytes, less one.
    GUEST_FS_LIMIT = 0x4808, "guest FS limit";
    /// In bytes, less one.
    GUEST_GS_LIMIT = 0x480a, "guest GS limit";
    /// In bytes, less one.
    GUEST_LDTR_LIMIT = 0x480c, "guest LDTR limit";
    /// In bytes, less one.
    GUEST_TR_LIMIT = 0x480e, "guest TR limit";
    /// In bytes, less one.
    GUEST_GDTR_LIMIT = 0x4810, "guest GDTR limit";
    /// In bytes, less one.
    GUEST_IDTR_LIMIT = 0x4812, "guest IDTR limit";
    /// Table 26-2.
    GUEST_ES_ACCESS_RIGHTS = 0x4814, "guest ES access rights";
    /// Table 26-2.
    GUEST_CS_ACCESS_RIGHTS = 0x4816, "guest CS access rights";
    /// Table 26-2.
    GUEST_SS_ACCESS_RIGHTS = 0x4818, "guest SS access rights";
    /// Table 26-2.
    GUEST_DS_ACCESS_RIGHTS = 0x481a, "guest DS access rights";
    /// Table 26-2.
    GUEST_FS_ACCESS_RIGHTS = 0x481c, "guest FS access rights";
    /// Table 26-2.
    GUEST_GS_ACCESS_RIGHTS = 0x481e, "guest GS access rights";
    /// Table 26-2.
    GUEST_LDTR_ACCESS_RIGHTS = 0x4820, "guest LDTR access rights";
    /// Table 26-2.
    GUEST_TR_ACCESS_RIGHTS = 0x4822, "guest TR access rights";
    /// Table 26-3.
    GUEST_INTERRUPTIBILITY_STATE = 0x4824, "guest interruptibility state";
    /// Active 0, HLT 1, shutdown 2, wait-for-SIPI 3.
    GUEST_ACTIVITY_STATE = 0x4826, "guest activity state";
    /// Of SMM.
    GUEST_SMBASE = 0x4828, "guest SMBASE";
    /// Its low half.
    GUEST_SYSENTER_CS = 0x482a, "guest IA32_SYSENTER_CS";
    /// With "activate VMX-preemption timer".
    PREEMPTION_TIMER_VALUE = 0x482e, "VMX-preemption timer value";
}

fields! {
    /// Natural-width guest-state fields (SDM volume 3D, table B-14).
    TABLE_B_14: Natural, ReadWrite, Guest;
    /// The real one; what the guest reads is masked.
    GUEST_CR0 = 0x6800, "guest CR0";
    /// A guest-physical address with EPT.
    GUEST_CR3 = 0x6802, "guest CR3";
    /// The real one.
    GUEST_CR4 = 0x6804, "guest CR4";
    /// Linear.
    GUEST_ES_BASE = 0x6806, "guest ES base";
    /// Linear.
    GUEST_CS_BASE = 0x6808, "guest CS base";
    /// Linear.
    GUEST_SS_BASE = 0x680a, "guest SS base";
    /// Linear.
    GUEST_DS_BASE = 0x680c, "guest DS base";
    /// Linear.
    GUEST_FS_BASE = 0x680e, "guest FS base";
    /// Linear.
    GUEST_GS_BASE = 0x6810, "guest GS base";
    /// Linear.
    GUEST_LDTR_BASE = 0x6812, "guest LDTR base";
    /// Linear.
    GUEST_TR_BASE = 0x6814, "guest TR base";
    /// Linear.
    GUEST_GDTR_BASE = 0x6816, "guest GDTR base";
    /// Linear.
    GUEST_IDTR_BASE = 0x6818, "guest IDTR base";
    /// Loaded with "load debug controls".
    GUEST_DR7 = 0x681a, "guest DR7";
    /// The stack pointer.
    GUEST_RSP = 0x681c, "guest RSP";
    /// The instruction pointer.
    GUEST_RIP = 0x681e, "guest RIP";
    /// The flags.
    GUEST_RFLAGS = 0x6820, "guest RFLAGS";
    /// Table 26-4.
    GUEST_PENDING_DEBUG_EXCEPTIONS = 0x6822, "guest pending debug exceptions";
    /// Linear.
    GUEST_SYSENTER_ESP = 0x6824, "guest IA32_SYSENTER_ESP";
    /// Linear.
    GUEST_SYSENTER_EIP = 0x6826, "guest IA32_SYSENTER_EIP";
    /// With "load CET state".
    GUEST_S_CET = 0x6828, "guest IA32_S_CET";
    /// The shadow-stack pointer; with "load CET state".
    GUEST_SSP = 0x682a, "guest SSP";
    /// With "load CET state".
    GUEST_INTERRUPT_SSP_TABLE_ADDRESS = 0x682c, "guest IA32_INTERRUPT_SSP_TABLE_ADDR";
}
