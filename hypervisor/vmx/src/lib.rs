//! The bare-metal backend for Intel's processors: a vCPU that programs VMX itself.
//!
//! ```text
//!   Vmx::enable ── VMXON ──▶ Vmx ── vcpu(memory, options) ──▶ VmxVcpu: core's trait Vcpu
//!                                                               │
//!   setup/      controls, host state, guest state ──▶ VMCS ◀────┤  run:
//!   entry       VMLAUNCH / VMRESUME … VM exit  ◀──── enter ─────┤    enter the guest
//!   handlers/   a file for each family of exits ◀─── handle ────┤    deal with its exit, or
//!   inject      events for the next entry ◀─────────────────────┘    hand it to the run loop
//! ```
//!
//! | file | what it is about | SDM volume 3C |
//! |---|---|---|
//! | `enable` | CPUID, IA32_FEATURE_CONTROL, capabilities, VMXON | 25.6 to 25.8 |
//! | `instructions` | VMREAD, VMPTRLD, INVEPT, … | 32 |
//! | `vmcs` | the VMCS where the processor keeps it | 26.2, 26.11 |
//! | `setup` | everything in the VMCS before the first entry | 26.4 to 26.8 |
//! | `entry` | the only assembly: registers in, registers out | 28.1, 29.5 |
//! | `vcpu` | the run loop of one vCPU | 25.1 |
//! | `handlers` | what becomes of each exit | 27, 29, appendix C |
//! | `inject` | events, those interrupted by an exit too | 28.6, 29.2.4 |
//! | `delivery` | interrupts of the guest's own APIC: when it takes one | 28.6, 28.7.5, 28.7.7 |
//! | `nmi` | NMIs of the guest's own, and their blocking | 28.7.6, 29.2.3 |
//! | `virtual_apic` | the same where the processor has that APIC | 31 |
//! | `timer` | time slices | 27.5.1 |
//! | `memory` | guest memory, mapped on demand | 30.3 |
//! | `broken` | a VMCS that is broken on purpose, for the entry checker to find | 28.2, 28.3 |
//! | `invalidate` | INVEPT and INVVPID, where and why | 30.4 |
//!
//! What the numbers mean (fields, controls, exit reasons, rules of VM entries) is in
//! [`chiton_core::vmx`], which is tested on any machine; here is what only a processor in VMX
//! operation can do.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod broken;
mod delivery;
mod enable;
mod entry;
mod error;
pub mod examples;
mod extras;
mod handlers;
mod hook;
mod inject;
mod instructions;
mod invalidate;
mod memory;
mod msr;
mod nmi;
mod options;
mod page_log;
mod prove;
mod setup;
mod timer;
mod trace;
mod vcpu;
mod views;
mod virtual_apic;
mod vmcs;

pub use enable::Vmx;
pub use error::Error;
pub use instructions::Failed;
pub use options::{Options, Tracer};
pub use setup::controls::Controls;
pub use trace::Trace;
pub use vcpu::{Counts, VmxVcpu};
