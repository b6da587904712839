//! What a VM exit leaves for its handler to read (SDM volume 3C, section 26.9).

use super::fields;

fields! {
    /// 64-bit read-only data fields (SDM volume 3D, table B-5).
    TABLE_B_5: Bits64, ReadOnly, Information;
    /// Of an EPT violation or misconfiguration; with "enable EPT".
    GUEST_PHYSICAL_ADDRESS = 0x2400, "guest-physical address";
    /// With "enable MSR-list instructions".
    MSR_DATA = 0x2402, "MSR data";
    /// Where FRED transitions are.
    ORIGINAL_EVENT_DATA = 0x2404, "original-event data";
}

fields! {
    /// 32-bit read-only data fields (SDM volume 3D, table B-9).
    TABLE_B_9: Bits32, ReadOnly, Information;
    /// Why the last VMX instruction failed (section 32.4).
    VM_INSTRUCTION_ERROR = 0x4400, "VM-instruction error";
    /// Section 26.9.1 and appendix C.
    EXIT_REASON = 0x4402, "exit reason";
    /// The event that exited; "exiting-event identification" in the newest editions.
    EXIT_INTERRUPTION_INFORMATION = 0x4404, "VM-exit interruption information";
    /// Its error code; "exiting-event error code".
    EXIT_INTERRUPTION_ERROR_CODE = 0x4406, "VM-exit interruption error code";
    /// The event whose delivery met the exit; "original-event identification".
    IDT_VECTORING_INFORMATION = 0x4408, "IDT-vectoring information";
    /// Its error code; "original-event error code".
    IDT_VECTORING_ERROR_CODE = 0x440a, "IDT-vectoring error code";
    /// In bytes.
    EXIT_INSTRUCTION_LENGTH = 0x440c, "VM-exit instruction length";
    /// Operands of some instructions (section 29.2.5).
    EXIT_INSTRUCTION_INFORMATION = 0x440e, "VM-exit instruction information";
}

fields! {
    /// Natural-width read-only data fields (SDM volume 3D, table B-13).
    TABLE_B_13: Natural, ReadOnly, Information;
    /// What it means depends on the reason (section 29.2.1).
    EXIT_QUALIFICATION = 0x6400, "exit qualification";
    /// Of an exit by SMI that interrupted an I/O instruction.
    IO_RCX = 0x6402, "I/O RCX";
    /// The same.
    IO_RSI = 0x6404, "I/O RSI";
    /// The same.
    IO_RDI = 0x6406, "I/O RDI";
    /// The same.
    IO_RIP = 0x6408, "I/O RIP";
    /// Where the exit has one.
    GUEST_LINEAR_ADDRESS = 0x640a, "guest-linear address";
}
