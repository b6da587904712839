//! Checks on VM-exit control fields.

use super::execution::refuses;
use crate::vmx::check::{Outcome, Rule, Section};
use crate::vmx::controls::{Group, exit, pin};
use crate::vmx::fields::*;

/// The rules.
pub const EXIT: Section = Section {
    number: "28.2.1.2",
    title: "VM-exit control fields",
    outcome: Outcome::InvalidControls,
    rules: &[
        Rule::new(
            "exit_reserved",
            "each bit is as IA32_VMX_EXIT_CTLS (or its TRUE twin) allows",
            |entry, broken| broken.when(refuses(entry, Group::Exit), EXIT_CONTROLS),
        ),
        Rule::new(
            "secondary_exit_reserved",
            "with \"activate secondary controls\", each bit is as IA32_VMX_EXIT_CTLS2 allows",
            |entry, broken| {
                let active = entry.exit(exit::ACTIVATE_SECONDARY_CONTROLS);
                broken.when(active && refuses(entry, Group::SecondaryExit), SECONDARY_EXIT_CONTROLS);
            },
        ),
        Rule::new(
            "save_timer_without_timer",
            "\"save VMX-preemption timer value\" is 0 without \"activate VMX-preemption timer\"",
            |entry, broken| {
                let saves = entry.exit(exit::SAVE_VMX_PREEMPTION_TIMER_VALUE);
                broken.when(saves && !entry.pin(pin::ACTIVATE_VMX_PREEMPTION_TIMER), EXIT_CONTROLS);
            },
        ),
        Rule::new(
            "exit_msr_store_list",
            "if the VM-exit MSR-store count is not 0, bits 3:0 are 0, and neither it nor the address of the last byte \
             has a bit beyond the physical-address width",
            |entry, broken| {
                let field = EXIT_MSR_STORE_ADDRESS;
                broken.when(
                    entry.no_msr_list(entry.get(field), entry.get(EXIT_MSR_STORE_COUNT)),
                    field,
                );
            },
        ),
        Rule::new(
            "exit_msr_load_list",
            "if the VM-exit MSR-load count is not 0, bits 3:0 are 0, and neither it nor the address of the last byte \
             has a bit beyond the physical-address width",
            |entry, broken| {
                let field = EXIT_MSR_LOAD_ADDRESS;
                broken.when(
                    entry.no_msr_list(entry.get(field), entry.get(EXIT_MSR_LOAD_COUNT)),
                    field,
                );
            },
        ),
    ],
};
