//! A good VMCS, and a processor that can everything, for tests.

use crate::vmx::capability::{Allowed, Basic, EptVpid, FeatureControl, Misc, Processor};
use crate::vmx::controls::{entry, exit, pin, primary, secondary};
use crate::vmx::fields::*;
use crate::vmx::{Capabilities, PlainVmcs};

/// Bits of controls that are always 1 (SDM volume 3D, section A.2).
const PIN_ONES: u64 = 1 << 1 | 1 << 2 | 1 << 4;
const PRIMARY_ONES: u64 = 1 << 1 | 7 << 4 | 1 << 8 | 3 << 13 | 1 << 26;
const EXIT_ONES: u64 = 0x1fb | 3 << 10 | 3 << 13 | 3 << 16;
const ENTRY_ONES: u64 = 0x1fb | 1 << 12;

/// All controls of a group, and those that must be.
fn allowed(group: &[crate::vmx::controls::Control], must: u64) -> Allowed {
    Allowed {
        must,
        may: group.iter().fold(must, |may, control| may | 1 << control.bit),
    }
}

/// A processor that can everything but supervisor shadow stacks in EPT, RTM's neighbours and FRED events.
pub(crate) fn capabilities() -> Capabilities {
    use crate::vmx::controls::{secondary_exit, tertiary};

    Capabilities {
        feature_control: FeatureControl(5),
        basic: Basic(0x0050_1000_0000_002b | 1 << 55),
        pin: allowed(pin::ALL, PIN_ONES),
        primary: allowed(primary::ALL, PRIMARY_ONES),
        secondary: allowed(secondary::ALL, 0),
        tertiary: allowed(tertiary::ALL, 0),
        exit: allowed(exit::ALL, EXIT_ONES),
        secondary_exit: allowed(secondary_exit::ALL, 0),
        // The two controls of SMM are offered, but not here.
        entry: allowed(entry::ALL, ENTRY_ONES),
        misc: Misc(0x6004_01e5),
        cr0_fixed0: 0x8000_0021,
        cr0_fixed1: 0xffff_ffff,
        cr4_fixed0: 0x2000,
        cr4_fixed1: 0x1_03f7_7fff,
        vmcs_enum: 0x2e,
        ept_vpid: EptVpid(0x0000_0f01_0673_41c1),
        vm_functions: 1,
        processor: Processor {
            physical_bits: 46,
            sgx: true,
            rtm: true,
            debugctl: 0xffc3,
            shadow_stacks: true,
            branch_tracking: true,
            ..Processor::default()
        },
    }
}

/// A VMCS of a 64-bit guest at the end of its first instruction, as it were.
pub(crate) fn vmcs() -> PlainVmcs {
    const LONG: u64 = 1 << 8 | 1 << 10 | 1 << 11;
    const UNUSABLE: u32 = 1 << 16;
    const PAT: u64 = 0x0007_0406_0007_0406;

    PlainVmcs::default()
        .with(
            PIN_BASED_CONTROLS,
            (PIN_ONES | pin::NMI_EXITING | pin::ACTIVATE_VMX_PREEMPTION_TIMER) as u32,
        )
        .with(
            PRIMARY_CONTROLS,
            (PRIMARY_ONES | primary::ACTIVATE_SECONDARY_CONTROLS | primary::USE_MSR_BITMAPS | primary::HLT_EXITING)
                as u32,
        )
        .with(
            SECONDARY_CONTROLS,
            (secondary::ENABLE_EPT | secondary::UNRESTRICTED_GUEST | secondary::ENABLE_VPID) as u32,
        )
        .with(VIRTUAL_PROCESSOR_ID, 1)
        .with(EPT_POINTER, 0x10_0000 | 3 << 3 | 6)
        .with(MSR_BITMAPS, 0x20_0000)
        .with(
            EXIT_CONTROLS,
            (EXIT_ONES
                | exit::HOST_ADDRESS_SPACE_SIZE
                | exit::LOAD_IA32_EFER
                | exit::SAVE_IA32_EFER
                | exit::LOAD_IA32_PAT) as u32,
        )
        .with(
            ENTRY_CONTROLS,
            (ENTRY_ONES | entry::IA32E_MODE_GUEST | entry::LOAD_IA32_EFER | entry::LOAD_DEBUG_CONTROLS) as u32,
        )
        .with(HOST_CR0, 0x8005_0033)
        .with(HOST_CR3, 0x30_0000)
        .with(HOST_CR4, 0x2668)
        .with(HOST_EFER, LONG)
        .with(HOST_PAT, PAT)
        .with(HOST_CS_SELECTOR, 0x08)
        .with(HOST_TR_SELECTOR, 0x18)
        .with(HOST_GDTR_BASE, 0xffff_8000_0000_1000)
        .with(HOST_IDTR_BASE, 0xffff_8000_0000_2000)
        .with(HOST_TR_BASE, 0xffff_8000_0000_3000)
        .with(HOST_RIP, 0xffff_8000_0010_0000)
        .with(HOST_RSP, 0xffff_8000_0020_0000)
        .with(GUEST_CR0, 0x8001_0031)
        .with(GUEST_CR3, 0x4000)
        .with(GUEST_CR4, 0x2620)
        .with(GUEST_EFER, LONG)
        .with(GUEST_PAT, PAT)
        .with(GUEST_DR7, 0x400)
        .with(GUEST_CS_SELECTOR, 0x08)
        .with(GUEST_CS_LIMIT, 0xffff_ffff)
        .with(GUEST_CS_ACCESS_RIGHTS, 0xa09b)
        .with(GUEST_SS_ACCESS_RIGHTS, UNUSABLE)
        .with(GUEST_DS_ACCESS_RIGHTS, UNUSABLE)
        .with(GUEST_ES_ACCESS_RIGHTS, UNUSABLE)
        .with(GUEST_FS_ACCESS_RIGHTS, UNUSABLE)
        .with(GUEST_GS_ACCESS_RIGHTS, UNUSABLE)
        .with(GUEST_LDTR_ACCESS_RIGHTS, UNUSABLE)
        .with(GUEST_TR_SELECTOR, 0x20)
        .with(GUEST_TR_LIMIT, 0x67)
        .with(GUEST_TR_ACCESS_RIGHTS, 0x8b)
        .with(GUEST_GDTR_LIMIT, 0x3f)
        .with(GUEST_IDTR_LIMIT, 0xfff)
        .with(GUEST_RIP, 0x20_0000)
        .with(GUEST_RSP, 0x30_0000)
        .with(GUEST_RFLAGS, 0x3002)
        .with(VMCS_LINK_POINTER, u64::MAX)
        .with(TSC_MULTIPLIER, 1 << 48)
}
