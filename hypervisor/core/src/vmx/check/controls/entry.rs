//! Checks on VM-entry control fields, with the event to inject.

use super::execution::refuses;
use crate::vmx::check::{Outcome, Rule, Section};
use crate::vmx::controls::{Group, entry};
use crate::vmx::event::{Event, Kind};
use crate::vmx::fields::*;

/// The rules.
pub const ENTRY: Section = Section {
    number: "28.2.1.3",
    title: "VM-entry control fields",
    outcome: Outcome::InvalidControls,
    rules: &[
        Rule::new(
            "entry_reserved",
            "each bit is as IA32_VMX_ENTRY_CTLS (or its TRUE twin) allows",
            |entry, broken| broken.when(refuses(entry, Group::Entry), ENTRY_CONTROLS),
        ),
        Rule::new(
            "injected_kind",
            "the kind of the event (bits 10:8) is not 1, nor 7 unless the processor has \"monitor trap flag\" or FRED",
            |entry, broken| {
                let wrong = entry.injected().is_some_and(|event| match event.kind() {
                    Kind::Reserved => true,
                    Kind::Other => !entry.offers_monitor_trap() && !entry.offers_fred(),
                    _ => false,
                });
                broken.when(wrong, ENTRY_INTERRUPTION_INFORMATION);
            },
        ),
        Rule::new(
            "injected_vector",
            "the vector (bits 7:0) fits the kind: 2 for an NMI, at most 31 for a hardware exception; of other events 0 is \
             a pending monitor trap, where the processor has it, and 1 and 2 want CR4.FRED (bit 32) in the guest",
            |entry, broken| {
                let wrong = entry.injected().is_some_and(|event| match event.kind() {
                    Kind::Nmi => event.vector() != 2,
                    Kind::HardwareException => event.vector() > 31,
                    Kind::Other => match event.vector() {
                        0 => !entry.offers_monitor_trap(),
                        1 | 2 => !entry.uses_fred(),
                        _ => true,
                    },
                    _ => false,
                });
                broken.when(wrong, ENTRY_INTERRUPTION_INFORMATION);
            },
        ),
        Rule::new(
            "injected_error_code_bit",
            "an error code is delivered (bit 11) exactly with a hardware exception that has one: vectors 8, 10 to 14 and \
             17 (with or without, where IA32_VMX_BASIC has bit 56); never with \"unrestricted guest\" and CR0.PE 0",
            |entry, broken| {
                let wrong = entry.injected().is_some_and(|event| {
                    // A guest that is not unrestricted is in protected mode, or not entered for that.
                    let protected = !entry.unrestricted() || entry.get(GUEST_CR0) & 1 != 0;
                    let has_one = matches!(event.vector(), 8 | 10..=14 | 17);
                    match (event.kind(), protected, entry.capabilities.basic.any_error_code()) {
                        (Kind::HardwareException, true, true) => false,
                        (Kind::HardwareException, true, false) => event.has_error_code() != has_one,
                        _ => event.has_error_code(),
                    }
                });
                broken.when(wrong, ENTRY_INTERRUPTION_INFORMATION);
            },
        ),
        Rule::new(
            "injected_reserved",
            "bits 30:12 of an event are 0 (bit 13 of a hardware exception may be 1 where nested exceptions are known)",
            |entry, broken| {
                let wrong = entry.injected().is_some_and(|event| {
                    let may_nest = entry.capabilities.basic.nested_exceptions();
                    let nested = u32::from(may_nest && event.kind() == Kind::HardwareException) << 13;
                    event.0 & Event::RESERVED_AT_ENTRY & !nested != 0
                });
                broken.when(wrong, ENTRY_INTERRUPTION_INFORMATION);
            },
        ),
        Rule::new(
            "injected_error_code",
            "bits 31:16 of an error code that is delivered are 0",
            |entry, broken| {
                let delivered = entry.injected().is_some_and(Event::has_error_code);
                let field = ENTRY_EXCEPTION_ERROR_CODE;
                broken.when(delivered && entry.get(field) >> 16 != 0, field);
            },
        ),
        Rule::new(
            "injected_instruction_length",
            "with a software interrupt or exception, or SYSCALL or SYSENTER by FRED, it is 1 to 15 (or 0, where \
             IA32_VMX_MISC has bit 30)",
            |entry, broken| {
                let length = entry.get(ENTRY_INSTRUCTION_LENGTH);
                let wrong = length > 15 || length == 0 && !entry.capabilities.misc.zero_length_injection();
                let has_length = |event: Event| {
                    event.is_software() || event.kind() == Kind::Other && matches!(event.vector(), 1 | 2)
                };
                broken.when(
                    entry.injected().is_some_and(has_length) && wrong,
                    ENTRY_INSTRUCTION_LENGTH,
                );
            },
        ),
        Rule::new(
            "entry_msr_load_list",
            "if the VM-entry MSR-load count is not 0, bits 3:0 are 0, and neither it nor the address of the last byte \
             has a bit beyond the physical-address width",
            |entry, broken| {
                let field = ENTRY_MSR_LOAD_ADDRESS;
                broken.when(
                    entry.no_msr_list(entry.get(field), entry.get(ENTRY_MSR_LOAD_COUNT)),
                    field,
                );
            },
        ),
        Rule::new(
            "smm_controls",
            "outside SMM, \"entry to SMM\" and \"deactivate dual-monitor treatment\" are 0",
            |e, broken| {
                let any = e.entry(entry::ENTRY_TO_SMM) || e.entry(entry::DEACTIVATE_DUAL_MONITOR_TREATMENT);
                broken.when(any, ENTRY_CONTROLS);
            },
        ),
    ],
};
