//! The host-state area: loaded by VM exits (SDM volume 3C, section 26.5).

use super::fields;

fields! {
    /// 16-bit host-state fields (SDM volume 3D, table B-3).
    TABLE_B_3: Bits16, ReadWrite, Host;
    /// Of ES.
    HOST_ES_SELECTOR = 0x0c00, "host ES selector";
    /// Of CS.
    HOST_CS_SELECTOR = 0x0c02, "host CS selector";
    /// Of SS.
    HOST_SS_SELECTOR = 0x0c04, "host SS selector";
    /// Of DS.
    HOST_DS_SELECTOR = 0x0c06, "host DS selector";
    /// Of FS.
    HOST_FS_SELECTOR = 0x0c08, "host FS selector";
    /// Of GS.
    HOST_GS_SELECTOR = 0x0c0a, "host GS selector";
    /// Of TR.
    HOST_TR_SELECTOR = 0x0c0c, "host TR selector";
}

fields! {
    /// 64-bit host-state fields (SDM volume 3D, table B-7).
    TABLE_B_7: Bits64, ReadWrite, Host;
    /// With "load IA32_PAT" of the VM-exit controls.
    HOST_PAT = 0x2c00, "host IA32_PAT";
    /// With "load IA32_EFER" of the VM-exit controls.
    HOST_EFER = 0x2c02, "host IA32_EFER";
    /// With "load IA32_PERF_GLOBAL_CTRL" of the VM-exit controls.
    HOST_PERF_GLOBAL_CTRL = 0x2c04, "host IA32_PERF_GLOBAL_CTRL";
    /// With "load PKRS" of the VM-exit controls.
    HOST_PKRS = 0x2c06, "host IA32_PKRS";
    /// With "load FRED" of the secondary VM-exit controls.
    HOST_FRED_CONFIG = 0x2c08, "host IA32_FRED_CONFIG";
    /// With "load FRED" of the secondary VM-exit controls.
    HOST_FRED_RSP1 = 0x2c0a, "host IA32_FRED_RSP1";
    /// With "load FRED" of the secondary VM-exit controls.
    HOST_FRED_RSP2 = 0x2c0c, "host IA32_FRED_RSP2";
    /// With "load FRED" of the secondary VM-exit controls.
    HOST_FRED_RSP3 = 0x2c0e, "host IA32_FRED_RSP3";
    /// With "load FRED" of the secondary VM-exit controls.
    HOST_FRED_STKLVLS = 0x2c10, "host IA32_FRED_STKLVLS";
    /// With "load FRED" of the secondary VM-exit controls.
    HOST_FRED_SSP1 = 0x2c12, "host IA32_FRED_SSP1";
    /// With "load FRED" of the secondary VM-exit controls.
    HOST_FRED_SSP2 = 0x2c14, "host IA32_FRED_SSP2";
    /// With "load FRED" of the secondary VM-exit controls.
    HOST_FRED_SSP3 = 0x2c16, "host IA32_FRED_SSP3";
    /// With "load IA32_SPEC_CTRL" of the secondary VM-exit controls.
    HOST_SPEC_CTRL = 0x2c1a, "host IA32_SPEC_CTRL";
}

fields! {
    /// 32-bit host-state field (SDM volume 3D, table B-11).
    TABLE_B_11: Bits32, ReadWrite, Host;
    /// Its low half.
    HOST_SYSENTER_CS = 0x4c00, "host IA32_SYSENTER_CS";
}

fields! {
    /// Natural-width host-state fields (SDM volume 3D, table B-15).
    TABLE_B_15: Natural, ReadWrite, Host;
    /// Loaded at every VM exit.
    HOST_CR0 = 0x6c00, "host CR0";
    /// Loaded at every VM exit.
    HOST_CR3 = 0x6c02, "host CR3";
    /// Loaded at every VM exit.
    HOST_CR4 = 0x6c04, "host CR4";
    /// Linear.
    HOST_FS_BASE = 0x6c06, "host FS base";
    /// Linear.
    HOST_GS_BASE = 0x6c08, "host GS base";
    /// Linear.
    HOST_TR_BASE = 0x6c0a, "host TR base";
    /// Linear; the limit becomes 0xffff at an exit.
    HOST_GDTR_BASE = 0x6c0c, "host GDTR base";
    /// Linear; the limit becomes 0xffff at an exit.
    HOST_IDTR_BASE = 0x6c0e, "host IDTR base";
    /// Linear.
    HOST_SYSENTER_ESP = 0x6c10, "host IA32_SYSENTER_ESP";
    /// Linear.
    HOST_SYSENTER_EIP = 0x6c12, "host IA32_SYSENTER_EIP";
    /// The stack that an exit finds.
    HOST_RSP = 0x6c14, "host RSP";
    /// Where an exit goes.
    HOST_RIP = 0x6c16, "host RIP";
    /// With "load CET state" of the VM-exit controls.
    HOST_S_CET = 0x6c18, "host IA32_S_CET";
    /// With "load CET state" of the VM-exit controls.
    HOST_SSP = 0x6c1a, "host SSP";
    /// With "load CET state" of the VM-exit controls.
    HOST_INTERRUPT_SSP_TABLE_ADDRESS = 0x6c1c, "host IA32_INTERRUPT_SSP_TABLE_ADDR";
}
