//! End-to-end tests: `chiton` itself, real guests, real KVM.

mod balloon;
mod command_line;
mod control;
mod disk_failures;
mod disk_options;
mod disks;
mod emulated;
mod endings;
mod faults;
mod folders;
mod hostile;
mod images;
mod instances;
mod interrupts;
mod io;
mod jails;
mod journal;
mod net;
mod networks;
mod ports;
mod processors;
mod refusals;
mod run;
mod said;
mod spec_driver;
mod vsock;
