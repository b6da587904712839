//! For each rule the ways to break it.

use alloc::borrow::ToOwned;
use alloc::vec;
use alloc::vec::Vec;

use super::{Case, Change, To};
use crate::vmx::controls::{entry, exit, pin, primary, secondary, secondary_exit, tertiary};
use crate::vmx::field::{Field, Width};
use crate::vmx::fields::*;

/// A field becomes a value.
const fn value<W: Width, A>(field: Field<W, A>, value: u64) -> Change {
    Change {
        field: erase(field),
        to: To::Value(value),
    }
}

/// Bits become 1.
const fn set<W: Width, A>(field: Field<W, A>, bits: u64) -> Change {
    Change {
        field: erase(field),
        to: To::Set(bits),
    }
}

/// Bits become 0.
const fn clear<W: Width, A>(field: Field<W, A>, bits: u64) -> Change {
    Change {
        field: erase(field),
        to: To::Clear(bits),
    }
}

/// A field leads to the scratch page.
const fn scratch<W: Width, A>(field: Field<W, A>, offset: u64) -> Change {
    Change {
        field: erase(field),
        to: To::Scratch(offset),
    }
}

/// The field without its type.
const fn erase<W: Width, A>(field: Field<W, A>) -> crate::vmx::field::AnyField {
    field.any()
}

/// An address beyond any processor's memory.
const FAR: u64 = 1 << 52;
/// An address that is not canonical on any processor.
const CROOKED: u64 = 1 << 62;
/// The level-3 writable data of virtual-8086 mode.
const RIGHTS_8086: u64 = 0xf3;

/// The guest may not be in real mode.
const RESTRICTED: &[Change] = &[clear(SECONDARY_CONTROLS, secondary::UNRESTRICTED_GUEST)];
/// The guest is in 32-bit protected mode, with PAE paging.
const SHORT: &[Change] = &[
    clear(ENTRY_CONTROLS, entry::IA32E_MODE_GUEST),
    clear(GUEST_EFER, 1 << 8 | 1 << 10),
    clear(GUEST_CR4, 1 << 17),
    clear(GUEST_CS_ACCESS_RIGHTS, 1 << 13),
    set(GUEST_CS_ACCESS_RIGHTS, 1 << 14),
    value(GUEST_RIP, 0x1000),
    value(GUEST_PDPTE0, 0),
    value(GUEST_PDPTE1, 0),
    value(GUEST_PDPTE2, 0),
    value(GUEST_PDPTE3, 0),
];
/// The guest is in real mode: besides, no paging and no protection.
const REAL: &[Change] = &[clear(GUEST_CR0, 1 << 31 | 1)];
/// The guest is in virtual-8086 mode: besides.
const VIRTUAL_8086: &[Change] = &[
    set(GUEST_RFLAGS, 1 << 17),
    value(GUEST_CS_SELECTOR, 0x100),
    value(GUEST_SS_SELECTOR, 0x100),
    value(GUEST_DS_SELECTOR, 0x100),
    value(GUEST_ES_SELECTOR, 0x100),
    value(GUEST_FS_SELECTOR, 0x100),
    value(GUEST_GS_SELECTOR, 0x100),
    value(GUEST_CS_BASE, 0x1000),
    value(GUEST_SS_BASE, 0x1000),
    value(GUEST_DS_BASE, 0x1000),
    value(GUEST_ES_BASE, 0x1000),
    value(GUEST_FS_BASE, 0x1000),
    value(GUEST_GS_BASE, 0x1000),
    value(GUEST_CS_LIMIT, 0xffff),
    value(GUEST_SS_LIMIT, 0xffff),
    value(GUEST_DS_LIMIT, 0xffff),
    value(GUEST_ES_LIMIT, 0xffff),
    value(GUEST_FS_LIMIT, 0xffff),
    value(GUEST_GS_LIMIT, 0xffff),
    value(GUEST_CS_ACCESS_RIGHTS, RIGHTS_8086),
    value(GUEST_SS_ACCESS_RIGHTS, RIGHTS_8086),
    value(GUEST_DS_ACCESS_RIGHTS, RIGHTS_8086),
    value(GUEST_ES_ACCESS_RIGHTS, RIGHTS_8086),
    value(GUEST_FS_ACCESS_RIGHTS, RIGHTS_8086),
    value(GUEST_GS_ACCESS_RIGHTS, RIGHTS_8086),
];
/// A data segment that is usable: present, level 0, accessed and writable, flat.
const USABLE_DS: &[Change] = &[
    value(GUEST_DS_SELECTOR, 0x10),
    value(GUEST_DS_BASE, 0),
    value(GUEST_DS_LIMIT, 0xffff_ffff),
    value(GUEST_DS_ACCESS_RIGHTS, 0xc093),
];
/// A stack segment that is usable.
const USABLE_SS: &[Change] = &[
    value(GUEST_SS_BASE, 0),
    value(GUEST_SS_LIMIT, 0xffff_ffff),
    value(GUEST_SS_ACCESS_RIGHTS, 0xc093),
    value(GUEST_SS_SELECTOR, 0x10),
];
/// An LDTR that is usable.
const USABLE_LDTR: &[Change] = &[
    value(GUEST_LDTR_SELECTOR, 0x30),
    value(GUEST_LDTR_BASE, 0),
    value(GUEST_LDTR_LIMIT, 0xff),
    value(GUEST_LDTR_ACCESS_RIGHTS, 0x82),
];
/// The TPR is shadowed.
const SHADOWED: &[Change] = &[
    set(PRIMARY_CONTROLS, primary::USE_TPR_SHADOW),
    scratch(VIRTUAL_APIC_ADDRESS, 0),
];
/// Virtual interrupts are delivered.
const DELIVERED: &[Change] = &[
    set(PIN_BASED_CONTROLS, pin::EXTERNAL_INTERRUPT_EXITING),
    set(SECONDARY_CONTROLS, secondary::VIRTUAL_INTERRUPT_DELIVERY),
];
/// Interrupts are posted.
const POSTED: &[Change] = &[
    set(PIN_BASED_CONTROLS, pin::PROCESS_POSTED_INTERRUPTS),
    set(EXIT_CONTROLS, exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT),
    scratch(POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, 0),
    value(POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0x20),
];
/// There is no EPT, and nothing that needs it.
const NO_EPT: &[Change] = &[clear(
    SECONDARY_CONTROLS,
    secondary::ENABLE_EPT | secondary::UNRESTRICTED_GUEST,
)];
/// EPT pointers may be switched.
const SWITCHED: &[Change] = &[
    set(SECONDARY_CONTROLS, secondary::ENABLE_VM_FUNCTIONS),
    value(VM_FUNCTION_CONTROLS, 1),
    scratch(EPTP_LIST_ADDRESS, 0),
];
/// The VMCS is shadowed by that in the scratch page.
const SHADOWING: &[Change] = &[
    set(SECONDARY_CONTROLS, secondary::VMCS_SHADOWING),
    scratch(VMREAD_BITMAP_ADDRESS, 0),
    scratch(VMWRITE_BITMAP_ADDRESS, 0),
];
/// Tertiary controls count.
const TERTIARY: &[Change] = &[
    set(PRIMARY_CONTROLS, primary::ACTIVATE_TERTIARY_CONTROLS),
    value(TERTIARY_CONTROLS, 0),
];
/// IPIs are virtual.
const IPIS: &[Change] = &[
    set(PRIMARY_CONTROLS, primary::ACTIVATE_TERTIARY_CONTROLS),
    value(TERTIARY_CONTROLS, tertiary::IPI_VIRTUALIZATION),
    scratch(PID_POINTER_TABLE_ADDRESS, 0),
    value(LAST_PID_POINTER_INDEX, 0),
];
/// The guest's APIC has a timer of its own.
const APIC_TIMER: &[Change] = &[
    set(PRIMARY_CONTROLS, primary::ACTIVATE_TERTIARY_CONTROLS),
    value(TERTIARY_CONTROLS, tertiary::APIC_TIMER_VIRTUALIZATION),
    clear(PRIMARY_CONTROLS, primary::RDTSC_EXITING),
    value(VIRTUAL_TIMER_VECTOR, 0x20),
];
/// IA32_SPEC_CTRL is loaded by an exit.
const HOST_SPEC: &[Change] = &[
    set(EXIT_CONTROLS, exit::ACTIVATE_SECONDARY_CONTROLS),
    value(SECONDARY_EXIT_CONTROLS, secondary_exit::LOAD_IA32_SPEC_CTRL),
];
/// The guest uses FRED.
const FRED: &[Change] = &[set(GUEST_CR4, 1 << 32)];
/// The guest is at this privilege level.
const fn level(level: u64) -> [Change; 4] {
    [
        clear(GUEST_CS_ACCESS_RIGHTS, 3 << 5),
        set(GUEST_CS_ACCESS_RIGHTS, level << 5),
        clear(GUEST_SS_ACCESS_RIGHTS, 3 << 5),
        set(GUEST_SS_ACCESS_RIGHTS, level << 5),
    ]
}
/// FRED is loaded by an exit.
const HOST_FRED: &[Change] = &[
    set(EXIT_CONTROLS, exit::ACTIVATE_SECONDARY_CONTROLS),
    value(SECONDARY_EXIT_CONTROLS, secondary_exit::LOAD_FRED),
];
/// The hypervisor comes back in 32-bit mode, to which it cannot, from a guest in 32-bit mode.
const SHORT_HOST: &[Change] = &[
    clear(EXIT_CONTROLS, exit::HOST_ADDRESS_SPACE_SIZE),
    clear(HOST_EFER, 1 << 8 | 1 << 10),
    value(HOST_SS_SELECTOR, 0x10),
    clear(HOST_CR4, 1 << 17),
    value(HOST_RIP, 0x1000),
];

