//! What of the boot image needs no machine, and is tested on any.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod acpi;
pub mod block;
pub mod calendar;
pub mod command;
pub mod folder;
pub mod frequency;
pub mod line;
pub mod low;
pub mod ramdisk;
pub mod ustar;
