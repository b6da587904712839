//! The boot image: Chiton on a machine without an operating system.
//!
//! `cargo xtask image` builds it for `x86_64-unknown-none` and puts it on a disk with a boot loader
//! and a ramdisk. For any other target it is a program that says so.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod machine;

/// The program for a machine that has an operating system.
#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    eprintln!("this is a boot image's kernel, not a program: type `cargo xtask image` to make the image");
    std::process::ExitCode::from(2)
}