/// An event to inject.
const fn inject(event: u64) -> Change {
    value(ENTRY_INTERRUPTION_INFORMATION, 1 << 31 | event)
}

const INTERRUPT: Change = inject(0x20);
const NMI: Change = inject(0x202);
const UD: Change = inject(0x306);
const GP: Change = inject(0xb0d);
const INT_80: Change = inject(0x480);
const LENGTH_2: Change = value(ENTRY_INSTRUCTION_LENGTH, 2);

/// A list of one MSR: IA32_SYSENTER_CS.
const MSR_LIST: &[(u64, u64)] = &[(0, 0x174), (8, 0)];

/// Makes a case of groups of changes.
fn case(rule: &'static str, name: &str, changes: &[&[Change]]) -> Case {
    Case {
        rule: Some(rule),
        also: &[],
        name: name.to_owned(),
        changes: changes.concat(),
        memory: &[],
    }
}

impl Case {
    /// With rules that break too.
    fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    /// With something in the scratch page.
    fn memory(self, memory: &'static [(u64, u64)]) -> Self {
        Self { memory, ..self }
    }
}

/// Every case, by the order of the rules.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        execution(),
        virtual_apic(),
        second_level(),
        exit_and_entry(),
        host(),
        registers(),
        segments(),
        rest(),
    ]
    .concat()
}

/// Reserved bits, bitmaps, and controls that need others.
fn execution() -> Vec<Case> {
    vec![
        case(
            "pin_reserved",
            "bit 31 of the pin-based controls",
            &[&[set(PIN_BASED_CONTROLS, 1 << 31)]],
        ),
        case(
            "pin_reserved",
            "bit 1 of the pin-based controls cleared",
            &[&[clear(PIN_BASED_CONTROLS, 1 << 1)]],
        ),
        case(
            "primary_reserved",
            "bit 0 of the primary controls",
            &[&[set(PRIMARY_CONTROLS, 1)]],
        ),
        case(
            "primary_reserved",
            "bit 1 of the primary controls cleared",
            &[&[clear(PRIMARY_CONTROLS, 1 << 1)]],
        ),
        case(
            "secondary_reserved",
            "bit 29 of the secondary controls",
            &[&[set(SECONDARY_CONTROLS, 1 << 29)]],
        ),
        case(
            "tertiary_reserved",
            "bit 63 of the tertiary controls",
            &[TERTIARY, &[set(TERTIARY_CONTROLS, 1 << 63)]],
        ),
        case(
            "cr3_target_count",
            "more CR3 targets than there are",
            &[&[value(CR3_TARGET_COUNT, 0x200)]],
        ),
        case(
            "io_bitmaps",
            "I/O bitmap A off a page",
            &[IO, &[value(IO_BITMAP_A, 0x1010)]],
        ),
        case("io_bitmaps", "I/O bitmap A too far", &[IO, &[value(IO_BITMAP_A, FAR)]]),
        case(
            "io_bitmaps",
            "I/O bitmap B off a page",
            &[IO, &[value(IO_BITMAP_B, 0x1800)]],
        ),
        case("io_bitmaps", "I/O bitmap B too far", &[IO, &[value(IO_BITMAP_B, FAR)]]),
        case(
            "msr_bitmaps",
            "MSR bitmaps off a page",
            &[MSRS, &[value(MSR_BITMAPS, 0x1001)]],
        ),
        case(
            "msr_bitmaps",
            "MSR bitmaps too far",
            &[MSRS, &[value(MSR_BITMAPS, FAR)]],
        ),
        case(
            "virtual_nmis_without_nmi_exiting",
            "virtual NMIs alone",
            &[&[
                set(PIN_BASED_CONTROLS, pin::VIRTUAL_NMIS),
                clear(PIN_BASED_CONTROLS, pin::NMI_EXITING),
            ]],
        ),
        case(
            "nmi_window_without_virtual_nmis",
            "NMI window alone",
            &[&[
                clear(PIN_BASED_CONTROLS, pin::VIRTUAL_NMIS),
                set(PRIMARY_CONTROLS, primary::NMI_WINDOW_EXITING),
            ]],
        ),
        case(
            "vpid_zero",
            "VPID 0",
            &[&[
                set(SECONDARY_CONTROLS, secondary::ENABLE_VPID),
                value(VIRTUAL_PROCESSOR_ID, 0),
            ]],
        ),
        case(
            "tsc_multiplier_zero",
            "a TSC multiplier of 0",
            &[&[
                set(SECONDARY_CONTROLS, secondary::USE_TSC_SCALING),
                value(TSC_MULTIPLIER, 0),
            ]],
        ),
        case(
            "processor_trace_needs_ept",
            "Intel PT by guest-physical addresses alone",
            &[&[
                set(SECONDARY_CONTROLS, secondary::INTEL_PT_USES_GUEST_PHYSICAL_ADDRESSES),
                clear(ENTRY_CONTROLS, entry::LOAD_IA32_RTIT_CTL),
            ]],
        ),
        case(
            "pasid_directories",
            "low PASID directory off a page",
            &[&[
                set(SECONDARY_CONTROLS, secondary::PASID_TRANSLATION),
                value(LOW_PASID_DIRECTORY_ADDRESS, 8),
            ]],
        ),
        case(
            "pasid_directories",
            "high PASID directory too far",
            &[&[
                set(SECONDARY_CONTROLS, secondary::PASID_TRANSLATION),
                value(HIGH_PASID_DIRECTORY_ADDRESS, FAR),
            ]],
        ),
        case(
            "hlat_pointer",
            "bit 5 of the HLAT pointer",
            &[
                TERTIARY,
                &[
                    set(TERTIARY_CONTROLS, tertiary::ENABLE_HLAT),
                    value(HLAT_POINTER, 1 << 5),
                ],
            ],
        ),
        case(
            "pid_pointer_table",
            "the PID-pointer table off its place",
            &[SHADOWED, IPIS, &[value(PID_POINTER_TABLE_ADDRESS, 4)]],
        ),
        case(
            "pid_pointer_table",
            "a PID-pointer table that ends too far",
            &[
                SHADOWED,
                IPIS,
                &[
                    value(PID_POINTER_TABLE_ADDRESS, (1 << 52) - 8),
                    value(LAST_PID_POINTER_INDEX, 1),
                ],
            ],
        ),
        case(
            "apic_timer_needs_delivery",
            "the APIC's timer without virtual-interrupt delivery",
            &[TERTIARY, &[set(TERTIARY_CONTROLS, tertiary::APIC_TIMER_VIRTUALIZATION)]],
        ),
        case(
            "apic_timer_needs_delivery",
            "the APIC's timer with RDTSC exiting",
            &[
                SHADOWED,
                DELIVERED,
                APIC_TIMER,
                &[set(PRIMARY_CONTROLS, primary::RDTSC_EXITING)],
            ],
        ),
        case(
            "virtual_timer_vector",
            "virtual timer vector 0x100",
            &[SHADOWED, DELIVERED, APIC_TIMER, &[value(VIRTUAL_TIMER_VECTOR, 0x100)]],
        ),
        case(
            "shadowing_bitmaps",
            "VMREAD bitmap off a page",
            &[SHADOWING, &[value(VMREAD_BITMAP_ADDRESS, 0x1234)]],
        ),
        case(
            "shadowing_bitmaps",
            "VMWRITE bitmap too far",
            &[SHADOWING, &[value(VMWRITE_BITMAP_ADDRESS, FAR)]],
        ),
    ]
}

/// I/O bitmaps are used.
const IO: &[Change] = &[
    set(PRIMARY_CONTROLS, primary::USE_I_O_BITMAPS),
    scratch(IO_BITMAP_A, 0),
    scratch(IO_BITMAP_B, 0),
];
/// MSR bitmaps are used.
const MSRS: &[Change] = &[set(PRIMARY_CONTROLS, primary::USE_MSR_BITMAPS)];

