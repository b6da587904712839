//! VMX as knowledge: every field, control, exit and rule of Intel's virtual-machine extensions, by name.
//!
//! Nothing here executes a VMX instruction. What has to be read comes through small traits
//! ([`MsrSource`], [`VmcsRead`]), so that everything is tested on
//! any machine, and a copy of a VMCS is explained as well as a live one.
//!
//! | folder | what it knows |
//! |---|---|
//! | [`fields`] | the fields of the VMCS, with width and access in their types |
//! | [`capability`] | what this processor's VMX can do, by its capability MSRs |
//! | [`controls`] | the bits of the controls, and how a setting is chosen that the processor allows |
//! | [`exit`], [`qualification`], [`instruction`], [`event`] | why a guest exited, in words |
//! | [`report`] | all of that for one exit |
//! | [`check`] | every rule that a VM entry obeys, and which a VMCS breaks |
//! | [`dump`] | a whole VMCS, by group |
//! | [`instruction_error`] | why a VMX instruction failed |
//!
//! Sections are those of the SDM (order number 325384) from October 2024 (085US) to the end of 2025, in which the VMCS is
//! chapter 26, VMX non-root operation 27, VM entries 28, VM exits 29, EPT and VPID 30, the virtual APIC 31, and the
//! instructions 32. Editions from the end of 2022 to June 2024 count one less, those before two less, and those from 2026
//! on one more. Fields, controls and rules are those of the edition of June 2026 (325384-092US), and the ENCLV-exiting
//! bitmap, which it no longer has.

pub mod capability;
pub mod check;
pub mod controls;
pub mod dump;
pub mod event;
pub mod exit;
pub mod field;
pub mod fields;
pub mod instruction;
pub mod instruction_error;
pub mod qualification;
pub mod report;
pub mod state;

#[cfg(test)]
mod tests;

pub use capability::{Capabilities, MsrSource};
pub use state::{NoSuchField, PlainVmcs, VmcsFields, VmcsRead, VmcsWrite};
