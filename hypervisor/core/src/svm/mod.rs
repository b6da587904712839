//! AMD SVM as knowledge: every field, intercept, exit and rule of AMD's secure virtual machine, by name.
//!
//! Nothing here executes an instruction of SVM. A VMCB is read and written through small traits
//! ([`VmcbRead`], [`VmcbWrite`]), so that everything is tested on any machine, and a copy of a VMCB
//! is explained as well as a live one.
//!
//! | module | what it knows |
//! |---|---|
//! | [`fields`] | the fields of the VMCB, with place, width and access in their types |
//! | [`features`] | what this processor's SVM can do, by CPUID leaf 0x8000_000A |
//! | [`intercept`] | the bits that decide what exits, and the maps of ports and registers |
//! | [`exit`], [`information`] | every exit code, and what EXITINFO1 and EXITINFO2 say with it |
//! | [`event`] | events on their way into the guest |
//! | [`check`] | the rules that VMRUN checks, each with what breaks it |
//! | [`cases`] | ways to break a VMCB, by which a processor's verdict is compared with the rules |
//! | [`dump`] | a VMCB for people |
//! | [`controls`] | what was wanted, is allowed, and was chosen, as a table |
//! | [`clean`], [`tlb`] | what a processor may keep of a VMCB, and of the guest's translations |
//!
//! The backend that executes SVM is `chiton-svm`. The twin of this folder is [`vmx`](super::vmx).
//!
//! Sections are those of the APM (AMD64 Architecture Programmer's Manual, publication 24593, volume 2,
//! revision 3.40 and later), in which SVM is chapter 15, the layout of the VMCB appendix B and
//! exit codes appendix C.

pub mod cases;
pub mod check;
pub mod clean;
pub mod controls;
pub mod dump;
pub mod event;
pub mod exit;
pub mod features;
pub mod field;
pub mod fields;
pub mod information;
pub mod intercept;
pub mod state;
pub mod tlb;

#[cfg(test)]
mod tests;

pub use features::Features;
pub use state::{PlainVmcb, VmcbFields, VmcbRead, VmcbWrite};