/// What virtualizes the local APIC.
fn virtual_apic() -> Vec<Case> {
    vec![
        case(
            "virtual_apic_page",
            "virtual-APIC page off a page",
            &[SHADOWED, &[value(VIRTUAL_APIC_ADDRESS, 0x10)]],
        ),
        case(
            "virtual_apic_page",
            "virtual-APIC page too far",
            &[SHADOWED, &[value(VIRTUAL_APIC_ADDRESS, FAR)]],
        ),
        case(
            "tpr_threshold_reserved",
            "TPR threshold 0x10",
            &[SHADOWED, &[value(TPR_THRESHOLD, 0x10)]],
        ),
        case(
            "tpr_threshold_above_tpr",
            "TPR threshold 3 above a TPR of 0x20",
            &[SHADOWED, &[value(TPR_THRESHOLD, 3)]],
        )
        .memory(&[(0x80, 0x20)]),
        case(
            "apic_virtualization_without_tpr_shadow",
            "APIC-register virtualization without TPR shadow",
            &[&[
                clear(PRIMARY_CONTROLS, primary::USE_TPR_SHADOW),
                set(SECONDARY_CONTROLS, secondary::APIC_REGISTER_VIRTUALIZATION),
            ]],
        ),
        case(
            "apic_virtualization_without_tpr_shadow",
            "x2APIC virtualization without TPR shadow",
            &[&[
                clear(PRIMARY_CONTROLS, primary::USE_TPR_SHADOW),
                set(SECONDARY_CONTROLS, secondary::VIRTUALIZE_X2APIC_MODE),
            ]],
        ),
        case(
            "apic_virtualization_without_tpr_shadow",
            "IPI virtualization without TPR shadow",
            &[IPIS, &[clear(PRIMARY_CONTROLS, primary::USE_TPR_SHADOW)]],
        ),
        case(
            "apic_virtualization_without_tpr_shadow",
            "virtual-interrupt delivery without TPR shadow",
            &[DELIVERED, &[clear(PRIMARY_CONTROLS, primary::USE_TPR_SHADOW)]],
        ),
        case(
            "apic_access_page",
            "APIC-access page off a page",
            &[&[
                set(SECONDARY_CONTROLS, secondary::VIRTUALIZE_APIC_ACCESSES),
                value(APIC_ACCESS_ADDRESS, 0x80),
            ]],
        ),
        case(
            "apic_access_page",
            "APIC-access page too far",
            &[&[
                set(SECONDARY_CONTROLS, secondary::VIRTUALIZE_APIC_ACCESSES),
                value(APIC_ACCESS_ADDRESS, FAR),
            ]],
        ),
        case(
            "x2apic_and_apic_accesses",
            "x2APIC mode and APIC accesses",
            &[
                SHADOWED,
                &[
                    set(
                        SECONDARY_CONTROLS,
                        secondary::VIRTUALIZE_X2APIC_MODE | secondary::VIRTUALIZE_APIC_ACCESSES,
                    ),
                    scratch(APIC_ACCESS_ADDRESS, 0),
                ],
            ],
        ),
        case(
            "virtual_interrupts_need_exits",
            "virtual interrupts, while real ones go to the guest",
            &[
                SHADOWED,
                DELIVERED,
                &[clear(PIN_BASED_CONTROLS, pin::EXTERNAL_INTERRUPT_EXITING)],
            ],
        ),
        case(
            "posted_interrupts_need_delivery",
            "posted interrupts that are not delivered",
            &[
                POSTED,
                &[clear(SECONDARY_CONTROLS, secondary::VIRTUAL_INTERRUPT_DELIVERY)],
            ],
        ),
        case(
            "posted_interrupts_need_acknowledgement",
            "posted interrupts that are not acknowledged",
            &[
                SHADOWED,
                DELIVERED,
                POSTED,
                &[clear(EXIT_CONTROLS, exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT)],
            ],
        ),
        case(
            "posted_interrupt_vector",
            "notification vector 0x100",
            &[
                SHADOWED,
                DELIVERED,
                POSTED,
                &[value(POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0x100)],
            ],
        ),
        case(
            "posted_interrupt_descriptor",
            "posted-interrupt descriptor off its place",
            &[
                SHADOWED,
                DELIVERED,
                POSTED,
                &[value(POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, 0x20)],
            ],
        ),
        case(
            "posted_interrupt_descriptor",
            "posted-interrupt descriptor too far",
            &[
                SHADOWED,
                DELIVERED,
                POSTED,
                &[value(POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, FAR)],
            ],
        ),
    ]
}

/// EPT and what needs it.
fn second_level() -> Vec<Case> {
    vec![
        case(
            "eptp_memory_type",
            "EPT memory type 1",
            &[&[clear(EPT_POINTER, 7), set(EPT_POINTER, 1)]],
        ),
        case(
            "eptp_memory_type",
            "EPT memory type 5",
            &[&[clear(EPT_POINTER, 7), set(EPT_POINTER, 5)]],
        ),
        case(
            "eptp_walk_length",
            "an EPT walk of 3 levels",
            &[&[clear(EPT_POINTER, 7 << 3), set(EPT_POINTER, 2 << 3)]],
        ),
        case(
            "eptp_walk_length",
            "an EPT walk of 8 levels",
            &[&[set(EPT_POINTER, 7 << 3)]],
        ),
        case(
            "eptp_reserved",
            "bit 8 of the EPT pointer",
            &[&[set(EPT_POINTER, 1 << 8)]],
        ),
        case(
            "eptp_reserved",
            "bit 7 of the EPT pointer",
            &[&[set(EPT_POINTER, 1 << 7)]],
        ),
        case("eptp_reserved", "an EPT too far", &[&[set(EPT_POINTER, FAR)]]),
        case(
            "pml_needs_ept",
            "PML without EPT",
            &[
                NO_EPT,
                &[set(SECONDARY_CONTROLS, secondary::ENABLE_PML), scratch(PML_ADDRESS, 0)],
            ],
        ),
        case(
            "pml_page",
            "PML off a page",
            &[&[
                set(SECONDARY_CONTROLS, secondary::ENABLE_PML),
                value(PML_ADDRESS, 0x1008),
            ]],
        ),
        case(
            "pml_page",
            "PML too far",
            &[&[set(SECONDARY_CONTROLS, secondary::ENABLE_PML), value(PML_ADDRESS, FAR)]],
        ),
        case(
            "unrestricted_guest_needs_ept",
            "an unrestricted guest without EPT",
            &[NO_EPT, &[set(SECONDARY_CONTROLS, secondary::UNRESTRICTED_GUEST)]],
        ),
        case(
            "mode_based_execution_needs_ept",
            "mode-based execution without EPT",
            &[
                NO_EPT,
                &[set(SECONDARY_CONTROLS, secondary::MODE_BASED_EXECUTE_CONTROL_FOR_EPT)],
            ],
        ),
        case(
            "sub_page_permissions_need_ept",
            "sub-page permissions without EPT",
            &[
                NO_EPT,
                &[
                    set(SECONDARY_CONTROLS, secondary::SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT),
                    scratch(SUB_PAGE_PERMISSION_TABLE_POINTER, 0),
                ],
            ],
        ),
        case(
            "sub_page_permission_table",
            "sub-page-permission table off a page",
            &[&[
                set(SECONDARY_CONTROLS, secondary::SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT),
                value(SUB_PAGE_PERMISSION_TABLE_POINTER, 0x40),
            ]],
        ),
        case(
            "tertiary_controls_need_ept",
            "HLAT without EPT",
            &[
                NO_EPT,
                TERTIARY,
                &[set(TERTIARY_CONTROLS, tertiary::ENABLE_HLAT), scratch(HLAT_POINTER, 0)],
            ],
        ),
        case(
            "tertiary_controls_need_ept",
            "EPT paging-write control without EPT",
            &[
                NO_EPT,
                TERTIARY,
                &[set(TERTIARY_CONTROLS, tertiary::EPT_PAGING_WRITE_CONTROL)],
            ],
        ),
        case(
            "tertiary_controls_need_ept",
            "guest-paging verification without EPT",
            &[
                NO_EPT,
                TERTIARY,
                &[set(TERTIARY_CONTROLS, tertiary::GUEST_PAGING_VERIFICATION)],
            ],
        ),
        case(
            "tertiary_controls_need_ept",
            "PEBS by guest-physical addresses without EPT",
            &[
                NO_EPT,
                TERTIARY,
                &[set(TERTIARY_CONTROLS, tertiary::PEBS_USES_GUEST_PHYSICAL_ADDRESSES)],
            ],
        ),
        case(
            "vm_functions_reserved",
            "VM function 63",
            &[SWITCHED, &[value(VM_FUNCTION_CONTROLS, 1 << 63)]],
        ),
        case(
            "eptp_switching_needs_ept",
            "EPTP switching without EPT",
            &[NO_EPT, SWITCHED],
        ),
        case(
            "eptp_list",
            "EPTP list off a page",
            &[SWITCHED, &[value(EPTP_LIST_ADDRESS, 0x1200)]],
        ),
        case(
            "eptp_list",
            "EPTP list too far",
            &[SWITCHED, &[value(EPTP_LIST_ADDRESS, FAR)]],
        ),
        case(
            "virtualization_exception_page",
            "#VE page off a page",
            &[&[
                set(SECONDARY_CONTROLS, secondary::EPT_VIOLATION_VE),
                value(VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS, 0x20),
            ]],
        ),
        case(
            "virtualization_exception_page",
            "#VE page too far",
            &[&[
                set(SECONDARY_CONTROLS, secondary::EPT_VIOLATION_VE),
                value(VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS, FAR),
            ]],
        ),
    ]
}

