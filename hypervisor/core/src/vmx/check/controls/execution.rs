//! Checks on VM-execution control fields.

use crate::vmx::check::entry::{Entry, beyond};
use crate::vmx::check::{Outcome, Rule, Section};
use crate::vmx::controls::{Group, entry, exit, pin, primary, secondary, tertiary};
use crate::vmx::fields::*;

/// The VM function "EPTP switching", bit 0 of the VM-function controls.
const EPTP_SWITCHING: u64 = 1;

/// Whether the processor refuses the setting of a group.
pub(super) fn refuses(entry: &Entry<'_>, group: Group) -> bool {
    !group.allowed(entry.capabilities).takes(entry.raw(group.field()))
}

/// The rules.
pub const EXECUTION: Section = Section {
    number: "28.2.1.1",
    title: "VM-execution control fields",
    outcome: Outcome::InvalidControls,
    rules: &[
        Rule::new(
            "pin_reserved",
            "each bit is as IA32_VMX_PINBASED_CTLS (or its TRUE twin) allows",
            |entry, broken| broken.when(refuses(entry, Group::Pin), PIN_BASED_CONTROLS),
        ),
        Rule::new(
            "primary_reserved",
            "each bit is as IA32_VMX_PROCBASED_CTLS (or its TRUE twin) allows",
            |entry, broken| broken.when(refuses(entry, Group::Primary), PRIMARY_CONTROLS),
        ),
        Rule::new(
            "secondary_reserved",
            "with \"activate secondary controls\", each bit is as IA32_VMX_PROCBASED_CTLS2 allows",
            |entry, broken| {
                let active = entry.primary(primary::ACTIVATE_SECONDARY_CONTROLS);
                broken.when(active && refuses(entry, Group::Secondary), SECONDARY_CONTROLS);
            },
        ),
        Rule::new(
            "tertiary_reserved",
            "with \"activate tertiary controls\", each bit is as IA32_VMX_PROCBASED_CTLS3 allows",
            |entry, broken| {
                let active = entry.primary(primary::ACTIVATE_TERTIARY_CONTROLS);
                broken.when(active && refuses(entry, Group::Tertiary), TERTIARY_CONTROLS);
            },
        ),
        Rule::new(
            "cr3_target_count",
            "there are no more CR3 targets than IA32_VMX_MISC says (bits 24:16)",
            |entry, broken| {
                broken.when(
                    entry.get(CR3_TARGET_COUNT) > entry.capabilities.misc.cr3_targets(),
                    CR3_TARGET_COUNT,
                );
            },
        ),
        Rule::new(
            "io_bitmaps",
            "with \"use I/O bitmaps\", each is a page: bits 11:0 are 0, and none beyond the physical-address width is set",
            |entry, broken| {
                if entry.primary(primary::USE_I_O_BITMAPS) {
                    for field in [IO_BITMAP_A, IO_BITMAP_B] {
                        broken.when(entry.no_page(entry.get(field)), field);
                    }
                }
            },
        ),
        Rule::new(
            "msr_bitmaps",
            "with \"use MSR bitmaps\", they are a page: bits 11:0 are 0, and none beyond the physical-address width is set",
            |entry, broken| {
                let used = entry.primary(primary::USE_MSR_BITMAPS);
                broken.when(used && entry.no_page(entry.get(MSR_BITMAPS)), MSR_BITMAPS);
            },
        ),
        Rule::new(
            "virtual_apic_page",
            "with \"use TPR shadow\", it is a page: bits 11:0 are 0, and none beyond the physical-address width is set",
            |entry, broken| {
                let used = entry.primary(primary::USE_TPR_SHADOW);
                broken.when(
                    used && entry.no_page(entry.get(VIRTUAL_APIC_ADDRESS)),
                    VIRTUAL_APIC_ADDRESS,
                );
            },
        ),
        Rule::new(
            "tpr_threshold_reserved",
            "with \"use TPR shadow\" and without \"virtual-interrupt delivery\", bits 31:4 are 0",
            |entry, broken| {
                let delivers = entry.secondary(secondary::VIRTUAL_INTERRUPT_DELIVERY);
                let used = entry.primary(primary::USE_TPR_SHADOW) && !delivers;
                broken.when(used && entry.get(TPR_THRESHOLD) > 0xf, TPR_THRESHOLD);
            },
        ),
        Rule::new(
            "tpr_threshold_above_tpr",
            "with \"use TPR shadow\", without \"virtualize APIC accesses\" and \"virtual-interrupt delivery\", bits 3:0 \
             are not greater than bits 7:4 of the virtual TPR",
            |entry, broken| {
                let otherwise = entry.secondary(secondary::VIRTUALIZE_APIC_ACCESSES)
                    || entry.secondary(secondary::VIRTUAL_INTERRUPT_DELIVERY);
                let page = entry.get(VIRTUAL_APIC_ADDRESS);
                if entry.primary(primary::USE_TPR_SHADOW) && !otherwise && !entry.no_page(page) {
                    // The TPR is at 0x80 (SDM volume 3A, table 12-1).
                    let class = entry.word(page + 0x80).map(|tpr| tpr >> 4 & 0xf);
                    broken.when(
                        class.is_some_and(|class| entry.get(TPR_THRESHOLD) & 0xf > class),
                        TPR_THRESHOLD,
                    );
                }
            },
        ),
        Rule::new(
            "apic_virtualization_without_tpr_shadow",
            "without \"use TPR shadow\", \"virtualize x2APIC mode\", \"APIC-register virtualization\", \
             \"virtual-interrupt delivery\" and \"IPI virtualization\" are 0",
            |entry, broken| {
                let any = [
                    secondary::VIRTUALIZE_X2APIC_MODE,
                    secondary::APIC_REGISTER_VIRTUALIZATION,
                    secondary::VIRTUAL_INTERRUPT_DELIVERY,
                ];
                if !entry.primary(primary::USE_TPR_SHADOW) {
                    let used = any.into_iter().any(|control| entry.secondary(control));
                    broken.when(used, SECONDARY_CONTROLS);
                    broken.when(entry.tertiary(tertiary::IPI_VIRTUALIZATION), TERTIARY_CONTROLS);
                }
            },
        ),
        Rule::new(
            "virtual_nmis_without_nmi_exiting",
            "\"virtual NMIs\" is 0 without \"NMI exiting\"",
            |entry, broken| {
                broken.when(
                    entry.pin(pin::VIRTUAL_NMIS) && !entry.pin(pin::NMI_EXITING),
                    PIN_BASED_CONTROLS,
                );
            },
        ),
        Rule::new(
            "nmi_window_without_virtual_nmis",
            "\"NMI-window exiting\" is 0 without \"virtual NMIs\"",
            |entry, broken| {
                let window = entry.primary(primary::NMI_WINDOW_EXITING);
                broken.when(window && !entry.pin(pin::VIRTUAL_NMIS), PRIMARY_CONTROLS);
            },
        ),
        Rule::new(
            "apic_access_page",
            "with \"virtualize APIC accesses\", it is a page: bits 11:0 are 0, and none beyond the physical-address \
             width is set",
            |entry, broken| {
                let used = entry.secondary(secondary::VIRTUALIZE_APIC_ACCESSES);
                broken.when(
                    used && entry.no_page(entry.get(APIC_ACCESS_ADDRESS)),
                    APIC_ACCESS_ADDRESS,
                );
            },
        ),
        Rule::new(
            "x2apic_and_apic_accesses",
            "\"virtualize x2APIC mode\" and \"virtualize APIC accesses\" are not both 1",
            |entry, broken| {
                let both = secondary::VIRTUALIZE_X2APIC_MODE | secondary::VIRTUALIZE_APIC_ACCESSES;
                broken.when(entry.secondary(both), SECONDARY_CONTROLS);
            },
        ),
        Rule::new(
            "virtual_interrupts_need_exits",
            "\"virtual-interrupt delivery\" needs \"external-interrupt exiting\"",
            |entry, broken| {
                let used = entry.secondary(secondary::VIRTUAL_INTERRUPT_DELIVERY);
                broken.when(used && !entry.pin(pin::EXTERNAL_INTERRUPT_EXITING), SECONDARY_CONTROLS);
            },
        ),
        Rule::new(
            "posted_interrupts_need_delivery",
            "\"process posted interrupts\" needs \"virtual-interrupt delivery\"",
            |entry, broken| {
                let delivers = entry.secondary(secondary::VIRTUAL_INTERRUPT_DELIVERY);
                broken.when(
                    entry.pin(pin::PROCESS_POSTED_INTERRUPTS) && !delivers,
                    PIN_BASED_CONTROLS,
                );
            },
        ),
        Rule::new(
            "posted_interrupts_need_acknowledgement",
            "\"process posted interrupts\" needs the VM-exit control \"acknowledge interrupt on exit\"",
            |entry, broken| {
                let acknowledges = entry.exit(exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT);
                broken.when(
                    entry.pin(pin::PROCESS_POSTED_INTERRUPTS) && !acknowledges,
                    EXIT_CONTROLS,
                );
            },
        ),
        Rule::new(
            "posted_interrupt_vector",
            "with \"process posted interrupts\", it is a vector: bits 15:8 are 0",
            |entry, broken| {
                let field = POSTED_INTERRUPT_NOTIFICATION_VECTOR;
                broken.when(
                    entry.pin(pin::PROCESS_POSTED_INTERRUPTS) && entry.get(field) > 0xff,
                    field,
                );
            },
        ),
        Rule::new(
            "posted_interrupt_descriptor",
            "with \"process posted interrupts\", bits 5:0 are 0, and none beyond the physical-address width is set",
            |entry, broken| {
                let field = POSTED_INTERRUPT_DESCRIPTOR_ADDRESS;
                let address = entry.get(field);
                let wrong = address & 0x3f != 0 || entry.beyond_memory(address);
                broken.when(entry.pin(pin::PROCESS_POSTED_INTERRUPTS) && wrong, field);
            },
        ),
        Rule::new(
            "vpid_zero",
            "with \"enable VPID\", it is not 0, which is the hypervisor's own",
            |entry, broken| {
                let used = entry.secondary(secondary::ENABLE_VPID);
                broken.when(used && entry.get(VIRTUAL_PROCESSOR_ID) == 0, VIRTUAL_PROCESSOR_ID);
            },
        ),
        Rule::new(
            "eptp_memory_type",
            "with \"enable EPT\", bits 2:0 are a memory type that IA32_VMX_EPT_VPID_CAP offers: 0 (uncacheable) or 6 \
             (write-back)",
            |entry, broken| {
                let offered = match entry.get(EPT_POINTER) & 7 {
                    0 => entry.capabilities.ept_vpid.uncacheable(),
                    6 => entry.capabilities.ept_vpid.write_back(),
                    _ => false,
                };
                broken.when(entry.secondary(secondary::ENABLE_EPT) && !offered, EPT_POINTER);
            },
        ),
        Rule::new(
            "eptp_walk_length",
            "with \"enable EPT\", bits 5:3 are the length of the walk less one, as IA32_VMX_EPT_VPID_CAP offers it: 3, \
             or 4 for five levels",
            |entry, broken| {
                let offered = match entry.get(EPT_POINTER) >> 3 & 7 {
                    3 => entry.capabilities.ept_vpid.walk_of_4(),
                    4 => entry.capabilities.ept_vpid.walk_of_5(),
                    _ => false,
                };
                broken.when(entry.secondary(secondary::ENABLE_EPT) && !offered, EPT_POINTER);
            },
        ),
        Rule::new(
            "eptp_accessed_dirty",
            "with \"enable EPT\", bit 6 is 0 unless accessed and dirty bits are offered",
            |entry, broken| {
                let wrong = entry.get(EPT_POINTER) >> 6 & 1 != 0 && !entry.capabilities.ept_vpid.accessed_dirty();
                broken.when(entry.secondary(secondary::ENABLE_EPT) && wrong, EPT_POINTER);
            },
        ),
        Rule::new(
            "eptp_reserved",
            "with \"enable EPT\", bits 11:8, bit 7 unless supervisor shadow-stack control is offered, and those beyond the \
             physical-address width are 0",
            |entry, broken| {
                let pointer = entry.get(EPT_POINTER);
                let bit_7 = u64::from(!entry.capabilities.ept_vpid.supervisor_shadow_stack()) << 7;
                let wrong =
                    pointer & (0xf00 | bit_7) != 0 || beyond(pointer, entry.capabilities.processor.physical_bits);
                broken.when(entry.secondary(secondary::ENABLE_EPT) && wrong, EPT_POINTER);
            },
        ),
        Rule::new(
            "pml_needs_ept",
            "\"enable PML\" needs \"enable EPT\"",
            |entry, broken| {
                let wrong = entry.secondary(secondary::ENABLE_PML) && !entry.secondary(secondary::ENABLE_EPT);
                broken.when(wrong, SECONDARY_CONTROLS);
            },
        ),
        Rule::new(
            "pml_page",
            "with \"enable PML\", it is a page: bits 11:0 are 0, and none beyond the physical-address width is set",
            |entry, broken| {
                let used = entry.secondary(secondary::ENABLE_PML);
                broken.when(used && entry.no_page(entry.get(PML_ADDRESS)), PML_ADDRESS);
            },
        ),
        Rule::new(
            "unrestricted_guest_needs_ept",
            "\"unrestricted guest\" needs \"enable EPT\"",
            |entry, broken| {
                let wrong = entry.secondary(secondary::UNRESTRICTED_GUEST) && !entry.secondary(secondary::ENABLE_EPT);
                broken.when(wrong, SECONDARY_CONTROLS);
            },
        ),
        Rule::new(
            "mode_based_execution_needs_ept",
            "\"mode-based execute control for EPT\" needs \"enable EPT\"",
            |entry, broken| {
                let used = entry.secondary(secondary::MODE_BASED_EXECUTE_CONTROL_FOR_EPT);
                broken.when(used && !entry.secondary(secondary::ENABLE_EPT), SECONDARY_CONTROLS);
            },
        ),
        Rule::new(
            "sub_page_permissions_need_ept",
            "\"sub-page write permissions for EPT\" needs \"enable EPT\"",
            |entry, broken| {
                let used = entry.secondary(secondary::SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT);
                broken.when(used && !entry.secondary(secondary::ENABLE_EPT), SECONDARY_CONTROLS);
            },
        ),
        Rule::new(
            "sub_page_permission_table",
            "with \"sub-page write permissions for EPT\", it is a page: bits 11:0 are 0, and none beyond the \
             physical-address width is set",
            |entry, broken| {
                let field = SUB_PAGE_PERMISSION_TABLE_POINTER;
                let used = entry.secondary(secondary::SUB_PAGE_WRITE_PERMISSIONS_FOR_EPT);
                broken.when(used && entry.no_page(entry.get(field)), field);
            },
        ),
        Rule::new(
            "vm_functions_reserved",
            "with \"enable VM functions\", each bit is as IA32_VMX_VMFUNC allows",
            |entry, broken| {
                let wrong = entry.get(VM_FUNCTION_CONTROLS) & !entry.capabilities.vm_functions != 0;
                broken.when(
                    entry.secondary(secondary::ENABLE_VM_FUNCTIONS) && wrong,
                    VM_FUNCTION_CONTROLS,
                );
            },
        ),
        Rule::new(
            "eptp_switching_needs_ept",
            "with \"enable VM functions\", \"EPTP switching\" (bit 0) needs \"enable EPT\"",
            |entry, broken| {
                let used = eptp_switching(entry);
                broken.when(used && !entry.secondary(secondary::ENABLE_EPT), VM_FUNCTION_CONTROLS);
            },
        ),
        Rule::new(
            "eptp_list",
            "with the VM function \"EPTP switching\", it is a page: bits 11:0 are 0, and none beyond the physical-address \
             width is set",
            |entry, broken| {
                let wrong = eptp_switching(entry) && entry.no_page(entry.get(EPTP_LIST_ADDRESS));
                broken.when(wrong, EPTP_LIST_ADDRESS);
            },
        ),
        Rule::new(
            "shadowing_bitmaps",
            "with \"VMCS shadowing\", each is a page: bits 11:0 are 0, and none beyond the physical-address width is set",
            |entry, broken| {
                if entry.secondary(secondary::VMCS_SHADOWING) {
                    for field in [VMREAD_BITMAP_ADDRESS, VMWRITE_BITMAP_ADDRESS] {
                        broken.when(entry.no_page(entry.get(field)), field);
                    }
                }
            },
        ),
        Rule::new(
            "virtualization_exception_page",
            "with \"EPT-violation #VE\", it is a page: bits 11:0 are 0, and none beyond the physical-address width is set",
            |entry, broken| {
                let field = VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS;
                let used = entry.secondary(secondary::EPT_VIOLATION_VE);
                broken.when(used && entry.no_page(entry.get(field)), field);
            },
        ),
        Rule::new(
            "processor_trace_needs_ept",
            "\"Intel PT uses guest physical addresses\" needs \"enable EPT\", and \"load IA32_RTIT_CTL\" at entries and \
             \"clear IA32_RTIT_CTL\" at exits",
            |e, broken| {
                let used = e.secondary(secondary::INTEL_PT_USES_GUEST_PHYSICAL_ADDRESSES);
                let has = e.secondary(secondary::ENABLE_EPT)
                    && e.entry(entry::LOAD_IA32_RTIT_CTL)
                    && e.exit(exit::CLEAR_IA32_RTIT_CTL);
                broken.when(used && !has, SECONDARY_CONTROLS);
            },
        ),
        Rule::new(
            "tsc_multiplier_zero",
            "with \"use TSC scaling\", it is not 0",
            |entry, broken| {
                let used = entry.secondary(secondary::USE_TSC_SCALING);
                broken.when(used && entry.get(TSC_MULTIPLIER) == 0, TSC_MULTIPLIER);
            },
        ),
        Rule::new(
            "pasid_directories",
            "with \"PASID translation\", each is a page: bits 11:0 are 0, and none beyond the physical-address width is set",
            |entry, broken| {
                if entry.secondary(secondary::PASID_TRANSLATION) {
                    for field in [LOW_PASID_DIRECTORY_ADDRESS, HIGH_PASID_DIRECTORY_ADDRESS] {
                        broken.when(entry.no_page(entry.get(field)), field);
                    }
                }
            },
        ),
        Rule::new(
            "tertiary_controls_need_ept",
            "\"enable HLAT\", \"EPT paging-write control\", \"guest-paging verification\" and \"PEBS uses guest physical \
             addresses\" need \"enable EPT\"",
            |entry, broken| {
                let any = [
                    tertiary::ENABLE_HLAT,
                    tertiary::EPT_PAGING_WRITE_CONTROL,
                    tertiary::GUEST_PAGING_VERIFICATION,
                    tertiary::PEBS_USES_GUEST_PHYSICAL_ADDRESSES,
                ];
                let used = any.into_iter().any(|control| entry.tertiary(control));
                broken.when(used && !entry.secondary(secondary::ENABLE_EPT), TERTIARY_CONTROLS);
            },
        ),
        Rule::new(
            "hlat_pointer",
            "with \"enable HLAT\", bits 2:0, 11:5 and those beyond the physical-address width are 0",
            |entry, broken| {
                let pointer = entry.get(HLAT_POINTER);
                let wrong = pointer & 0xfe7 != 0 || entry.beyond_memory(pointer);
                broken.when(entry.tertiary(tertiary::ENABLE_HLAT) && wrong, HLAT_POINTER);
            },
        ),
        Rule::new(
            "pid_pointer_table",
            "with \"IPI virtualization\", bits 2:0 are 0, and neither it nor the address of its last entry has a bit \
             beyond the physical-address width",
            |entry, broken| {
                let table = entry.get(PID_POINTER_TABLE_ADDRESS);
                let last = table.checked_add(u64::from(entry.get(LAST_PID_POINTER_INDEX)) << 3);
                let wrong = table & 7 != 0 || last.is_none_or(|last| entry.beyond_memory(last));
                broken.when(
                    entry.tertiary(tertiary::IPI_VIRTUALIZATION) && wrong,
                    PID_POINTER_TABLE_ADDRESS,
                );
            },
        ),
        Rule::new(
            "apic_timer_needs_delivery",
            "\"APIC-timer virtualization\" needs \"virtual-interrupt delivery\", and that \"RDTSC exiting\" is 0",
            |entry, broken| {
                if entry.tertiary(tertiary::APIC_TIMER_VIRTUALIZATION) {
                    let delivers = entry.secondary(secondary::VIRTUAL_INTERRUPT_DELIVERY);
                    broken.when(!delivers, TERTIARY_CONTROLS);
                    broken.when(entry.primary(primary::RDTSC_EXITING), PRIMARY_CONTROLS);
                }
            },
        ),
        Rule::new(
            "virtual_timer_vector",
            "with \"APIC-timer virtualization\", it is a vector: bits 15:8 are 0",
            |entry, broken| {
                let field = VIRTUAL_TIMER_VECTOR;
                let used = entry.tertiary(tertiary::APIC_TIMER_VIRTUALIZATION);
                broken.when(used && entry.get(field) > 0xff, field);
            },
        ),
    ],
};

/// Whether the guest may switch EPT pointers by itself.
fn eptp_switching(entry: &Entry<'_>) -> bool {
    entry.secondary(secondary::ENABLE_VM_FUNCTIONS) && entry.get(VM_FUNCTION_CONTROLS) & EPTP_SWITCHING != 0
}
