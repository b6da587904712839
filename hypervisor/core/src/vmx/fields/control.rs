//! The control fields: how the guest runs, when it exits, how it is entered (SDM volume 3C, sections 26.6 to 26.8).

use super::fields;

fields! {
    /// 16-bit control fields (SDM volume 3D, table B-1).
    TABLE_B_1: Bits16, ReadWrite, Control;
    /// Tags this guest's translations in the TLB; with "enable VPID".
    VIRTUAL_PROCESSOR_ID = 0x0000, "virtual-processor identifier";
    /// With "process posted interrupts".
    POSTED_INTERRUPT_NOTIFICATION_VECTOR = 0x0002, "posted-interrupt notification vector";
    /// The entry of the EPTP list in use; with "EPT-violation #VE".
    EPTP_INDEX = 0x0004, "EPTP index";
    /// With "enable HLAT".
    HLAT_PREFIX_SIZE = 0x0006, "HLAT prefix size";
    /// With "IPI virtualization".
    LAST_PID_POINTER_INDEX = 0x0008, "last PID-pointer index";
    /// With "APIC-timer virtualization".
    VIRTUAL_TIMER_VECTOR = 0x000a, "virtual timer vector";
}

fields! {
    /// 64-bit control fields (SDM volume 3D, table B-4).
    TABLE_B_4: Bits64, ReadWrite, Control;
    /// Ports 0 to 0x7fff; physical.
    IO_BITMAP_A = 0x2000, "address of I/O bitmap A";
    /// Ports 0x8000 to 0xffff; physical.
    IO_BITMAP_B = 0x2002, "address of I/O bitmap B";
    /// Physical; with "use MSR bitmaps".
    MSR_BITMAPS = 0x2004, "address of MSR bitmaps";
    /// Physical.
    EXIT_MSR_STORE_ADDRESS = 0x2006, "VM-exit MSR-store address";
    /// Physical.
    EXIT_MSR_LOAD_ADDRESS = 0x2008, "VM-exit MSR-load address";
    /// Physical.
    ENTRY_MSR_LOAD_ADDRESS = 0x200a, "VM-entry MSR-load address";
    /// Of the dual-monitor treatment of SMM.
    EXECUTIVE_VMCS_POINTER = 0x200c, "executive-VMCS pointer";
    /// Physical; with "enable PML".
    PML_ADDRESS = 0x200e, "PML address";
    /// Added to what the guest reads, with "use TSC offsetting".
    TSC_OFFSET = 0x2010, "TSC offset";
    /// Physical; with "use TPR shadow".
    VIRTUAL_APIC_ADDRESS = 0x2012, "virtual-APIC address";
    /// Physical; with "virtualize APIC accesses".
    APIC_ACCESS_ADDRESS = 0x2014, "APIC-access address";
    /// Physical; with "process posted interrupts".
    POSTED_INTERRUPT_DESCRIPTOR_ADDRESS = 0x2016, "posted-interrupt descriptor address";
    /// With "enable VM functions".
    VM_FUNCTION_CONTROLS = 0x2018, "VM-function controls";
    /// Physical, with the walk's length and memory type; with "enable EPT".
    EPT_POINTER = 0x201a, "EPT pointer";
    /// Vectors 0 to 63; with "virtual-interrupt delivery".
    EOI_EXIT_BITMAP_0 = 0x201c, "EOI-exit bitmap 0";
    /// Vectors 64 to 127.
    EOI_EXIT_BITMAP_1 = 0x201e, "EOI-exit bitmap 1";
    /// Vectors 128 to 191.
    EOI_EXIT_BITMAP_2 = 0x2020, "EOI-exit bitmap 2";
    /// Vectors 192 to 255.
    EOI_EXIT_BITMAP_3 = 0x2022, "EOI-exit bitmap 3";
    /// Physical; with the VM function "EPTP switching".
    EPTP_LIST_ADDRESS = 0x2024, "EPTP-list address";
    /// Physical; with "VMCS shadowing".
    VMREAD_BITMAP_ADDRESS = 0x2026, "VMREAD-bitmap address";
    /// Physical; with "VMCS shadowing".
    VMWRITE_BITMAP_ADDRESS = 0x2028, "VMWRITE-bitmap address";
    /// Physical; with "EPT-violation #VE".
    VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS = 0x202a, "virtualization-exception information address";
    /// With "enable XSAVES/XRSTORS".
    XSS_EXITING_BITMAP = 0x202c, "XSS-exiting bitmap";
    /// With "enable ENCLS exiting".
    ENCLS_EXITING_BITMAP = 0x202e, "ENCLS-exiting bitmap";
    /// Physical; with "sub-page write permissions for EPT".
    SUB_PAGE_PERMISSION_TABLE_POINTER = 0x2030, "sub-page-permission-table pointer";
    /// 48 bits behind the point; with "use TSC scaling".
    TSC_MULTIPLIER = 0x2032, "TSC multiplier";
    /// With "activate tertiary controls".
    TERTIARY_CONTROLS = 0x2034, "tertiary processor-based VM-execution controls";
    /// With "enable ENCLV exiting"; the editions of 2026 leave it out.
    ENCLV_EXITING_BITMAP = 0x2036, "ENCLV-exiting bitmap";
    /// Physical; with "PASID translation".
    LOW_PASID_DIRECTORY_ADDRESS = 0x2038, "low PASID directory address";
    /// Physical; with "PASID translation".
    HIGH_PASID_DIRECTORY_ADDRESS = 0x203a, "high PASID directory address";
    /// With "SEAM guest-physical address width".
    SHARED_EPT_POINTER = 0x203c, "SEAM shared EPT pointer";
    /// With "enable PCONFIG".
    PCONFIG_EXITING_BITMAP = 0x203e, "PCONFIG-exiting bitmap";
    /// Physical; with "enable HLAT".
    HLAT_POINTER = 0x2040, "hypervisor-managed linear-address translation pointer";
    /// Physical; with "IPI virtualization".
    PID_POINTER_TABLE_ADDRESS = 0x2042, "PID-pointer table address";
    /// With "activate secondary controls" of the primary VM-exit controls.
    SECONDARY_EXIT_CONTROLS = 0x2044, "secondary VM-exit controls";
    /// With "virtualize IA32_SPEC_CTRL".
    SPEC_CTRL_MASK = 0x204a, "IA32_SPEC_CTRL mask";
    /// With "virtualize IA32_SPEC_CTRL".
    SPEC_CTRL_SHADOW = 0x204c, "IA32_SPEC_CTRL shadow";
    /// By the guest's own time-stamp counter; with "APIC-timer virtualization".
    GUEST_DEADLINE_SHADOW = 0x204e, "guest deadline shadow";
    /// Where FRED transitions are.
    INJECTED_EVENT_DATA = 0x2052, "injected-event data";
}