/// VM-exit and VM-entry controls.
fn exit_and_entry() -> Vec<Case> {
    let list = |rule, name, address, count, to: Change| {
        [
            case(rule, name, &[&[scratch_at(address, 8), value(count, 1)]]).memory(MSR_LIST),
            case(rule, "such a list too far", &[&[to, value(count, 1)]]),
            case(
                rule,
                "such a list that ends too far",
                &[&[value(address, (1 << 52) - 16), value(count, 2)]],
            ),
        ]
    };
    let mut all = vec![
        case(
            "exit_reserved",
            "bit 0 of the VM-exit controls cleared",
            &[&[clear(EXIT_CONTROLS, 1)]],
        ),
        case(
            "secondary_exit_reserved",
            "bit 63 of the secondary VM-exit controls",
            &[&[
                set(EXIT_CONTROLS, exit::ACTIVATE_SECONDARY_CONTROLS),
                value(SECONDARY_EXIT_CONTROLS, 1 << 63),
            ]],
        ),
        case(
            "save_timer_without_timer",
            "the preemption timer saved and not active",
            &[&[
                clear(PIN_BASED_CONTROLS, pin::ACTIVATE_VMX_PREEMPTION_TIMER),
                set(EXIT_CONTROLS, exit::SAVE_VMX_PREEMPTION_TIMER_VALUE),
            ]],
        ),
        case(
            "entry_reserved",
            "bit 31 of the VM-entry controls",
            &[&[set(ENTRY_CONTROLS, 1 << 31)]],
        ),
        case(
            "entry_reserved",
            "bit 0 of the VM-entry controls cleared",
            &[&[clear(ENTRY_CONTROLS, 1)]],
        ),
        case("injected_kind", "an event of kind 1", &[&[inject(0x120)]]),
        case("injected_vector", "SYSCALL without FRED", &[&[inject(0x701), LENGTH_2]]),
        case("injected_vector", "an NMI of vector 3", &[&[inject(0x203)]]),
        case("injected_vector", "exception 32", &[&[inject(0x320)]]),
        case(
            "injected_vector",
            "pending monitor trap of vector 9",
            &[&[inject(0x709)]],
        ),
        case("injected_error_code_bit", "#UD with an error code", &[&[inject(0xb06)]]),
        case(
            "injected_error_code_bit",
            "#GP without an error code",
            &[&[inject(0x30d)]],
        ),
        case(
            "injected_error_code_bit",
            "an interrupt with an error code",
            &[&[set(GUEST_RFLAGS, 0x200), inject(0x820)]],
        ),
        case(
            "injected_error_code_bit",
            "#GP with an error code in real mode",
            &[SHORT, REAL, &[GP]],
        ),
        case(
            "injected_error_code_bit",
            "#GP without an error code in a restricted guest without protection",
            &[SHORT, REAL, RESTRICTED, &[inject(0x30d)]],
        )
        .also(&["guest_cr0_fixed"]),
        case(
            "injected_reserved",
            "bit 13 of an interrupt",
            &[&[
                set(GUEST_RFLAGS, 0x200),
                INTERRUPT,
                set(ENTRY_INTERRUPTION_INFORMATION, 1 << 13),
            ]],
        ),
        case(
            "injected_reserved",
            "bit 12 of an event",
            &[&[UD, set(ENTRY_INTERRUPTION_INFORMATION, 1 << 12)]],
        ),
        case(
            "injected_reserved",
            "bit 30 of an event",
            &[&[UD, set(ENTRY_INTERRUPTION_INFORMATION, 1 << 30)]],
        ),
        case(
            "injected_error_code",
            "error code 0x10000",
            &[&[GP, value(ENTRY_EXCEPTION_ERROR_CODE, 1 << 16)]],
        ),
        case(
            "injected_instruction_length",
            "INT of 16 bytes",
            &[&[INT_80, value(ENTRY_INSTRUCTION_LENGTH, 16)]],
        ),
        case(
            "injected_instruction_length",
            "SYSCALL of 16 bytes",
            &[FRED, &[inject(0x701), value(ENTRY_INSTRUCTION_LENGTH, 16)]],
        ),
        case(
            "smm_controls",
            "entry to SMM",
            &[&[set(ENTRY_CONTROLS, entry::ENTRY_TO_SMM)]],
        )
        .also(&["smi_blocking"]),
        case(
            "smm_controls",
            "deactivate dual-monitor treatment",
            &[&[set(ENTRY_CONTROLS, entry::DEACTIVATE_DUAL_MONITOR_TREATMENT)]],
        ),
    ];
    all.extend(list(
        "exit_msr_store_list",
        "VM-exit MSR-store list off its place",
        EXIT_MSR_STORE_ADDRESS,
        EXIT_MSR_STORE_COUNT,
        value(EXIT_MSR_STORE_ADDRESS, FAR),
    ));
    all.extend(list(
        "exit_msr_load_list",
        "VM-exit MSR-load list off its place",
        EXIT_MSR_LOAD_ADDRESS,
        EXIT_MSR_LOAD_COUNT,
        value(EXIT_MSR_LOAD_ADDRESS, FAR),
    ));
    all.extend(list(
        "entry_msr_load_list",
        "VM-entry MSR-load list off its place",
        ENTRY_MSR_LOAD_ADDRESS,
        ENTRY_MSR_LOAD_COUNT,
        value(ENTRY_MSR_LOAD_ADDRESS, FAR),
    ));
    all
}

/// A field leads into the scratch page.
fn scratch_at<W: Width, A>(field: Field<W, A>, offset: u64) -> Change {
    scratch(field, offset)
}

