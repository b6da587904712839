//! What does not care who runs the vCPU.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod apic;
pub mod boot;
pub mod control;
pub mod cpuid;
pub mod decode;
pub mod devices;
pub mod examples;
pub mod exceptions;
pub mod exits;
pub mod explain;
pub mod fpu;
pub mod loader;
pub mod local_apic;
pub mod machine;
pub mod paging;
pub mod physical;
pub mod port;
pub mod space;
pub mod state;
pub mod svm;
pub mod vcpu;
pub mod vmx;
