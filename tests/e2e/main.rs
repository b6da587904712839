//! End-to-end tests: `chiton` itself, real guests, real KVM.

mod command_line;
mod disks;
mod endings;
mod faults;
mod folders;
mod hostile;
mod processors;
mod refusals;
mod run;
mod said;
mod spec_driver;