/// Host state and address-space size.
fn host() -> Vec<Case> {
    let mut all = vec![
        case("host_cr0_fixed", "host CR0 without NE", &[&[clear(HOST_CR0, 1 << 5)]]),
        case("host_cr0_fixed", "host CR0 without PG", &[&[clear(HOST_CR0, 1 << 31)]]),
        case("host_cr0_fixed", "bit 32 of host CR0", &[&[set(HOST_CR0, 1 << 32)]]),
        case(
            "host_cr4_fixed",
            "host CR4 without VMXE",
            &[&[clear(HOST_CR4, 1 << 13)]],
        ),
        case("host_cr4_fixed", "bit 63 of host CR4", &[&[set(HOST_CR4, 1 << 63)]]),
        case(
            "host_cet_needs_write_protection",
            "host CET without write protection",
            &[&[set(HOST_CR4, 1 << 23), clear(HOST_CR0, 1 << 16)]],
        ),
        case("host_cr3_width", "host CR3 too far", &[&[set(HOST_CR3, FAR)]]),
        case(
            "host_sysenter_canonical",
            "host SYSENTER_ESP crooked",
            &[&[value(HOST_SYSENTER_ESP, CROOKED)]],
        ),
        case(
            "host_sysenter_canonical",
            "host SYSENTER_EIP crooked",
            &[&[value(HOST_SYSENTER_EIP, CROOKED)]],
        ),
        case(
            "host_perf_global_ctrl",
            "bit 63 of the host's IA32_PERF_GLOBAL_CTRL",
            &[&[
                set(EXIT_CONTROLS, exit::LOAD_IA32_PERF_GLOBAL_CTRL),
                value(HOST_PERF_GLOBAL_CTRL, 1 << 63),
            ]],
        ),
        case(
            "host_pat",
            "memory type 2 in the host's PAT",
            &[&[
                set(EXIT_CONTROLS, exit::LOAD_IA32_PAT),
                value(HOST_PAT, 0x0007_0406_0007_0402),
            ]],
        ),
        case(
            "host_pat",
            "memory type 8 in the host's PAT",
            &[&[
                set(EXIT_CONTROLS, exit::LOAD_IA32_PAT),
                value(HOST_PAT, 0x0807_0406_0007_0406),
            ]],
        ),
        case(
            "host_efer_reserved",
            "bit 1 of the host's EFER",
            &[&[set(EXIT_CONTROLS, exit::LOAD_IA32_EFER), set(HOST_EFER, 1 << 1)]],
        ),
        case(
            "host_efer_mode",
            "the host's EFER without LMA",
            &[&[set(EXIT_CONTROLS, exit::LOAD_IA32_EFER), clear(HOST_EFER, 1 << 10)]],
        ),
        case(
            "host_efer_mode",
            "the host's EFER without LME",
            &[&[set(EXIT_CONTROLS, exit::LOAD_IA32_EFER), clear(HOST_EFER, 1 << 8)]],
        ),
        case(
            "host_s_cet",
            "bit 6 of the host's S_CET",
            &[&[set(EXIT_CONTROLS, exit::LOAD_CET_STATE), value(HOST_S_CET, 1 << 6)]],
        ),
        case(
            "host_s_cet",
            "host SUPPRESS and TRACKER",
            &[&[set(EXIT_CONTROLS, exit::LOAD_CET_STATE), value(HOST_S_CET, 3 << 10)]],
        ),
        case(
            "host_ssp_aligned",
            "host SSP off its place",
            &[&[set(EXIT_CONTROLS, exit::LOAD_CET_STATE), value(HOST_SSP, 0x1002)]],
        ),
        case(
            "host_cet_canonical",
            "host SSP crooked",
            &[&[set(EXIT_CONTROLS, exit::LOAD_CET_STATE), value(HOST_SSP, CROOKED)]],
        ),
        case(
            "host_cet_canonical",
            "the host's shadow-stack table crooked",
            &[&[
                set(EXIT_CONTROLS, exit::LOAD_CET_STATE),
                value(HOST_INTERRUPT_SSP_TABLE_ADDRESS, CROOKED),
            ]],
        ),
        case(
            "host_pkrs",
            "bit 32 of the host's PKRS",
            &[&[set(EXIT_CONTROLS, exit::LOAD_PKRS), value(HOST_PKRS, 1 << 32)]],
        ),
        case(
            "host_fred",
            "bit 2 of the host's FRED_CONFIG",
            &[HOST_FRED, &[value(HOST_FRED_CONFIG, 4)]],
        ),
        case(
            "host_spec_ctrl",
            "bit 9 of the host's SPEC_CTRL",
            &[HOST_SPEC, &[value(HOST_SPEC_CTRL, 1 << 9)]],
        ),
        case(
            "host_ss_null",
            "no host SS in 32-bit mode",
            &[SHORT, SHORT_HOST, &[value(HOST_SS_SELECTOR, 0)]],
        )
        .also(&["host_stays_long"]),
        case("host_stays_long", "a host in 32-bit mode", &[SHORT, SHORT_HOST]),
        case(
            "long_guest_needs_long_host",
            "a 64-bit guest of a 32-bit host",
            &[SHORT_HOST],
        )
        .also(&["host_stays_long"]),
        case(
            "short_host_cr4",
            "PCIDE in a 32-bit host",
            &[SHORT, SHORT_HOST, &[set(HOST_CR4, 1 << 17)]],
        )
        .also(&["host_stays_long"]),
        case(
            "short_host_rip",
            "a high RIP in a 32-bit host",
            &[SHORT, SHORT_HOST, &[value(HOST_RIP, 1 << 32)]],
        )
        .also(&["host_stays_long"]),
        case(
            "short_host_cet",
            "a high SSP in a 32-bit host",
            &[
                SHORT,
                SHORT_HOST,
                &[set(EXIT_CONTROLS, exit::LOAD_CET_STATE), value(HOST_SSP, 1 << 32)],
            ],
        )
        .also(&["host_stays_long"]),
        case(
            "long_host_pae",
            "no PAE in a 64-bit host",
            &[&[clear(HOST_CR4, 1 << 5)]],
        ),
        case("long_host_rip", "host RIP crooked", &[&[value(HOST_RIP, CROOKED)]]),
    ];
    for (name, field) in [
        ("ES", HOST_ES_SELECTOR),
        ("CS", HOST_CS_SELECTOR),
        ("SS", HOST_SS_SELECTOR),
        ("DS", HOST_DS_SELECTOR),
        ("FS", HOST_FS_SELECTOR),
        ("GS", HOST_GS_SELECTOR),
        ("TR", HOST_TR_SELECTOR),
    ] {
        for (bit, what) in ["level 1", "level 2", "in an LDT"].into_iter().enumerate() {
            all.push(case(
                "host_selector_bits",
                &alloc::format!("host {name} {what}"),
                &[&[set(field, 1 << bit)]],
            ));
        }
    }
    for (name, field) in [("CS", HOST_CS_SELECTOR), ("TR", HOST_TR_SELECTOR)] {
        all.push(case(
            "host_selector_null",
            &alloc::format!("host {name} 0"),
            &[&[value(field, 0)]],
        ));
    }
    for (name, field) in [
        ("FS", HOST_FS_BASE),
        ("GS", HOST_GS_BASE),
        ("TR", HOST_TR_BASE),
        ("GDTR", HOST_GDTR_BASE),
        ("IDTR", HOST_IDTR_BASE),
    ] {
        all.push(case(
            "host_base_canonical",
            &alloc::format!("host {name} crooked"),
            &[&[value(field, CROOKED)]],
        ));
    }
    all
}

