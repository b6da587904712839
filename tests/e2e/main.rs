//! End-to-end tests: `chiton` itself, real guests, real KVM.

mod command_line;
mod disks;
mod endings;
mod faults;
mod hostile;
mod refusals;
mod run;
mod said;
mod spec_driver;
mod vsock;
