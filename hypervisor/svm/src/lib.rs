//! The bare-metal backend for AMD's processors: a vCPU that programs SVM itself.
//!
//! ```text
//!   Svm::enable ─▶ Svm::vcpu ─▶ SvmVcpu::run ──────────────────────────────┐
//!   EFER.SVME      VMCB, maps     enter: VMLOAD VMRUN VMSAVE ─▶ EXITCODE   │
//!   host save      nested tables  handlers: deal with it ─▶ again          │
//!   area, timer                             or ask the run loop ─▶ Exit ───┘
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `enable`, `error` | turning SVM on, and why that may fail |
//! | `vmcb` | the VMCB as the processor has it |
//! | `setup` | what stands in a VMCB before the guest runs |
//! | `entry` | the way into the guest and back, in assembly |
//! | `delivery` | interrupts of the guest's own APIC: when it takes one |
//! | `nmi` | NMIs of the guest's own |
//! | `timer`, `interrupts` | time slices, by an interrupt of the machine |
//! | `vcpu`, `handlers` | the loop round the guest, and what becomes of each exit |
//! | `examples` | what a guest finds, each in a small guest of its own |
//! | `prove` | the rules of VMRUN and the processor, compared in thousands of cases |
//! | `options`, `trace`, `report` | what one can ask for, and what one is told |
//!
//! What SVM *is*, without executing it, is in [`chiton_core::svm`]. The twin of this crate is
//! `chiton-vmx`, file by file.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod delivery;
mod enable;
mod entry;
mod error;
pub mod examples;
mod handlers;
mod interrupts;
mod nmi;
mod options;
mod prove;
mod report;
mod setup;
mod timer;
mod trace;
mod vcpu;
mod vmcb;

pub use enable::Svm;
pub use error::Error;
pub use options::{Options, Tracer};
pub use prove::prove;
pub use report::Report;
pub use trace::Trace;
pub use vcpu::{Counts, SvmVcpu};