/// Guest control registers, debug registers, and MSRs, with FRED's of the host.
fn registers() -> Vec<Case> {
    let mut all = vec![
        case(
            "guest_cr0_fixed",
            "guest CR0 without NE",
            &[&[clear(GUEST_CR0, 1 << 5)]],
        ),
        case("guest_cr0_fixed", "bit 32 of guest CR0", &[&[set(GUEST_CR0, 1 << 32)]]),
        case(
            "guest_cr0_fixed",
            "no protection in a restricted guest",
            &[SHORT, REAL, RESTRICTED],
        ),
        case(
            "guest_paging_needs_protection",
            "paging without protection",
            &[SHORT, &[clear(GUEST_CR0, 1)]],
        ),
        case(
            "guest_cr4_fixed",
            "guest CR4 without VMXE",
            &[&[clear(GUEST_CR4, 1 << 13)]],
        ),
        case("guest_cr4_fixed", "bit 63 of guest CR4", &[&[set(GUEST_CR4, 1 << 63)]]),
        case(
            "guest_cet_needs_write_protection",
            "guest CET without write protection",
            &[&[set(GUEST_CR4, 1 << 23), clear(GUEST_CR0, 1 << 16)]],
        ),
        case(
            "guest_debugctl",
            "bit 63 of the guest's DEBUGCTL",
            &[&[
                set(ENTRY_CONTROLS, entry::LOAD_DEBUG_CONTROLS),
                value(GUEST_DEBUGCTL, 1 << 63),
            ]],
        ),
        case(
            "long_guest_paging",
            "IA-32e mode without paging",
            &[&[clear(GUEST_CR0, 1 << 31)]],
        ),
        case(
            "long_guest_pae",
            "IA-32e mode without PAE",
            &[&[clear(GUEST_CR4, 1 << 5)]],
        ),
        case(
            "short_guest_cr4",
            "PCIDE in 32-bit mode",
            &[SHORT, &[set(GUEST_CR4, 1 << 17)]],
        ),
        case("guest_cr3_width", "guest CR3 too far", &[&[set(GUEST_CR3, FAR)]]),
        case(
            "guest_dr7",
            "bit 32 of guest DR7",
            &[&[set(ENTRY_CONTROLS, entry::LOAD_DEBUG_CONTROLS), set(GUEST_DR7, 1 << 32)]],
        ),
        case(
            "guest_sysenter_canonical",
            "guest SYSENTER_ESP crooked",
            &[&[value(GUEST_SYSENTER_ESP, CROOKED)]],
        ),
        case(
            "guest_sysenter_canonical",
            "guest SYSENTER_EIP crooked",
            &[&[value(GUEST_SYSENTER_EIP, CROOKED)]],
        ),
        case(
            "guest_s_cet",
            "bit 7 of the guest's S_CET",
            &[&[set(ENTRY_CONTROLS, entry::LOAD_CET_STATE), value(GUEST_S_CET, 1 << 7)]],
        ),
        case(
            "guest_s_cet",
            "guest SUPPRESS and TRACKER",
            &[&[set(ENTRY_CONTROLS, entry::LOAD_CET_STATE), value(GUEST_S_CET, 3 << 10)]],
        ),
        case(
            "guest_cet_canonical",
            "the guest's shadow-stack table crooked",
            &[&[
                set(ENTRY_CONTROLS, entry::LOAD_CET_STATE),
                value(GUEST_INTERRUPT_SSP_TABLE_ADDRESS, CROOKED),
            ]],
        ),
        case(
            "guest_perf_global_ctrl",
            "bit 63 of the guest's IA32_PERF_GLOBAL_CTRL",
            &[&[
                set(ENTRY_CONTROLS, entry::LOAD_IA32_PERF_GLOBAL_CTRL),
                value(GUEST_PERF_GLOBAL_CTRL, 1 << 63),
            ]],
        ),
        case(
            "guest_pat",
            "memory type 3 in the guest's PAT",
            &[&[
                set(ENTRY_CONTROLS, entry::LOAD_IA32_PAT),
                value(GUEST_PAT, 0x0007_0406_0003_0406),
            ]],
        ),
        case(
            "guest_efer_reserved",
            "bit 1 of the guest's EFER",
            &[LOAD_EFER, &[set(GUEST_EFER, 1 << 1)]],
        ),
        case(
            "guest_efer_lma",
            "LMA and LME in 32-bit mode",
            &[LOAD_EFER, SHORT, &[set(GUEST_EFER, 1 << 8 | 1 << 10)]],
        ),
        case(
            "guest_efer_lme",
            "LMA without LME",
            &[LOAD_EFER, &[clear(GUEST_EFER, 1 << 8)]],
        ),
        case(
            "guest_bndcfgs",
            "bit 2 of BNDCFGS",
            &[&[
                set(ENTRY_CONTROLS, entry::LOAD_IA32_BNDCFGS),
                value(GUEST_BNDCFGS, 1 << 2),
            ]],
        ),
        case(
            "guest_rtit_ctl",
            "bit 18 of RTIT_CTL",
            &[&[
                set(ENTRY_CONTROLS, entry::LOAD_IA32_RTIT_CTL),
                value(GUEST_RTIT_CTL, 1 << 18),
            ]],
        ),
        case(
            "guest_lbr_ctl",
            "bit 4 of LBR_CTL",
            &[&[
                set(ENTRY_CONTROLS, entry::LOAD_GUEST_IA32_LBR_CTL),
                value(GUEST_LBR_CTL, 1 << 4),
            ]],
        ),
        case(
            "guest_pkrs",
            "bit 32 of PKRS",
            &[&[set(ENTRY_CONTROLS, entry::LOAD_PKRS), value(GUEST_PKRS, 1 << 32)]],
        ),
        case(
            "guest_uinv",
            "UINV 0x100",
            &[&[set(ENTRY_CONTROLS, entry::LOAD_UINV), value(GUEST_UINV, 0x100)]],
        ),
        case(
            "guest_fred",
            "bit 11 of the guest's FRED_CONFIG",
            &[&[set(ENTRY_CONTROLS, entry::LOAD_FRED), value(GUEST_FRED_CONFIG, 1 << 11)]],
        ),
        case(
            "guest_spec_ctrl",
            "bit 11 of the guest's SPEC_CTRL",
            &[&[
                set(ENTRY_CONTROLS, entry::LOAD_IA32_SPEC_CTRL),
                value(GUEST_SPEC_CTRL, 1 << 11),
            ]],
        ),
    ];
    const GUEST_FRED: &[Change] = &[set(ENTRY_CONTROLS, entry::LOAD_FRED)];
    for (whose, loads, rsps, ssps) in [
        (
            "guest",
            GUEST_FRED,
            [GUEST_FRED_RSP1, GUEST_FRED_RSP2, GUEST_FRED_RSP3],
            [GUEST_FRED_SSP1, GUEST_FRED_SSP2, GUEST_FRED_SSP3],
        ),
        (
            "host",
            HOST_FRED,
            [HOST_FRED_RSP1, HOST_FRED_RSP2, HOST_FRED_RSP3],
            [HOST_FRED_SSP1, HOST_FRED_SSP2, HOST_FRED_SSP3],
        ),
    ] {
        let rule = if whose == "guest" { "guest_fred" } else { "host_fred" };
        for (number, (rsp, ssp)) in (1..).zip(rsps.into_iter().zip(ssps)) {
            let name = |what: &str| alloc::format!("the {whose}'s FRED_{what}");
            all.extend([
                case(
                    rule,
                    &name(&alloc::format!("RSP{number} off its place")),
                    &[loads, &[value(rsp, 0x20)]],
                ),
                case(
                    rule,
                    &name(&alloc::format!("RSP{number} crooked")),
                    &[loads, &[value(rsp, CROOKED)]],
                ),
                case(
                    rule,
                    &name(&alloc::format!("SSP{number} off its place")),
                    &[loads, &[value(ssp, 4)]],
                ),
                case(
                    rule,
                    &name(&alloc::format!("SSP{number} crooked")),
                    &[loads, &[value(ssp, CROOKED)]],
                ),
            ]);
        }
    }
    all
}

/// EFER is loaded by an entry.
const LOAD_EFER: &[Change] = &[set(ENTRY_CONTROLS, entry::LOAD_IA32_EFER)];

