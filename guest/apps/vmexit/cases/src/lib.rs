//! How the exit suite measures, and the cases that mean something natively, too: the same code runs in the guest
//! `vmexit` and in `chiton-bench`, so that the two can be compared.
//!
//! ```text
//!   lfence; rdtsc; lfence      begin: nothing earlier is still under way, nothing later has begun
//!   the operation
//!   lfence; rdtsc; lfence      end
//! ```
//!
//! Intel's white paper "How to Benchmark Code Execution Times" fences with `cpuid`, which in a guest is an exit of
//! its own; `lfence` does the same without one (SDM volume 2A, LFENCE; on AMD where the kernel has made it
//! dispatch-serializing, which all do). What the two readings cost by themselves is measured as a case of its own,
//! `null`, and taken off by whoever reads the samples.
#![no_std]

pub mod clock;
pub mod instructions;
pub mod memory;
pub mod meter;

pub use clock::Clock;
pub use meter::{Done, Meter};
