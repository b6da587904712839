//! The state of a machine as a value: what a vCPU has beside the guest's memory, and how it is put back.
//!
//! Devices write theirs down themselves: [`Transport::save`](chiton_core::devices::Transport::save).

pub(crate) mod vcpu;

pub use vcpu::VcpuState;