/// Guest segment registers.
fn segments() -> Vec<Case> {
    let mut all = vec![
        case("tr_table_indicator", "TR in an LDT", &[&[set(GUEST_TR_SELECTOR, 4)]]),
        case(
            "ldtr_table_indicator",
            "LDTR in an LDT",
            &[USABLE_LDTR, &[set(GUEST_LDTR_SELECTOR, 4)]],
        ),
        case(
            "ss_requested_level",
            "SS of level 3 under CS of level 0",
            &[
                RESTRICTED,
                USABLE_SS,
                &[set(GUEST_SS_SELECTOR, 3), set(GUEST_SS_ACCESS_RIGHTS, 3 << 5)],
            ],
        )
        .also(&["cs_level"]),
        case(
            "segment_base_canonical",
            "FS base crooked",
            &[&[value(GUEST_FS_BASE, CROOKED)]],
        ),
        case(
            "segment_base_canonical",
            "GS base crooked",
            &[&[value(GUEST_GS_BASE, CROOKED)]],
        ),
        case(
            "segment_base_canonical",
            "TR base crooked",
            &[&[value(GUEST_TR_BASE, CROOKED)]],
        ),
        case(
            "segment_base_canonical",
            "LDTR base crooked",
            &[USABLE_LDTR, &[value(GUEST_LDTR_BASE, CROOKED)]],
        ),
        case(
            "segment_base_upper",
            "bit 32 of the CS base",
            &[&[value(GUEST_CS_BASE, 1 << 32)]],
        ),
        case(
            "segment_base_upper",
            "bit 32 of the SS base",
            &[USABLE_SS, &[value(GUEST_SS_BASE, 1 << 32)]],
        ),
        case(
            "segment_base_upper",
            "bit 32 of the DS base",
            &[USABLE_DS, &[value(GUEST_DS_BASE, 1 << 32)]],
        ),
        case("cs_type", "CS not accessed", &[&[clear(GUEST_CS_ACCESS_RIGHTS, 1)]]),
        case(
            "cs_type",
            "CS of data in a restricted guest",
            &[RESTRICTED, &[clear(GUEST_CS_ACCESS_RIGHTS, 8)]],
        ),
        case(
            "ss_type",
            "SS read-only",
            &[USABLE_SS, &[clear(GUEST_SS_ACCESS_RIGHTS, 2)]],
        ),
        case(
            "ss_type",
            "SS not accessed",
            &[USABLE_SS, &[clear(GUEST_SS_ACCESS_RIGHTS, 1)]],
        ),
        case(
            "data_type",
            "DS not accessed",
            &[USABLE_DS, &[clear(GUEST_DS_ACCESS_RIGHTS, 1)]],
        ),
        case(
            "data_type",
            "DS of code that cannot be read",
            &[
                USABLE_DS,
                &[clear(GUEST_DS_ACCESS_RIGHTS, 2), set(GUEST_DS_ACCESS_RIGHTS, 8)],
            ],
        ),
        case(
            "segment_is_code_or_data",
            "CS a system segment",
            &[&[clear(GUEST_CS_ACCESS_RIGHTS, 1 << 4)]],
        ),
        case(
            "segment_is_code_or_data",
            "SS a system segment",
            &[USABLE_SS, &[clear(GUEST_SS_ACCESS_RIGHTS, 1 << 4)]],
        ),
        case(
            "segment_is_code_or_data",
            "DS a system segment",
            &[USABLE_DS, &[clear(GUEST_DS_ACCESS_RIGHTS, 1 << 4)]],
        ),
        case(
            "cs_level",
            "CS of level 3 above SS of level 0",
            &[&[set(GUEST_CS_ACCESS_RIGHTS, 3 << 5)]],
        ),
        case(
            "cs_level",
            "conforming CS of level 3 above SS of level 0",
            &[&[set(GUEST_CS_ACCESS_RIGHTS, 3 << 5 | 4)]],
        ),
        case(
            "cs_level",
            "CS of data, of level 1",
            &[
                SHORT,
                &[clear(GUEST_CS_ACCESS_RIGHTS, 8), set(GUEST_CS_ACCESS_RIGHTS, 1 << 5)],
            ],
        ),
        case(
            "ss_level_is_requested",
            "SS of level 0 by a selector of level 3",
            &[
                RESTRICTED,
                USABLE_SS,
                &[set(GUEST_SS_SELECTOR, 3), set(GUEST_CS_SELECTOR, 3)],
            ],
        ),
        case(
            "ss_level_is_zero",
            "SS of level 3 in real mode",
            &[
                SHORT,
                REAL,
                USABLE_SS,
                &[set(GUEST_SS_ACCESS_RIGHTS, 3 << 5), set(GUEST_CS_ACCESS_RIGHTS, 3 << 5)],
            ],
        ),
        case(
            "ss_level_is_zero",
            "SS of level 3 with CS of data",
            &[
                SHORT,
                USABLE_SS,
                &[set(GUEST_SS_ACCESS_RIGHTS, 3 << 5), clear(GUEST_CS_ACCESS_RIGHTS, 8)],
            ],
        ),
        case("fred_level", "SS of level 1 with FRED", &[FRED, &level(1)]),
        case(
            "fred_level",
            "32-bit code of level 0 with FRED",
            &[FRED, &[clear(GUEST_CS_ACCESS_RIGHTS, 1 << 13)]],
        ),
        case(
            "fred_level",
            "IOPL 3 at level 3 with FRED",
            &[FRED, &level(3), &[set(GUEST_RFLAGS, 3 << 12)]],
        ),
        case(
            "fred_level",
            "blocked by STI at level 3 with FRED",
            &[
                FRED,
                &level(3),
                &[
                    clear(GUEST_RFLAGS, 3 << 12),
                    set(GUEST_RFLAGS, 1 << 9),
                    set(GUEST_INTERRUPTIBILITY_STATE, 1),
                ],
            ],
        ),
        case(
            "data_level",
            "DS of level 0 by a selector of level 3",
            &[RESTRICTED, USABLE_DS, &[set(GUEST_DS_SELECTOR, 3)]],
        ),
        case(
            "data_level",
            "DS of readable code of level 0 by a selector of level 3",
            &[
                RESTRICTED,
                USABLE_DS,
                &[set(GUEST_DS_ACCESS_RIGHTS, 0xb), set(GUEST_DS_SELECTOR, 3)],
            ],
        ),
        case(
            "segment_is_present",
            "CS not present",
            &[&[clear(GUEST_CS_ACCESS_RIGHTS, 1 << 7)]],
        ),
        case(
            "segment_is_present",
            "DS not present",
            &[USABLE_DS, &[clear(GUEST_DS_ACCESS_RIGHTS, 1 << 7)]],
        ),
        case(
            "segment_rights_reserved",
            "bit 8 of the rights of CS",
            &[&[set(GUEST_CS_ACCESS_RIGHTS, 1 << 8)]],
        ),
        case(
            "segment_rights_reserved",
            "bit 17 of the rights of CS",
            &[&[set(GUEST_CS_ACCESS_RIGHTS, 1 << 17)]],
        ),
        case(
            "segment_rights_reserved",
            "bit 31 of the rights of DS",
            &[USABLE_DS, &[set(GUEST_DS_ACCESS_RIGHTS, 1 << 31)]],
        ),
        case(
            "cs_default_size",
            "D in 64-bit code",
            &[&[set(GUEST_CS_ACCESS_RIGHTS, 1 << 14)]],
        ),
        case(
            "segment_granularity",
            "a byte limit of 0xffffffff",
            &[USABLE_DS, &[clear(GUEST_DS_ACCESS_RIGHTS, 1 << 15)]],
        ),
        case(
            "segment_granularity",
            "a page limit of 0x1000",
            &[USABLE_DS, &[value(GUEST_DS_LIMIT, 0x10_1000)]],
        ),
        case("tr_type", "TR not busy", &[&[clear(GUEST_TR_ACCESS_RIGHTS, 2)]]),
        case(
            "tr_type",
            "TR of 16 bits in IA-32e mode",
            &[&[clear(GUEST_TR_ACCESS_RIGHTS, 8)]],
        ),
        case(
            "tr_rights",
            "TR of code or data",
            &[&[set(GUEST_TR_ACCESS_RIGHTS, 1 << 4)]],
        ),
        case(
            "tr_rights",
            "TR not present",
            &[&[clear(GUEST_TR_ACCESS_RIGHTS, 1 << 7)]],
        ),
        case("tr_rights", "TR not usable", &[&[set(GUEST_TR_ACCESS_RIGHTS, 1 << 16)]]),
        case(
            "tr_rights",
            "bit 9 of the rights of TR",
            &[&[set(GUEST_TR_ACCESS_RIGHTS, 1 << 9)]],
        ),
        case(
            "tr_rights",
            "bit 20 of the rights of TR",
            &[&[set(GUEST_TR_ACCESS_RIGHTS, 1 << 20)]],
        ),
        case(
            "tr_granularity",
            "G of TR with a limit of 0x67",
            &[&[value(GUEST_TR_LIMIT, 0x67), set(GUEST_TR_ACCESS_RIGHTS, 1 << 15)]],
        ),
        case(
            "tr_granularity",
            "TR of 1 MiB and more by bytes",
            &[&[value(GUEST_TR_LIMIT, 0x10_0000), clear(GUEST_TR_ACCESS_RIGHTS, 1 << 15)]],
        ),
        case(
            "ldtr_rights",
            "LDTR of type 3",
            &[USABLE_LDTR, &[set(GUEST_LDTR_ACCESS_RIGHTS, 1)]],
        ),
        case(
            "ldtr_rights",
            "LDTR of code or data",
            &[USABLE_LDTR, &[set(GUEST_LDTR_ACCESS_RIGHTS, 1 << 4)]],
        ),
        case(
            "ldtr_rights",
            "LDTR not present",
            &[USABLE_LDTR, &[clear(GUEST_LDTR_ACCESS_RIGHTS, 1 << 7)]],
        ),
        case(
            "ldtr_rights",
            "bit 10 of the rights of LDTR",
            &[USABLE_LDTR, &[set(GUEST_LDTR_ACCESS_RIGHTS, 1 << 10)]],
        ),
        case(
            "ldtr_granularity",
            "G of LDTR with a limit of 0xff",
            &[USABLE_LDTR, &[set(GUEST_LDTR_ACCESS_RIGHTS, 1 << 15)]],
        ),
        case(
            "table_base_canonical",
            "GDTR crooked",
            &[&[value(GUEST_GDTR_BASE, CROOKED)]],
        ),
        case(
            "table_base_canonical",
            "IDTR crooked",
            &[&[value(GUEST_IDTR_BASE, CROOKED)]],
        ),
        case(
            "table_limit",
            "GDTR limit 0x10000",
            &[&[value(GUEST_GDTR_LIMIT, 0x1_0000)]],
        ),
        case(
            "table_limit",
            "IDTR limit 0xffffffff",
            &[&[value(GUEST_IDTR_LIMIT, 0xffff_ffff)]],
        ),
    ];
    for (name, base, limit, rights) in [
        ("CS", GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS),
        ("SS", GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS),
        ("DS", GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS),
        ("ES", GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS),
        ("FS", GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS),
        ("GS", GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS),
    ] {
        let name = |what: &str| alloc::format!("{name} {what} in virtual-8086 mode");
        all.push(case(
            "virtual_8086_base",
            &name("base 0x1010"),
            &[SHORT, VIRTUAL_8086, &[value(base, 0x1010)]],
        ));
        all.push(case(
            "virtual_8086_limit",
            &name("limit 0xfffe"),
            &[SHORT, VIRTUAL_8086, &[value(limit, 0xfffe)]],
        ));
        all.push(case(
            "virtual_8086_rights",
            &name("of level 0"),
            &[SHORT, VIRTUAL_8086, &[value(rights, 0x93)]],
        ));
    }
    all
}