fields! {
    /// 32-bit control fields (SDM volume 3D, table B-8).
    TABLE_B_8: Bits32, ReadWrite, Control;
    /// Section 26.6.1.
    PIN_BASED_CONTROLS = 0x4000, "pin-based VM-execution controls";
    /// Section 26.6.2.
    PRIMARY_CONTROLS = 0x4002, "primary processor-based VM-execution controls";
    /// A bit for each vector below 32; page faults also ask the mask and match.
    EXCEPTION_BITMAP = 0x4004, "exception bitmap";
    /// Bits of the error code that are compared with the match.
    PAGE_FAULT_ERROR_CODE_MASK = 0x4006, "page-fault error-code mask";
    /// What they are compared with.
    PAGE_FAULT_ERROR_CODE_MATCH = 0x4008, "page-fault error-code match";
    /// How many of the CR3-target values count.
    CR3_TARGET_COUNT = 0x400a, "CR3-target count";
    /// Section 26.7.1.
    EXIT_CONTROLS = 0x400c, "primary VM-exit controls";
    /// Entries of 16 bytes.
    EXIT_MSR_STORE_COUNT = 0x400e, "VM-exit MSR-store count";
    /// Entries of 16 bytes.
    EXIT_MSR_LOAD_COUNT = 0x4010, "VM-exit MSR-load count";
    /// Section 26.8.1.
    ENTRY_CONTROLS = 0x4012, "VM-entry controls";
    /// Entries of 16 bytes.
    ENTRY_MSR_LOAD_COUNT = 0x4014, "VM-entry MSR-load count";
    /// The event to inject; "injected-event identification" in the newest editions.
    ENTRY_INTERRUPTION_INFORMATION = 0x4016, "VM-entry interruption information";
    /// Its error code; "injected-event error code".
    ENTRY_EXCEPTION_ERROR_CODE = 0x4018, "VM-entry exception error code";
    /// Of a software interrupt or exception that is injected.
    ENTRY_INSTRUCTION_LENGTH = 0x401a, "VM-entry instruction length";
    /// With "use TPR shadow".
    TPR_THRESHOLD = 0x401c, "TPR threshold";
    /// With "activate secondary controls".
    SECONDARY_CONTROLS = 0x401e, "secondary processor-based VM-execution controls";
    /// Ticks of the TSC; with "PAUSE-loop exiting".
    PLE_GAP = 0x4020, "PLE_Gap";
    /// Ticks of the TSC; with "PAUSE-loop exiting".
    PLE_WINDOW = 0x4022, "PLE_Window";
    /// With "instruction timeout".
    INSTRUCTION_TIMEOUT_CONTROL = 0x4024, "instruction-timeout control";
    /// With "SEAM guest-physical address width".
    SEAM_GUEST_KEY_ID = 0x4026, "SEAM-guest KeyID";
}

fields! {
    /// Natural-width control fields (SDM volume 3D, table B-12).
    TABLE_B_12: Natural, ReadWrite, Control;
    /// Bits that are the host's.
    CR0_GUEST_HOST_MASK = 0x6000, "CR0 guest/host mask";
    /// Bits that are the host's.
    CR4_GUEST_HOST_MASK = 0x6002, "CR4 guest/host mask";
    /// What the guest reads in the host's bits.
    CR0_READ_SHADOW = 0x6004, "CR0 read shadow";
    /// What the guest reads in the host's bits.
    CR4_READ_SHADOW = 0x6006, "CR4 read shadow";
    /// Writing it to CR3 is no exit.
    CR3_TARGET_VALUE_0 = 0x6008, "CR3-target value 0";
    /// Writing it to CR3 is no exit.
    CR3_TARGET_VALUE_1 = 0x600a, "CR3-target value 1";
    /// Writing it to CR3 is no exit.
    CR3_TARGET_VALUE_2 = 0x600c, "CR3-target value 2";
    /// Writing it to CR3 is no exit.
    CR3_TARGET_VALUE_3 = 0x600e, "CR3-target value 3";
}