/// RIP, RFLAGS and SSP, non-register state, PDPTEs, and MSRs.
fn rest() -> Vec<Case> {
    const BLOCKED_BY_STI: Change = set(GUEST_INTERRUPTIBILITY_STATE, 1);
    const BLOCKED_BY_MOV_SS: Change = set(GUEST_INTERRUPTIBILITY_STATE, 2);
    const HALTED: Change = value(GUEST_ACTIVITY_STATE, 1);
    const INTERRUPTS_ON: Change = set(GUEST_RFLAGS, 1 << 9);
    const INTERRUPTS_OFF: Change = clear(GUEST_RFLAGS, 1 << 9);
    const MSR_LOAD: &[Change] = &[scratch(ENTRY_MSR_LOAD_ADDRESS, 0), value(ENTRY_MSR_LOAD_COUNT, 1)];
    vec![
        case(
            "guest_rip",
            "a high RIP in 32-bit mode",
            &[SHORT, &[value(GUEST_RIP, 1 << 32)]],
        ),
        case("guest_rip", "RIP crooked", &[&[value(GUEST_RIP, CROOKED)]]),
        case(
            "rflags_reserved",
            "bit 1 of RFLAGS cleared",
            &[&[clear(GUEST_RFLAGS, 2)]],
        ),
        case("rflags_reserved", "bit 3 of RFLAGS", &[&[set(GUEST_RFLAGS, 1 << 3)]]),
        case("rflags_reserved", "bit 22 of RFLAGS", &[&[set(GUEST_RFLAGS, 1 << 22)]]),
        case("rflags_reserved", "bit 63 of RFLAGS", &[&[set(GUEST_RFLAGS, 1 << 63)]]),
        // The segments of virtual-8086 mode are right, except in IA-32e mode L and D of CS.
        case("rflags_virtual_8086", "virtual-8086 in IA-32e mode", &[VIRTUAL_8086]),
        case(
            "rflags_virtual_8086",
            "virtual-8086 in real mode",
            &[SHORT, REAL, VIRTUAL_8086],
        ),
        case(
            "rflags_interrupts",
            "an interrupt while they are off",
            &[&[INTERRUPTS_OFF, INTERRUPT]],
        ),
        case(
            "guest_ssp",
            "SSP off its place",
            &[&[set(ENTRY_CONTROLS, entry::LOAD_CET_STATE), value(GUEST_SSP, 0x1001)]],
        ),
        case(
            "guest_ssp",
            "a high SSP in 32-bit mode",
            &[
                SHORT,
                &[set(ENTRY_CONTROLS, entry::LOAD_CET_STATE), value(GUEST_SSP, 1 << 32)],
            ],
        ),
        case(
            "activity_supported",
            "activity state 4",
            &[&[value(GUEST_ACTIVITY_STATE, 4)]],
        ),
        case(
            "hlt_level",
            "HLT at level 3",
            &[
                USABLE_SS,
                &[
                    HALTED,
                    set(GUEST_SS_ACCESS_RIGHTS, 3 << 5),
                    set(GUEST_CS_ACCESS_RIGHTS, 3 << 5),
                ],
            ],
        ),
        case(
            "blocked_is_active",
            "HLT, blocked by STI",
            &[&[HALTED, INTERRUPTS_ON, BLOCKED_BY_STI]],
        ),
        case(
            "blocked_is_active",
            "HLT, blocked by MOV SS",
            &[&[HALTED, BLOCKED_BY_MOV_SS]],
        ),
        case("event_wakes", "#UD into HLT", &[&[HALTED, UD]]),
        case(
            "event_wakes",
            "an interrupt into shutdown",
            &[&[value(GUEST_ACTIVITY_STATE, 2), INTERRUPTS_ON, INTERRUPT]],
        ),
        case(
            "event_wakes",
            "an NMI into wait-for-SIPI",
            &[&[value(GUEST_ACTIVITY_STATE, 3), NMI]],
        ),
        case(
            "smm_wait_for_sipi",
            "into SMM, waiting for SIPI",
            &[&[
                set(ENTRY_CONTROLS, entry::ENTRY_TO_SMM),
                value(GUEST_ACTIVITY_STATE, 3),
                set(GUEST_INTERRUPTIBILITY_STATE, 4),
            ]],
        )
        .also(&["smm_controls"]),
        case(
            "interruptibility_reserved",
            "bit 5 of the interruptibility",
            &[&[set(GUEST_INTERRUPTIBILITY_STATE, 1 << 5)]],
        ),
        case(
            "interruptibility_reserved",
            "bit 31 of the interruptibility",
            &[&[set(GUEST_INTERRUPTIBILITY_STATE, 1 << 31)]],
        ),
        case(
            "sti_and_mov_ss",
            "blocked by STI and by MOV SS",
            &[&[INTERRUPTS_ON, BLOCKED_BY_STI, BLOCKED_BY_MOV_SS]],
        ),
        case(
            "sti_needs_interrupts",
            "blocked by STI with interrupts off",
            &[&[INTERRUPTS_OFF, BLOCKED_BY_STI]],
        ),
        case(
            "interrupt_into_blocking",
            "an interrupt, blocked by STI",
            &[&[INTERRUPTS_ON, INTERRUPT, BLOCKED_BY_STI]],
        ),
        case(
            "interrupt_into_blocking",
            "an interrupt, blocked by MOV SS",
            &[&[INTERRUPTS_ON, INTERRUPT, BLOCKED_BY_MOV_SS]],
        ),
        case(
            "nmi_into_mov_ss",
            "an NMI, blocked by MOV SS",
            &[&[NMI, BLOCKED_BY_MOV_SS]],
        ),
        case(
            "nmi_into_sti",
            "an NMI, blocked by STI",
            &[&[INTERRUPTS_ON, NMI, BLOCKED_BY_STI]],
        ),
        case(
            "smi_blocking",
            "blocked by SMI outside SMM",
            &[&[set(GUEST_INTERRUPTIBILITY_STATE, 4)]],
        ),
        case(
            "nmi_into_nmi",
            "an NMI, blocked by NMI",
            &[&[
                set(PIN_BASED_CONTROLS, pin::NMI_EXITING | pin::VIRTUAL_NMIS),
                NMI,
                set(GUEST_INTERRUPTIBILITY_STATE, 8),
            ]],
        ),
        case(
            "enclave_interruption",
            "an enclave interrupted, blocked by MOV SS",
            &[&[set(GUEST_INTERRUPTIBILITY_STATE, 0x12)]],
        ),
        case(
            "pending_debug_reserved",
            "bit 4 of the pending debug exceptions",
            &[&[set(GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 4)]],
        ),
        case(
            "pending_debug_reserved",
            "bit 63 of the pending debug exceptions",
            &[&[set(GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 63)]],
        ),
        case(
            "pending_single_step",
            "BS in HLT without TF",
            &[&[HALTED, value(GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 14)]],
        ),
        case(
            "pending_single_step",
            "TF blocked by MOV SS without BS",
            &[&[set(GUEST_RFLAGS, 1 << 8), BLOCKED_BY_MOV_SS]],
        ),
        case(
            "pending_rtm",
            "RTM and a breakpoint",
            &[&[value(GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 16 | 1 << 12 | 1)]],
        ),
        case(
            "link_pointer_page",
            "the link pointer off a page",
            &[&[value(VMCS_LINK_POINTER, 0x1004)]],
        ),
        case(
            "link_pointer_page",
            "the link pointer too far",
            &[&[value(VMCS_LINK_POINTER, FAR)]],
        ),
        case(
            "link_pointer_revision",
            "no VMCS at the link pointer",
            &[&[scratch(VMCS_LINK_POINTER, 0)]],
        )
        .memory(&[(0, 0x5eed)]),
        case(
            "link_pointer_itself",
            "the VMCS linked to itself",
            &[&[Change {
                field: VMCS_LINK_POINTER.any(),
                to: To::Itself,
            }]],
        ),
        case(
            "pdpte_fields",
            "bit 1 of PDPTE2",
            &[SHORT, &[value(GUEST_PDPTE2, 0x1003)]],
        ),
        case(
            "pdpte_fields",
            "PDPTE0 too far",
            &[SHORT, &[value(GUEST_PDPTE0, FAR | 1)]],
        ),
        case(
            "pdptes_in_memory",
            "bit 5 of the third entry at CR3",
            &[SHORT, NO_EPT, &[scratch(GUEST_CR3, 0)]],
        )
        .memory(&[(16, 0x1021)]),
        case(
            "msr_entry_reserved",
            "bit 32 of an entry of the MSR-load list",
            &[MSR_LOAD],
        )
        .memory(&[(0, 1 << 32 | 0x174)]),
        case("msr_entry_forbidden", "IA32_FS_BASE in the MSR-load list", &[MSR_LOAD]).memory(&[(0, 0xc000_0100)]),
        case("msr_entry_forbidden", "IA32_GS_BASE in the MSR-load list", &[MSR_LOAD]).memory(&[(0, 0xc000_0101)]),
        case(
            "msr_entry_forbidden",
            "IA32_SMM_MONITOR_CTL in the MSR-load list",
            &[MSR_LOAD],
        )
        .memory(&[(0, 0x9b)]),
        case("msr_entry_forbidden", "IA32_SMBASE in the MSR-load list", &[MSR_LOAD]).memory(&[(0, 0x9e)]),
        case("msr_entry_x2apic", "an APIC register in the MSR-load list", &[MSR_LOAD]).memory(&[(0, 0x808)]),
    ]
}
